"""``make chaos``: a fleet of real processes is hurt, so many times in each way, and must be as if nothing had happened.

``ARGS="--fault NAME --runs N --seed S"`` takes some of them (``--list`` says which there are), ``RUNS=N`` is how many
of each. ``--fleets N`` hurts so many at a time: of use where a fault mostly lasts, as a partition of ten minutes does.
It ends with 1 when an invariant did not hold.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

from tests.chaos_real import report
from tests.chaos_real.fault import Fault, Run
from tests.chaos_real.registry import FAULTS, named
from tests.chaos_real.running import Told, run
from windfall.servicekit.errors import Mistake


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="make chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--fault", default="", help="its name or how that begins; several, separated by commas")
    parser.add_argument("--runs", type=int, default=int(os.environ.get("RUNS", "20")), help="of each fault")
    parser.add_argument("--seed", type=int, default=0, help="of the first run; each next one has the next")
    parser.add_argument(
        "--fleets", type=int, default=1, help="beside each other; what they need of a processor adds up"
    )
    parser.add_argument("--add", action="store_true", help="to the runs of other seeds that are known already")
    parser.add_argument(
        "--resume", action="store_true", help="only the runs that are lacking: as --add, known seeds left out"
    )
    parser.add_argument("--list", action="store_true", help="what can be done to a fleet")
    parser.add_argument("--page", action="store_true", help="the table of docs/reliability.md, from the last results")
    asked = parser.parse_args()
    if asked.list:
        for fault in FAULTS:
            print(f"{fault.name:32} {fault.does}")
        return
    if asked.page:
        print(report.page(FAULTS))
        return
    try:
        faults = named(asked.fault)
    except LookupError as error:
        sys.exit(f"make chaos: {error.args[0]}")
    with suppress(asyncio.CancelledError):
        sys.exit(asyncio.run(_all(faults, range(asked.seed, asked.seed + asked.runs), asked)))
    sys.exit(130)


async def _all(faults: tuple[Fault, ...], seeds: range, asked: argparse.Namespace) -> int:
    _cancel_on_signals()
    began = time.perf_counter()
    again = range(0) if asked.resume else seeds
    runs = {fault.name: report.earlier(fault, again) if asked.add or asked.resume else [] for fault in faults}
    known = {(name, one.seed) for name, each in runs.items() for one in each}
    turns = [(fault, seed) for fault, seed in _in_turn(faults, seeds) if (fault.name, seed) not in known]
    minutes = 1 + sum(fault.minutes for fault, _ in turns) / asked.fleets
    _say(f"{len(faults)} faults, {len(turns)} runs, about {minutes:.0f} minutes on two cores")
    stopped = ""

    def ran(fault: Fault, one: Run) -> None:
        runs[fault.name].append(one)
        _say(f"{fault.name}: seed {one.seed}, run {len(runs[fault.name])}, {_came_to(one)}")
        # Whatever ends this, what was measured until then is kept.
        report.kept([report.row(fault, runs[fault.name])])

    try:
        await run(turns, Told(_say, ran), asked.fleets)
    except (Mistake, TimeoutError) as error:
        stopped = f"it ended early: {error}"
    report.show([each for each in report.read() if runs.get(each["fault"])])
    broken = sum(bool(one.violations) for each in runs.values() for one in each)
    _say(f"{time.perf_counter() - began:.0f} s; {broken} runs with violations; written to {report.FILE}; {stopped}")
    return 1 if broken or stopped else 0


def _cancel_on_signals() -> None:
    """However it is asked to end, it leaves no fleet behind."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


def _in_turn(faults: Sequence[Fault], seeds: range) -> list[tuple[Fault, int]]:
    """Seed by seed, so that each fault meets what the others leave behind; those that share a fleet together."""
    fleets = dict.fromkeys(fault.needs for fault in faults)
    return [(fault, seed) for needs in fleets for seed in seeds for fault in faults if fault.needs is needs]


def _came_to(one: Run) -> str:
    took = "no recovery" if one.recovery_s is None else f"{one.recovery_s:.2f} s"
    return f"{took}, {'; '.join(one.violations) or 'well'} ({one.wall_s:.0f} s)"


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
