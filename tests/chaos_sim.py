"""``make chaos-sim``: thousands of schedules of faults on a fleet in one process, each from its seed.

``SCHEDULES=N`` is how many, ``FIRST=S`` the first seed, ``SEED=S`` one seed again with everything that happens in it;
every verdict is kept in ``bench-results/chaos-sim.jsonl`` as it falls, and ``RESUME=1`` goes on with what an earlier
run did not come to. A schedule that breaks an invariant is shrunk, and printed as what it takes. It ends with 1 then.
"""

import argparse
import json
import logging
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench.figures import RESULTS, percentile
from tests.chaos.faults import KINDS, drawn
from tests.chaos.verdict import shrunk, tried
from tests.chaos.workers import judged, warm_up

_EVERY_S: Final = 10.0
"""Between two lines of progress."""
_KEPT: Final = RESULTS / "chaos-sim.jsonl"


def main() -> None:
    environ = os.environ
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--schedules", type=int, default=int(environ.get("SCHEDULES", "10000")))
    parser.add_argument("--first", type=int, default=int(environ.get("FIRST", "0")))
    parser.add_argument("--seed", type=int, default=environ.get("SEED"))
    parser.add_argument("--resume", action="store_true", default=environ.get("RESUME", "") not in ("", "0"))
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    asked = parser.parse_args()
    if asked.seed is not None:
        sys.exit(again(int(asked.seed)))
    begun = time.perf_counter()
    warm_up()
    seeds = range(asked.first, asked.first + asked.schedules)
    verdicts = all_of(seeds, max(1, asked.workers), _KEPT, resume=asked.resume)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    sys.exit(report(verdicts, time.perf_counter() - begun, spent.ru_utime + spent.ru_stime))


def all_of(seeds: Sequence[int], workers: int, kept: Path, *, resume: bool) -> list[dict[str, Any]]:
    """Verdicts of many schedules; those that were kept before are not asked for again."""
    kept.parent.mkdir(exist_ok=True)
    verdicts = _read(kept, seeds) if resume else []
    known, said = {one["seed"] for one in verdicts}, time.perf_counter()
    with kept.open("a" if resume else "w", buffering=1) as file:
        for one in judged([seed for seed in seeds if seed not in known], workers):
            file.write(json.dumps(one) + "\n")
            verdicts.append(one)
            if time.perf_counter() - said > _EVERY_S:
                said = time.perf_counter()
                broken = sum(bool(one["violation"]) for one in verdicts)
                print(f"{len(verdicts)} of {len(seeds)} schedules, {broken} broken", flush=True)
    return verdicts


def _read(kept: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """What was kept of these seeds; a line that was cut is none."""
    lines = kept.read_text().splitlines(keepends=True) if kept.exists() else []
    found = [json.loads(line) for line in lines if line.endswith("\n")]
    wanted = set(seeds)
    return list({one["seed"]: one for one in found if one["seed"] in wanted}.values())


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


def report(verdicts: Sequence[dict[str, Any]], seconds: float, cpu_s: float) -> int:
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
    p50, p95 = percentile(waits, 0.5), percentile(waits, 0.95)
    print(
        f"{len(verdicts):,} schedules, {sum(deaths.values()):,} deaths of services, {len(failed)} violations, "
        f"{seconds:.0f} s, {cpu_s:.0f} s of processor time\n"
        f"next round after healing: p50 {p50:.0f} s, p95 {p95:.0f} s of the fleet's time"
    )
    RESULTS.mkdir(exist_ok=True)
    summary = {
        "schedules": len(verdicts),
        "violations": [{"seed": one["seed"], "violation": one["violation"]} for one in failed],
        "faults": dict(faults),
        "deaths": dict(deaths),
        "again_s": {"p50": p50, "p95": p95},
        "seconds": seconds,
        "cpu_s": cpu_s,
    }
    (RESULTS / "chaos-sim.json").write_text(json.dumps(summary, indent=2) + "\n")
    for one in failed[:5]:
        print()
        again(one["seed"])
    return 1 if failed else 0


if __name__ == "__main__":
    main()
