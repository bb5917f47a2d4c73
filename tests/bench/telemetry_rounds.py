"""Rounds without training in a process of their own, traced or not as the environment says.

Each begins when a line comes in, and the next line out says that it is over: so that two such processes take turns.
"""

import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.bench import rounds
from windfall.servicekit import metrics, telemetry


async def turn() -> None:
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)


def main() -> None:
    model, times = sys.argv[1], int(sys.argv[2])
    telemetry.set_up("bench", "sites", None)
    metrics.set_up("bench", "sites")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        seen = asyncio.run(rounds.run(Path(folder), model, 3, times, turn=turn))
    metrics.tear_down()
    telemetry.tear_down()
    print(json.dumps({"seconds": seen.seconds, "cpu_s": seen.coordinator_cpu_s + seen.sites_cpu_s}))


if __name__ == "__main__":
    main()
