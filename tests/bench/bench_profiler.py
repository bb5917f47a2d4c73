"""``make bench-profiler``: how fast a node is known, and what is made of it. One file for each figure.

``ARGS`` names figures, or the beginnings of figures, to take alone: ``make bench-profiler ARGS=discovery``.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from tests.bench import (
    profiler_barrier,
    profiler_discovery,
    profiler_full,
    profiler_overhead,
    profiler_recommended,
)
from tests.bench.figures import Figure, report

FIGURES: Final[dict[str, Callable[[], Awaitable[list[Figure]]]]] = {
    "discovery s": profiler_discovery.figures,
    "full profile s": profiler_full.figures,
    "overhead while training %": profiler_overhead.figures,
    "recommended throughput % of best": profiler_recommended.figures,
    "barrier wait %": profiler_barrier.figures,
}


async def measured(wanted: Sequence[str]) -> list[Figure]:
    found: list[Figure] = []
    for name, figures in FIGURES.items():
        if any(name.startswith(wish) for wish in wanted):
            print(f"measuring {name} ...", flush=True)
            found += await figures()
    if not found:
        raise SystemExit(f"no figure is called {' or '.join(wanted)}")
    return found


if __name__ == "__main__":
    report("profiler", asyncio.run(measured(sys.argv[1:] or [""])))
