"""How fast a fleet is simulated: a year of five-minute readings at a thousand sites, on one core.

The year is ``simulated_year``. Everybody's windows are decided by the watcher's own gate with a forecast of 72 hours,
provisioned, drained and accounted for. Beside it stands the same loop over readings that does nothing at all, which is
what a simulator that looks at every reading cannot beat.

The same year is then written as one CSV file and given to the command, as a person would. ``WINDFALL_BENCH_CSV=no``
leaves that out, and so does a disk without the space: 6 bytes a reading for the file and 8 for what the command spools.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from math import nan
from pathlib import Path

from tests.bench.figures import Figure, report
from tests.bench.simulated_year import DAYS, START, STEPS, year_of
from windfall.energy.forecast import PERFECT
from windfall.energy.ledger import Usage
from windfall.energy.policy import Policy
from windfall.energy.power import SiteState
from windfall.energy.ruled import by_rule
from windfall.energy.simulate import SimulatedSite
from windfall.energy.tally import usage

SITES = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
READINGS = SITES * DAYS * STEPS
SKIP = "WINDFALL_BENCH_CSV"
POLICY = Policy(start_up=timedelta(seconds=240), drain=timedelta(seconds=15), error=PERFECT)


def columns() -> Iterator[SimulatedSite]:
    for seed in range(SITES):
        yield SimulatedSite(f"site-{seed}", year_of(seed))


def idle_loop_s() -> float:
    """Seconds in which Python merely counts the readings of all sites."""
    began = time.process_time()
    for _ in range(READINGS // 100):
        pass
    return 100 * (time.process_time() - began)


def from_csv() -> list[Figure]:
    """The command on one file, in a process of its own."""
    names = f"year of {SITES} sites from CSV s", "peak MiB from CSV"
    goals = "under 60 for 1000", "bounded: some blocks and one site's year"
    with tempfile.TemporaryDirectory() as folder:
        needed, free = 15 * READINGS, shutil.disk_usage(folder).free
        why = f"{SKIP}=no" if os.environ.get(SKIP) == "no" else f"{needed:,} bytes needed, {free:,} free"
        if why.startswith(SKIP) or free < needed:
            units = ("s", "MiB")
            return [Figure(*row, {}, f"left out: {why}") for row in zip(names, (nan, nan), units, goals, strict=True)]
        path = Path(folder) / "year.csv"
        python = [sys.executable, "-m"]
        subprocess.run([*python, "tests.bench.simulated_year", str(path), str(SITES)], check=True)
        size = path.stat().st_size
        asked = ["--policy", "windfall", "--objective", "fast", "--forecast", "perfect", "--trace", str(path)]
        environment = {**os.environ, "TMPDIR": folder}
        began = time.perf_counter()
        child = subprocess.Popen([*python, "windfall.cli", "simulate", *asked], env=environment)
        _, status, used = os.wait4(child.pid, 0)
        wall_s = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"windfall simulate ended with {child.returncode}")
    how = f"windfall simulate {' '.join(asked[:-1])} FILE, one process, from its start to its end; {size / 1e6:,.0f} MB"
    beside: dict[str, float | str] = {"seconds on the wall": wall_s}
    return [
        Figure(names[0], used.ru_utime + used.ru_stime, "s", goals[0], beside, f"core-seconds; {how}"),
        Figure(names[1], used.ru_maxrss / 1024, "MiB", goals[1], {}, "of the same process"),
    ]


def main() -> None:
    end = START + timedelta(days=DAYS)
    total, windows, spent = Usage(), 0, 0.0
    for place, site in enumerate(columns()):
        began = time.process_time()
        (life,) = by_rule([site], START, end, POLICY)
        total += usage(life, site, end, POLICY.open_below_g_per_kwh)
        spent += time.process_time() - began
        windows += sum(state is SiteState.TRAINING for _, state in life.changes)
        if sys.stderr.isatty():
            print(f"\r{place + 1} of {SITES} sites", end="", file=sys.stderr)
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    conditions = (
        f"{SITES} sites, {READINGS:,} readings, {windows / SITES / DAYS:.1f} windows a day and site, "
        f"{100 * (total.clean_energy_share or 0.0):.1f} % of the energy clean; core-seconds, making the traces left out"
    )
    report(
        "simulate",
        [
            Figure(
                f"year of {SITES} sites s",
                spent,
                "s",
                "under 60 for 1000",
                {"an empty loop over the readings": idle_loop_s()},
                conditions,
            ),
            Figure("peak MiB", peak_mib, "MiB", "bounded: one site's year at a time", {}, "of the whole process"),
            *from_csv(),
        ],
    )


if __name__ == "__main__":
    main()
