"""What is known about a site's power: readings, and traces of readings read from CSV.

A reading holds until the next one (a step signal): that is how grids publish and how schedulers see it.
"""

import csv
import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from windfall.contracts.message import instant

TIME_COLUMN: Final = "point_time"
MOST_G_PER_KWH: Final = 5000.0
"""No power on Earth is dirtier: lignite at its worst stays under 2000, so more is a wrong unit or a broken meter."""


class TraceError(ValueError):
    """A trace cannot be read: one line that says where and why, and one that says what to do."""

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(f"{cause}; {cure}")
        self.cause = cause
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Reading:
    """Carbon intensity of a site's power from ``point_time`` on.

    Raises:
        ValueError: ``point_time`` has no time zone.
    """

    point_time: datetime
    intensity_g_per_kwh: float

    def __post_init__(self) -> None:
        if self.point_time.tzinfo is None:
            raise ValueError(f"the point time {self.point_time.isoformat()} has no time zone")


def plausible(intensity_g_per_kwh: float) -> bool:
    """Whether a value can be a carbon intensity: finite and from 0 to 5000 gCO2/kWh."""
    return math.isfinite(intensity_g_per_kwh) and 0.0 <= intensity_g_per_kwh <= MOST_G_PER_KWH


@dataclass(frozen=True)
class Trace:
    """Readings of one site, oldest first, at least two.

    Raises:
        ValueError: fewer than two points, or times that do not increase.
    """

    points: tuple[Reading, ...]

    def __post_init__(self) -> None:
        if len(self.points) < 2:
            raise ValueError("a trace needs at least two points")
        if any(later.point_time <= earlier.point_time for earlier, later in pairwise(self.points)):
            raise ValueError("the points of a trace must be in order of time")

    @property
    def start(self) -> datetime:
        """Point time of the first reading."""
        return self.points[0].point_time

    @property
    def end(self) -> datetime:
        """Until when the last reading holds: one step after its point time."""
        return self.points[-1].point_time + self.step

    @property
    def step(self) -> timedelta:
        """The most common distance between neighbours."""
        distances = Counter(later.point_time - earlier.point_time for earlier, later in pairwise(self.points))
        return distances.most_common(1)[0][0]

    @property
    def longest_gap(self) -> timedelta:
        """The largest distance between neighbours."""
        return max(later.point_time - earlier.point_time for earlier, later in pairwise(self.points))

    def at(self, when: datetime) -> Reading | None:
        """The latest reading at or before an instant; none before the first."""
        index = self._after(when)
        return self.points[index - 1] if index else None

    def between(self, after: datetime | None, until: datetime) -> tuple[Reading, ...]:
        """Readings later than ``after`` (none: from the first), up to and with ``until``."""
        return self.points[0 if after is None else self._after(after) : self._after(until)]

    def next_after(self, when: datetime) -> Reading | None:
        """The first reading later than an instant; none after the last."""
        index = self._after(when)
        return self.points[index] if index < len(self.points) else None

    def segments(self, start: datetime, end: datetime) -> Iterator[tuple[float, timedelta]]:
        """The step signal between two instants as (gCO2/kWh, how long it held). The last reading holds for ever.

        Raises:
            ValueError: ``start`` lies before the first reading, where the intensity is unknown.
        """
        reading = self.at(start)
        if reading is None:
            raise ValueError(f"the trace begins at {self.start.isoformat()}, nothing is known at {start.isoformat()}")
        since = start
        for following in self.between(start, end):
            yield reading.intensity_g_per_kwh, following.point_time - since
            reading, since = following, following.point_time
        if since < end:
            yield reading.intensity_g_per_kwh, end - since

    def _after(self, when: datetime) -> int:
        return bisect_right(self.points, when, key=lambda reading: reading.point_time)


def sites_of(lines: Iterable[str]) -> tuple[str, ...]:
    """The columns of a CSV trace, its time column left out.

    Raises:
        TraceError: no header, or no ``point_time`` in it.
    """
    return tuple(name for name in _header(csv.reader(lines)) if name != TIME_COLUMN)


def parse_trace(lines: Iterable[str], column: str) -> Trace:
    """Read one column of a CSV trace: ``point_time`` (ISO 8601 with zone) and a column of gCO2/kWh for each site.

    Raises:
        TraceError: anything malformed, by line and column; the first mistake ends the reading.
    """
    rows = csv.reader(lines)
    header = _header(rows)
    if header.count(column) != 1:
        known = ", ".join(name for name in header if name != TIME_COLUMN)
        wrong = f"there are {header.count(column)} columns" if column in header else "there is no column"
        raise TraceError(f"{wrong} {column!r}", f"name one of these: {known or '(there are none)'}")
    time_at, value_at = header.index(TIME_COLUMN), header.index(column)
    points: list[Reading] = []
    try:
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                cause = f"line {rows.line_num}: {len(row)} fields where the header has {len(header)}"
                raise TraceError(cause, "complete the row, or drop it to leave a gap")
            point_time = _point_time(row[time_at], rows.line_num, points[-1].point_time if points else None)
            points.append(Reading(point_time, _intensity(row[value_at], rows.line_num, column)))
    except csv.Error as error:
        raise TraceError(f"line {rows.line_num}: {error}", "save the file as plain CSV in UTF-8") from error
    if len(points) < 2:
        raise TraceError(f"{len(points)} rows with data", "a trace needs at least two")
    return Trace(tuple(points))


def _header(rows: Iterator[list[str]]) -> list[str]:
    try:
        header = [name.strip().removeprefix("\ufeff") for name in next(rows, [])]
    except csv.Error as error:
        raise TraceError(f"line 1: {error}", "save the file as plain CSV in UTF-8") from error
    if header.count(TIME_COLUMN) != 1:
        raise TraceError(f"line 1: no column {TIME_COLUMN!r}", f"begin the file with {TIME_COLUMN},<site>,<site>…")
    return header


def _point_time(text: str, line: int, latest: datetime | None) -> datetime:
    where = f"line {line}, column {TIME_COLUMN}: {text!r}"
    try:
        point_time = instant(text.strip())
    except ValueError as error:
        cure = "write it like 2026-01-01T00:00:00+00:00"
        raise TraceError(f"{where} is not an instant of ISO 8601 with a time zone", cure) from error
    if latest is not None and point_time == latest:
        raise TraceError(f"{where} is there twice", "keep one of the two rows")
    if latest is not None and point_time < latest:
        raise TraceError(f"{where} is earlier than the row before", "sort the rows by time")
    return point_time


def _intensity(text: str, line: int, column: str) -> float:
    where = f"line {line}, column {column}: {text!r}"
    try:
        value = float(text)
    except ValueError as error:
        cure = "write gCO2/kWh like 312.5, or drop the row to leave a gap"
        raise TraceError(f"{where} is not a number", cure) from error
    if not plausible(value):
        cure = "correct the unit or the value, or drop the row to leave a gap"
        raise TraceError(f"{where} is not from 0 to {MOST_G_PER_KWH:.0f} gCO2/kWh", cure)
    return value
