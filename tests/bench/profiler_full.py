"""``full profile s``: hardware, and everything that it can do, with the settings that a profiler has by itself."""

import os
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.bench.figures import Figure
from windfall.profiler.probe import node
from windfall.profiler.profile import COMPUTE_PARTS
from windfall.profiler.settings import ProfilerSettings

GOAL_S: Final = 60.0


async def figures() -> list[Figure]:
    """One figure; there is no coordinator, so that no link is in it."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ProfilerSettings(site="bench", state_dir=Path(folder), nats_url="nats://127.0.0.1:1")
        probes = node(settings)
        begun = time.perf_counter()
        host = await probes.host.host()
        await probes.hardware.discover()
        discovered_s = time.perf_counter() - begun
        compute = await probes.compute.compute(host)
        taken_s = time.perf_counter() - begun
    measured = sum(bool(getattr(compute, part)) for part in COMPUTE_PARTS)
    beside: dict[str, float | str] = {
        "discovery": discovered_s,
        "parts a recommendation needs": f"{measured} of {len(COMPUTE_PARTS)}",
        "micro-batches": len(compute.step_s_by_micro_batch),
        "intervals": len(compute.intervals),
    }
    load = os.getloadavg()[0]
    conditions = f"{compute.device or 'no torch'}, {host.cpu_cores} cores, load {load:.1f}; {compute.benchmark}"
    return [Figure("full profile s", taken_s, "s", f"under {GOAL_S:g}", beside, conditions)]
