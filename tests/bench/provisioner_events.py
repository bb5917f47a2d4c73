"""From a window that opens to the first word to the API server."""

import asyncio
import statistics
from datetime import timedelta
from pathlib import Path

from tests.bench.figures import Figure, percentile
from tests.bench.provisioner_site import site
from windfall.contracts.events import NodeReady, NodeReleased

_WINDOWS = 100
_FIRST = 5
"""Windows that warm it up and do not count."""


def first_write(folder: Path) -> list[Figure]:
    seconds = asyncio.run(_windows(folder))[_FIRST:]
    beside: dict[str, float | str] = {
        "median ms": statistics.median(seconds) * 1000,
        "worst ms": max(seconds) * 1000,
        "exalsius-operator": "polls every 10 to 30 s; not run here",
    }
    conditions = (
        f"{len(seconds)} windows, one after another; real nats-server and provisioner, journal fsynced; the API server "
        "is the double; the end is when a watch has told of the write"
    )
    value = percentile(seconds, 0.99) * 1000
    return [Figure("event to first API write p99 ms", value, "ms", "under 100", beside, conditions)]


async def _windows(folder: Path) -> list[float]:
    loop = asyncio.get_running_loop()
    seconds = []
    async with site(folder, timedelta(minutes=1)) as here:
        for token in range(1, _FIRST + _WINDOWS + 1):
            opened_at = loop.time()
            window = await here.opens()
            seconds.append(await here.has_written(token) - opened_at)
            await here.hears(NodeReady)
            await here.closes(window)
            await here.hears(NodeReleased)
    return seconds
