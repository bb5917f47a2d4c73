"""Rows of a trace: many at once where they are plain numbers, and else one by one, which finds the first mistake."""

import csv
from array import array
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from datetime import UTC, datetime
from operator import itemgetter
from typing import Final

import numpy as np
from pydantic_core import from_json

from windfall.energy.column import Levels, Seconds
from windfall.energy.signals import MOST_G_PER_KWH, TraceError

MOST_PER_MWH: Final = 1e6
"""No power costs or earns more, in any currency that is traded by the MWh."""
_PLAIN: Final = b"0123456789.,-+eE \t"


class Rows:
    """Reads the rows of one trace, in their order.

    Args:
        names: of all columns.
        time: the column of instants.
        intensities: columns in gCO2/kWh, the first ones of a row's values.
        prices: columns in money per MWh, the following ones.
        naive_is_utc: instants without a zone are UTC; otherwise they are refused.
    """

    def __init__(
        self, names: Sequence[str], time: str, intensities: Sequence[str], prices: Sequence[str], naive_is_utc: bool
    ) -> None:
        self._fields = len(names)
        self._wanted = (*intensities, *prices)
        self._intensities = len(intensities)
        self._time_at = names.index(time)
        self._places = [names.index(name) for name in self._wanted]
        self._least = np.array([0.0] * len(intensities) + [-MOST_PER_MWH] * len(prices))
        self._most = np.array([MOST_G_PER_KWH] * len(intensities) + [MOST_PER_MWH] * len(prices))
        self._clock = _Clock(time, naive_is_utc)
        # Of few columns among many the others would be parsed for nothing.
        self.may_be_plain = self._time_at == 0 and 2 * len(self._wanted) >= self._fields - 1

    @property
    def naive(self) -> bool:
        """The instants had no time zone and were taken as UTC."""
        return self._clock.naive

    def plain(self, lines: Sequence[str], before: int) -> tuple[Seconds, Levels] | None:
        """Whole lines of numbers, parsed as JSON, which rounds as Python does; none when anything is written otherwise.

        Args:
            lines: consecutive ones.
            before: how many came before them.
        """
        clock, times = copy(self._clock), np.empty(len(lines))
        values = np.empty((len(lines), self._fields - 1))
        try:
            for place, line in enumerate(lines):
                time, _, cells = line.partition(",")
                times[place] = clock.read(time, before + place + 1)
                numbers = cells.rstrip("\r\n").encode()
                if numbers.translate(None, _PLAIN):
                    return None
                values[place] = array("d", from_json(b"[%b]" % numbers))
        except (ValueError, OverflowError):
            # Among them a TraceError of the clock: a line above it may be wrong in another column.
            return None
        places = [place - 1 for place in self._places]
        taken = values if places == list(range(self._fields - 1)) else values[:, places]
        if not ((taken >= self._least) & (taken <= self._most)).all():
            return None
        self._clock = clock
        return times, taken

    def one_by_one(self, lines: Iterable[str], before: int) -> Iterator[tuple[float, Levels]]:
        """Each row's instant and values.

        Raises:
            TraceError: anything malformed, by line and column.
        """
        places = self._places
        reader, take = csv.reader(lines), itemgetter(*places)
        try:
            for row in reader:
                if not row:
                    continue
                line = before + reader.line_num
                if len(row) != self._fields:
                    cause = f"line {line}: {len(row)} fields where the heading has {self._fields}"
                    raise TraceError(cause, "complete the row, or drop it to leave a gap")
                time = self._clock.read(row[self._time_at], line)
                yield time, self._values(take(row) if len(places) > 1 else (take(row),), line)
        except csv.Error as error:
            cause = f"line {before + reader.line_num}: {error}"
            raise TraceError(cause, "save the file as plain CSV in UTF-8") from error

    def _values(self, cells: Sequence[str], line: int) -> Levels:
        try:
            values = np.array(tuple(map(float, cells)))
        except ValueError as error:
            raise _no_number(cells, self._wanted, line) from error
        sound = (values >= self._least) & (values <= self._most)
        if not sound.all():
            raise _absurd(int(np.argmin(sound)), cells, self._wanted, line, self._intensities)
        return values


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
