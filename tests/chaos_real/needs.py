"""What a fleet is made of: what its power does, and what it needs beside the usual."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from windfall.cli.fleet import Pace
from windfall.energy.signals import TIME_COLUMN

SITES: Final = ("site-a", "site-b")
STEADY: Final = Pace(
    speed=1.0,
    head_start=timedelta(0),
    round_length=timedelta(seconds=1),
    straggler_grace=timedelta(seconds=2),
    drain=timedelta(seconds=10),
    warning=timedelta(seconds=5),
    stale_after=timedelta(hours=3),
)
_CLEAN_G_PER_KWH: Final = 50.0
_DIRTY_G_PER_KWH: Final = 400.0
_EVERY: Final = timedelta(minutes=5)
MIDNIGHT: Final = datetime(2026, 6, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Day:
    """What the power does: hours after midnight, from when until when it is clean, at each site."""

    pace: Pace = STEADY
    length: timedelta = timedelta(hours=12)
    clean_h: Mapping[str, Sequence[tuple[float, float]]] = field(
        default_factory=lambda: {site: [(0.0, 12.0)] for site in SITES}
    )


@dataclass(frozen=True)
class Needs:
    """What a fleet is made of, beside the usual."""

    day: Day = field(default_factory=Day)
    tls: Callable[[Path], Mapping[str, Mapping[str, str]]] | None = None
    """Makes keys under a folder, and says what each place's services are told of them."""
    small_disk_of: str = ""
    """``hub``, or a site: its services' state lies on a file system of a few megabytes of its own."""
    pythonpath: str = ""
    """Where programs find the product; empty is where this one does."""
    calm: bool = False
    """It trains :mod:`tests.chaos_real.calm_task`, and leaves the processor to others."""
    stays: bool = False
    """What a provisioner started goes on when it is ended in order, as is usual but in a demo."""


def calm() -> Needs:
    """A fleet that others may stand beside."""
    return Needs(calm=True)


def write_trace(path: Path, day: Day) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow([TIME_COLUMN, *day.clean_h])
        for number in range(int(day.length / _EVERY) + 1):
            at = number * _EVERY / timedelta(hours=1)
            rows.writerow(
                [
                    (MIDNIGHT + number * _EVERY).isoformat(),
                    *(
                        f"{_CLEAN_G_PER_KWH if any(begin <= at < end for begin, end in clean) else _DIRTY_G_PER_KWH:g}"
                        for clean in day.clean_h.values()
                    ),
                ]
            )
