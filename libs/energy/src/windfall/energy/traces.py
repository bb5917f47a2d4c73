"""Several columns of one CSV trace in one pass: block by block, so that a trace larger than memory can be read."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Final

import numpy as np

from windfall.energy.column import Column, Levels, Seconds
from windfall.energy.signals import MOST_G_PER_KWH, TIME_COLUMN, TraceError

MOST_PER_MWH: Final = 1e6
"""No power costs or earns more, in any currency that is traded by the MWh."""
_ROWS: Final = 1024


@dataclass(frozen=True)
class Heading:
    """The first line of a trace: its time is in ``point_time``, or else in the first column.

    Raises:
        TraceError: no column beside the time, or two of one name.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise TraceError("line 1: no column beside the time", f"begin the file with {TIME_COLUMN},<site>,<site>…")
        for name in self.names:
            if self.names.count(name) > 1:
                raise TraceError(f"line 1: there are {self.names.count(name)} columns {name!r}", "rename all but one")

    @property
    def time(self) -> str:
        """The column of instants."""
        return TIME_COLUMN if TIME_COLUMN in self.names else self.names[0]

    @property
    def columns(self) -> tuple[str, ...]:
        """All others."""
        return tuple(name for name in self.names if name != self.time)


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive rows. ``times`` is of shape (rows,), ``values`` of shape (columns, rows)."""

    times: Seconds
    values: Levels
    naive: bool
    """The instants have no time zone and were taken as UTC."""


def heading(lines: Iterable[str]) -> Heading:
    """The columns of a trace; an iterator is left behind its first row.

    Raises:
        TraceError: there is none, or it names no column twice or at all.
    """
    try:
        first = next(csv.reader(lines), [])
    except csv.Error as error:
        raise TraceError(f"line 1: {error}", "save the file as plain CSV in UTF-8") from error
    return Heading(tuple(name.strip().removeprefix("\ufeff") for name in first))


def blocks(
    lines: Iterable[str],
    intensities: Sequence[str],
    prices: Sequence[str] = (),
    *,
    naive_is_utc: bool = False,
    rows: int = _ROWS,
) -> Iterator[Block]:
    """Read a trace as blocks of so many rows, of which one is held at a time.

    Args:
        lines: CSV with a heading; instants are ISO 8601, increasing, and their offsets are honoured.
        intensities: columns in gCO2/kWh, the first ones of a block's values.
        prices: columns in money per MWh, which may be negative, the following ones.
        naive_is_utc: instants without a zone are UTC; otherwise they are refused.
        rows: of a block; the last one has what is left.

    Raises:
        TraceError: anything malformed, by line and column; the first mistake ends the reading.
    """
    source = iter(lines)
    head = heading(source)
    wanted = (*intensities, *prices)
    for name in wanted:
        if name not in head.columns:
            raise TraceError(f"there is no column {name!r}", f"name one of these: {', '.join(head.columns)}")
    least = np.array([0.0] * len(intensities) + [-MOST_PER_MWH] * len(prices))
    most = np.array([MOST_G_PER_KWH] * len(intensities) + [MOST_PER_MWH] * len(prices))
    time_at, places = head.names.index(head.time), [head.names.index(name) for name in wanted]
    clock = _Clock(head.time, naive_is_utc)
    times, values, filled = np.empty(rows), np.empty((rows, len(wanted))), 0
    reader, take = csv.reader(source), itemgetter(*places)
    try:
        for row in reader:
            if not row:
                continue
            line = reader.line_num + 1
            if len(row) != len(head.names):
                cause = f"line {line}: {len(row)} fields where the heading has {len(head.names)}"
                raise TraceError(cause, "complete the row, or drop it to leave a gap")
            times[filled] = clock.read(row[time_at], line)
            cells = take(row) if len(places) > 1 else (take(row),)
            try:
                values[filled] = tuple(map(float, cells))
            except ValueError as error:
                raise _no_number(cells, wanted, line) from error
            sound = (values[filled] >= least) & (values[filled] <= most)
            if not sound.all():
                raise _absurd(int(np.argmin(sound)), cells, wanted, line, len(intensities))
            filled += 1
            if filled == rows:
                yield Block(times.copy(), values.T.copy(), clock.naive)
                filled = 0
    except csv.Error as error:
        raise TraceError(f"line {reader.line_num + 1}: {error}", "save the file as plain CSV in UTF-8") from error
    if filled:
        yield Block(times[:filled].copy(), values[:filled].T.copy(), clock.naive)


def gather(read: Iterable[Block]) -> list[Column]:
    """All blocks as columns, in the order of their values.

    Raises:
        TraceError: fewer than two rows.
    """
    held = list(read)
    rows = sum(len(block.times) for block in held)
    if rows < 2:
        raise TraceError(f"{rows} rows with data", "a trace needs at least two")
    times = np.concatenate([block.times for block in held])
    end = ends(times)
    return [
        Column(times, np.concatenate([block.values[place] for block in held]), end)
        for place in range(len(held[0].values))
    ]


def ends(times: Seconds) -> float:
    """Until when the last value holds: one step, the most common distance of neighbours, after its time."""
    distances, counts = np.unique(np.diff(times), return_counts=True)
    return float(times[-1] + distances[np.argmax(counts)])


class _Clock:
    """Reads instants that increase, all of them with a time zone or all without."""

    def __init__(self, column: str, naive_is_utc: bool) -> None:
        self._column = column
        self._naive_is_utc = naive_is_utc
        self._latest = -np.inf
        self._naive: bool | None = None

    @property
    def naive(self) -> bool:
        return bool(self._naive)

    def read(self, text: str, line: int) -> float:
        where = f"line {line}, column {self._column}: {text!r}"
        try:
            at = datetime.fromisoformat(text.strip())
        except ValueError as error:
            raise TraceError(f"{where} is not an instant of ISO 8601", "write it like 2026-01-01T00:00:00Z") from error
        naive = at.tzinfo is None
        if naive and not self._naive_is_utc:
            raise TraceError(f"{where} has no time zone", "write it like 2026-01-01T00:00:00Z")
        if self._naive not in (None, naive):
            raise TraceError(f"{where} has {'no' if naive else 'a'} time zone, unlike the rows before", "use one form")
        self._naive = naive
        seconds = (at.replace(tzinfo=UTC) if naive else at).timestamp()
        if seconds == self._latest:
            raise TraceError(f"{where} is there twice", "keep one of the two rows")
        if seconds < self._latest:
            raise TraceError(f"{where} is earlier than the row before", "sort the rows by time")
        self._latest = seconds
        return seconds


def _no_number(cells: Sequence[str], names: Sequence[str], line: int) -> TraceError:
    for text, name in zip(cells, names, strict=True):
        try:
            float(text)
        except ValueError:
            cure = "write a number like 312.5, or drop the row to leave a gap"
            what = "is not a number" if text.strip() else "holds nothing"
            return TraceError(f"line {line}, column {name}: {text!r} {what}", cure)
    raise AssertionError("a row is refused for one of its cells")


def _absurd(place: int, cells: Sequence[str], names: Sequence[str], line: int, intensities: int) -> TraceError:
    cure = "correct the unit or the value, or drop the row to leave a gap"
    limits = (
        f"from 0 to {MOST_G_PER_KWH:.0f} gCO2/kWh"
        if place < intensities
        else f"a price within ±{MOST_PER_MWH:.0f} per MWh"
    )
    return TraceError(f"line {line}, column {names[place]}: {cells[place]!r} is not {limits}", cure)
