"""``make chaos-sim``: thousands of schedules of faults on a fleet in one process, each from its seed.

``SCHEDULES=N`` is how many, ``FIRST=S`` the first seed, ``SEED=S`` one seed again with everything that happens in it. A
schedule that breaks an invariant is shrunk, and printed as what it takes. It ends with 1 then.
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from tests.bench.figures import RESULTS, percentile
from tests.chaos.faults import KINDS, drawn
from tests.chaos.verdict import shrunk, tried

_EVERY_S = 10.0
"""Between two lines of progress."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=int(os.environ.get("SCHEDULES", "10000")))
    parser.add_argument("--first", type=int, default=int(os.environ.get("FIRST", "0")))
    parser.add_argument("--seed", type=int, default=os.environ.get("SEED"))
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--worker", type=int, nargs=3, metavar=("FIRST", "LAST", "STRIDE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker is not None:
        work(*asked.worker)
    elif asked.seed is not None:
        sys.exit(again(int(asked.seed)))
    else:
        begun = time.perf_counter()
        verdicts = asyncio.run(all_of(asked.first, asked.schedules, max(1, asked.workers)))
        sys.exit(report(verdicts, time.perf_counter() - begun))


def work(first: int, last: int, stride: int) -> None:
    """One process: every so many-eth seed, a line of JSON each."""
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    # What was imported stays, and of a run nothing does: looking for cycles within one is a waste.
    gc.freeze()
    gc.disable()
    for seed in range(first, last, stride):
        print(json.dumps(asdict(tried(seed, drawn(seed)))), flush=True)
        gc.collect()


def again(seed: int) -> int:
    """One schedule, told fault by fault, and shrunk when it fails."""
    logging.disable(logging.CRITICAL)
    schedule = drawn(seed)
    print(f"seed {seed}:")
    for fault in schedule:
        print(f"  {fault}")
    found = tried(seed, schedule)
    if not found.violation:
        print(f"well: {found.rounds} rounds, deaths {dict(found.deaths)}, trains again after {found.again_s:.0f} s")
        return 0
    print(f"broken: {found.violation}\nIt takes:")
    for fault in shrunk(schedule, lambda fewer: bool(tried(seed, fewer).violation)):
        print(f"  {fault}")
    return 1


async def all_of(first: int, count: int, workers: int) -> list[dict[str, Any]]:
    """Many schedules on several processes."""
    verdicts, said = list[dict[str, Any]](), 0.0
    processes = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.chaos_sim", "--worker"),
            *map(str, (first + worker, first + count, workers)),
            stdout=asyncio.subprocess.PIPE,
            limit=2**24,
        )
        for worker in range(workers)
    ]

    async def read(process: asyncio.subprocess.Process) -> None:
        nonlocal said
        assert process.stdout is not None
        async for line in process.stdout:
            verdicts.append(json.loads(line))
            if time.perf_counter() - said > _EVERY_S:
                said = time.perf_counter()
                broken = sum(bool(one["violation"]) for one in verdicts)
                print(f"{len(verdicts)} of {count} schedules, {broken} broken", flush=True)
        if await process.wait():
            raise RuntimeError(f"a worker ended with {process.returncode}")

    await asyncio.gather(*(read(process) for process in processes))
    return verdicts


def report(verdicts: Sequence[dict[str, Any]], seconds: float) -> int:
    """A row for each kind of fault; then what it takes to break an invariant, where something does."""
    schedules, faults, broken = Counter[str](), Counter[str](), Counter[str]()
    for one in verdicts:
        kinds = [fault["kind"] for fault in one["schedule"]]
        faults.update(kinds)
        schedules.update(set(kinds))
        if one["violation"]:
            broken.update(set(kinds))
    print(f"{'fault':20} {'schedules':>9} {'faults':>7} {'in broken ones':>14}")
    for kind in KINDS:
        print(f"{kind:20} {schedules[kind]:>9,} {faults[kind]:>7,} {broken[kind]:>14,}")
    failed = [one for one in verdicts if one["violation"]]
    deaths = Counter[str]()
    for one in verdicts:
        deaths.update(one["deaths"])
    waits = [one["again_s"] for one in verdicts if one["again_s"] is not None]
    print(
        f"{len(verdicts):,} schedules, {sum(deaths.values()):,} deaths of services, {len(failed)} violations, "
        f"{seconds:.0f} s\nnext round after healing: p50 {percentile(waits, 0.5):.0f} s, p95 "
        f"{percentile(waits, 0.95):.0f} s of the fleet's time"
    )
    RESULTS.mkdir(exist_ok=True)
    summary = {
        "schedules": len(verdicts),
        "violations": [{"seed": one["seed"], "violation": one["violation"]} for one in failed],
        "faults": dict(faults),
        "deaths": dict(deaths),
        "again_s": {"p50": percentile(waits, 0.5), "p95": percentile(waits, 0.95)},
        "seconds": seconds,
    }
    (RESULTS / "chaos-sim.json").write_text(json.dumps(summary, indent=2) + "\n")
    for one in failed[:5]:
        print()
        again(one["seed"])
    return 1 if failed else 0


if __name__ == "__main__":
    main()
