"""A year of five-minute readings at many sites, made from a seed for each: as columns, or as one CSV file.

A night of wind and a noon of sun on most days, some of them broken by flaps of a few minutes, between levels like those
of real grids. ``python -m tests.bench.simulated_year FILE SITES`` writes the file; it is a process of its own because
it holds all sites, and who measures must not.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from windfall.energy.column import Column

START = datetime(2025, 1, 1, tzinfo=UTC)
DAYS, STEPS = 365, 288


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


def write(path: Path, sites: int) -> None:
    """A row for each five minutes, values with one decimal."""
    tenths = np.empty((DAYS * STEPS, sites), np.uint16)
    for site in range(sites):
        tenths[:, site] = np.rint(10.0 * year_of(site).values)
    text = [f"{tenth / 10:.1f}" for tenth in range(int(tenths.max()) + 1)]
    with path.open("w", encoding="utf-8") as file:
        file.write(f"point_time,{','.join(f'site-{site}' for site in range(sites))}\n")
        for step, row in enumerate(tenths):
            at = START + step * timedelta(minutes=5)
            file.write(f"{at.isoformat()},{','.join(map(text.__getitem__, row.tolist()))}\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]))
