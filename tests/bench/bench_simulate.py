"""How fast a fleet is simulated: a year of five-minute readings at a thousand sites, on one core.

The year is made here, from a seed for each site: a night of wind and a noon of sun on most days, some of them broken by
flaps of a few minutes, between levels like those of real grids. Everybody's windows are decided by the watcher's own
gate with a forecast of 72 hours, provisioned, drained and accounted for. Beside it stands the same loop over readings
that does nothing at all, which is what a simulator that looks at every reading cannot beat.
"""

import resource
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np

from tests.bench.figures import Figure, report
from windfall.energy.column import Column
from windfall.energy.forecast import PERFECT
from windfall.energy.ledger import Usage
from windfall.energy.outcome import usage
from windfall.energy.policy import Policy
from windfall.energy.power import SiteState
from windfall.energy.ruled import by_rule
from windfall.energy.simulate import SimulatedSite

SITES = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
START = datetime(2025, 1, 1, tzinfo=UTC)
DAYS, STEPS = 365, 288
POLICY = Policy(start_up=timedelta(seconds=240), drain=timedelta(seconds=15), error=PERFECT)


def year_of(seed: int) -> Column:
    """Five-minute readings of one site in gCO2/kWh."""
    drawn = np.random.default_rng(seed)
    values = drawn.uniform(350.0, 700.0) + drawn.normal(0.0, 12.0, DAYS * STEPS)
    for day in range(DAYS):
        for hour, spread, chance in ((2.0, 2.5, 0.6), (12.5, 1.5, 0.7)):
            if drawn.random() < chance:
                begin = int(day * STEPS + (hour + drawn.normal(0.0, spread)) * 12)
                end = begin + int(drawn.uniform(6, 72))
                values[max(0, begin) : max(0, end)] = drawn.uniform(5.0, 80.0)
                if drawn.random() < 0.3:
                    flap = int(drawn.integers(begin, end))
                    values[max(0, flap) : max(0, flap) + int(drawn.integers(1, 5))] = 420.0
    times = START.timestamp() + np.arange(DAYS * STEPS, dtype=np.float64) * 300.0
    return Column(times, np.asarray(np.maximum(values, 0.0), np.float64), float(times[-1]) + 300.0)


def columns() -> Iterator[SimulatedSite]:
    for seed in range(SITES):
        yield SimulatedSite(f"site-{seed}", year_of(seed))


def idle_loop_s() -> float:
    """Seconds in which Python merely counts the readings of all sites."""
    began = time.process_time()
    for _ in range(SITES * DAYS * STEPS // 100):
        pass
    return 100 * (time.process_time() - began)


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
        f"{SITES} sites, {SITES * DAYS * STEPS:,} readings, {windows / SITES / DAYS:.1f} windows a day and site, "
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
        ],
    )


if __name__ == "__main__":
    main()
