"""``recommended throughput % of best``: the micro-batch that a profile recommends, beside every other.

The profile is the profiler's own, of the same task, with the budget that it has by itself. The search then trains with
the trainer's engine, the sizes in turn, so that a busy moment falls on all alike. Rates are as if nothing else had used
the processor (``estimates.unshared``), in the profile and in the search. Which size is the fastest by the wall depends
on what else the machine does at that moment; that is told beside.
"""

import os
from datetime import timedelta
from typing import Final

from tests.bench.figures import Figure
from tests.bench.profiler_training import SETTINGS, TASK, searched, text
from windfall.profiler.cpu import Cpu
from windfall.profiler.measurement.bench import TorchBench
from windfall.profiler.measurement.estimates import typical, unshared
from windfall.profiler.profile import Link, Workload, summarise
from windfall.profiler.recommendation import Goals, recommend
from windfall.profiler.settings import ProfilerSettings

SIZES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)
"""Beyond what the benchmark looks at, too."""
SEARCH_S: Final = 90.0
GOAL: Final = 95.0


async def figures() -> list[Figure]:
    """One figure."""
    budget: timedelta = ProfilerSettings.model_fields["bench_budget"].default
    host = await Cpu().host()
    with text() as data:
        bench = TorchBench(budget, full=True, workload=Workload(task=TASK, settings=SETTINGS), data_dir=data)
        compute = await bench.compute(host)
        advice = recommend(summarise("bench", host, compute, Link()), Goals(timedelta(seconds=30)))
        sizes = sorted({*SIZES, advice.micro_batch})
        taken = searched(data, host.cpu_cores, sizes, SEARCH_S)
    rates = {size: size / typical(times) for size, times in unshared(taken).items()}
    walls = {size: size / typical(runs.s) for size, runs in taken.items()}
    best = max(rates, key=lambda size: rates[size])
    load = os.getloadavg()[0]
    return [
        Figure(
            "recommended throughput % of best",
            100 * rates[advice.micro_batch] / rates[best],
            "%",
            f"at least {GOAL:g}",
            {
                "recommended": f"{rates[advice.micro_batch]:.3g} samples/s at {advice.micro_batch}",
                "best of all": f"{rates[best]:.3g} at {best}",
                "% of best by the wall": 100 * walls[advice.micro_batch] / max(walls.values()),
                "best by the wall": f"{max(walls.values()):.3g} at {max(walls, key=lambda size: walls[size])}",
                "worst": f"{min(rates.values()):.3g} at {min(rates, key=lambda size: rates[size])}",
            },
            f"{compute.task or 'reference model'}, {len(sizes)} sizes, {len(taken[best].s)} steps each; "
            f"{host.cpu_cores} cores, load {load:.1f}",
        )
    ]
