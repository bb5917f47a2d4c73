"""``windfall-health [livez|readyz]``: asks the service of this container how it is, for a probe that is a command. It
ends with 0 when all is well, else with 1, and says one line.

An orchestrator runs this every few seconds on every node, so it imports little: a tenth of what an HTTP client takes.
"""

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import Final

_TIMEOUT_S: Final = 4.0
"""Below what a probe usually gives us."""
_QUESTIONS: Final = ("livez", "readyz")


def main(words: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Ask, and say the answer; the exit code."""
    asked = list(sys.argv[1:] if words is None else words) or ["readyz"]
    if len(asked) != 1 or asked[0] not in _QUESTIONS:
        sys.stderr.write(f"windfall-health: {' '.join(asked)!r} is not known. Ask one of {', '.join(_QUESTIONS)}\n")
        return 2
    fine, said = _answer(asked[0], os.environ if environ is None else environ)
    (sys.stdout if fine else sys.stderr).write(f"{said}\n")
    return 0 if fine else 1


def _answer(question: str, environ: Mapping[str, str]) -> tuple[bool, str]:
    try:
        with socket.create_connection(("127.0.0.1", _port(environ)), _TIMEOUT_S) as connection:
            connection.sendall(f"GET /{question} HTTP/1.0\r\n\r\n".encode())
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
    except (OSError, ValueError, KeyError) as error:
        return False, f"nobody answers ({type(error).__name__}: {error})"
    head, _, body = answer.partition(b"\r\n\r\n")
    return b" 200 " in head.split(b"\r\n", 1)[0], body.decode(errors="replace").strip()


def _port(environ: Mapping[str, str]) -> int:
    told = int(environ.get("WINDFALL_HEALTH_PORT") or 0)
    if told:
        return told
    # It took a free one, and wrote down which.
    import json

    with open(os.path.join(environ.get("WINDFALL_STATE_DIR") or ".", "health.json"), encoding="utf-8") as file:  # noqa: PTH118, PTH123
        return int(json.load(file)["port"])


if __name__ == "__main__":
    sys.exit(main())
