"""The double as a process; see the package."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from windfall.servicekit.errors import Mistake
from windfall.servicekit.testing.kube_api.double import KubeApi


async def _run(port: int, state: Path | None) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, ended.set)
    async with KubeApi(port, state) as api:
        if state is not None:
            path = state / "kubeconfig"
            # At once: whoever follows an earlier life reads it at any moment, and this one may be killed at any.
            whole = state / "kubeconfig.new"
            whole.write_text(api.kubeconfig(), encoding="utf-8")
            whole.replace(path)
            print(f"export KUBECONFIG={path}", flush=True)  # noqa: T201 - a person or a script reads it
        else:
            print(api.url, flush=True)  # noqa: T201
        await ended.wait()


def main() -> int:
    parser = argparse.ArgumentParser(description="A double of Kubernetes' API server on loopback.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--state", type=Path, help="folder of its log and kubeconfig; in memory alone without one")
    arguments = parser.parse_args()
    try:
        asyncio.run(_run(arguments.port, arguments.state))
    except Mistake as mistake:
        print(mistake, file=sys.stderr)  # noqa: T201
        return int(mistake.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main())
