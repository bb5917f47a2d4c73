"""Several columns of one CSV trace in one pass: block by block, so that a trace larger than memory can be read."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Final

import numpy as np

from windfall.energy.column import Column, Levels, Seconds
from windfall.energy.signals import TIME_COLUMN, TraceError
from windfall.energy.trace_rows import Rows

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
    for name in (*intensities, *prices):
        if name not in head.columns:
            raise TraceError(f"there is no column {name!r}", f"name one of these: {', '.join(head.columns)}")
    read = Rows(head.names, head.time, intensities, prices, naive_is_utc)
    before, odd = 1, list[str]()
    while read.may_be_plain and (chunk := list(islice(source, rows))):
        found = read.plain(chunk, before)
        if found is None:
            odd = chunk
            break
        yield Block(found[0], found[1].T.copy(), read.naive)
        before += len(chunk)
    # From the first odd line on row by row: it may hold a quoted line break, or the first mistake.
    rest = read.one_by_one(chain(odd, source), before)
    while held := list(islice(rest, rows)):
        yield Block(np.array([time for time, _ in held]), np.array([values for _, values in held]).T.copy(), read.naive)


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
