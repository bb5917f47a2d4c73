"""``discovery s``: everything that a node is made of, on this machine and on recorded ones with eight GPUs."""

import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Final

from tests.bench.figures import Figure
from windfall.profiler.discovery.hardware import of_node
from windfall.profiler.testing.recorded_machine import load, replayed

RUNS: Final = 9
WITHIN: Final = timedelta(seconds=20)
RECORDED: Final = {"hgx-h100-80gb": "8 H100, recorded", "mi300x-8-spx": "8 MI300X, recorded"}
GOAL_S: Final = 1.0


async def figures() -> list[Figure]:
    """One figure; the recorded machines replay drivers that answer at once, in real child processes."""
    with tempfile.TemporaryDirectory() as folder:
        state_dir = Path(folder) / "state"
        state_dir.mkdir()
        here = of_node(state_dir, WITHIN)
        taken = await _seconds(here.discover)
        beside: dict[str, float | str] = {"worst": max(taken)}
        for name, what in RECORDED.items():
            machine = replayed(load(name), Path(folder) / name)
            recorded = of_node(state_dir, WITHIN, machine.root, environment=machine.environment)
            beside[what] = median(await _seconds(recorded.discover))
        hardware = (await here.discover()).hardware
    gpus = len(hardware.accelerators)
    load_average = os.getloadavg()[0]
    conditions = f"median of {RUNS}; {gpus} GPUs, {os.cpu_count()} cores, load {load_average:.1f}; storage measured"
    return [Figure("discovery s", median(taken), "s", f"under {GOAL_S:g}", beside, conditions)]


async def _seconds(work: Callable[[], Awaitable[object]]) -> list[float]:
    await work()  # reads programs and files into the page cache
    taken = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        await work()
        taken.append(time.perf_counter() - begun)
    return taken
