"""``overhead while training %``: what a training loses to the counters that telemetry reads beside it.

Stretches with and without take turns. What else the profiler does while a site trains is not in it: it waits for the
bus (``service idle CPU %`` of ``make bench-spine``), and profiles a known node once for a window.
"""

import os
import resource
import threading
import time
from statistics import median
from typing import Final

from tests.bench.figures import Figure
from tests.bench.profiler_training import engine, step_s, text
from windfall.profiler.hw.telemetry import Child

PAIRS: Final = 6
STRETCH_S: Final = 10.0
"""One reading in each: six times as often as OpenTelemetry's exporter collects by itself."""
MICRO_BATCH: Final = 8
GOAL: Final = 2.0


async def figures() -> list[Figure]:
    """One figure, the median of pairs."""
    cores = len(os.sched_getaffinity(0))
    lost, shares = [], []
    with text() as data:
        trained = engine(data, cores)
        for _ in range(5):
            trained.step(MICRO_BATCH)

        def rate(reading: threading.Thread | None) -> float:
            begun = time.perf_counter()
            if reading is not None:
                reading.start()
            steps = 0
            while time.perf_counter() - begun < STRETCH_S:
                step_s(trained, MICRO_BATCH)
                steps += 1
            taken = time.perf_counter() - begun
            if reading is not None:
                reading.join()
            return steps / taken

        for _ in range(PAIRS):
            without = rate(None)
            before_s = _children_s()
            beside = rate(threading.Thread(target=Child()))
            shares.append(100 * (_children_s() - before_s) / (STRETCH_S * cores))
            lost.append(100 * (1 - beside / without))
    load = os.getloadavg()[0]
    return [
        Figure(
            "overhead while training %",
            median(lost),
            "%",
            f"under {GOAL:g}",
            {"least": min(lost), "most": max(lost), "processor time of the readings, %": median(shares)},
            f"{PAIRS} pairs of {STRETCH_S:g} s, one reading in each second one; {cores} cores, load {load:.1f}",
        )
    ]


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
