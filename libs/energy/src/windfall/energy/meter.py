"""From what meters show to energy in an interval, and from energy to what it emitted. Pure.

A cumulative counter is exact over any span that two readings enclose; between them its power is taken as constant. A
counter that ran over, was set back or lost a device is found out by how much it could have counted; where that leaves a
doubt there is no figure, and the ledger falls back on its power model.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final

from windfall.energy.intensity import Step
from windfall.energy.ledger import Usage

J_PER_WH: Final = 3600.0
J_PER_KWH: Final = 3.6e6
_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Counter:
    """A cumulative energy counter at one instant."""

    energy_j: float
    wraps_at_j: float | None = None
    """From here it begins at zero again; none for one that never does."""
    most_w: float | None = None
    """The power that what it meters cannot exceed; none where nobody can say."""


@dataclass(frozen=True)
class Reading:
    """Every counter of a meter at one instant, by the name of what it meters."""

    at: datetime
    meter: str
    counters: dict[str, Counter]


@dataclass(frozen=True, slots=True)
class Piece:
    """Constant power over a span."""

    start: datetime
    end: datetime
    kw: float

    @property
    def kwh(self) -> float:
        return self.kw * ((self.end - self.start) / _HOUR)


def counted_j(earlier: Counter, later: Counter, span: timedelta) -> float | None:
    """What a counter counted between two readings, in joules; none when that cannot be known.

    It cannot when the counter went back and has no end to run over, when it could have run over more than once, or when
    it says more than what it meters can draw: it was set back.
    """
    most_j = math.inf if later.most_w is None else later.most_w * span.total_seconds()
    counted = later.energy_j - earlier.energy_j
    wrap = later.wraps_at_j
    if wrap is not None:
        if most_j >= wrap or earlier.wraps_at_j != wrap:
            return None
        counted %= wrap
    return counted if 0.0 <= counted <= most_j and math.isfinite(counted) else None


def metered(readings: Sequence[Reading], start: datetime, end: datetime) -> tuple[Piece, ...] | None:
    """Power from cumulative readings, oldest first; none unless they enclose the interval and nothing is in doubt."""
    pieces: list[Piece] = []
    for earlier, later in pairwise(readings):
        if later.at <= start or earlier.at >= end:
            continue
        drawn_j = _drawn_j(earlier, later)
        if drawn_j is None:
            return None
        pieces.append(Piece(earlier.at, later.at, drawn_j / J_PER_KWH / ((later.at - earlier.at) / _HOUR)))
    return _cut(pieces, start, end)


def sampled(
    samples: Sequence[tuple[datetime, float]], start: datetime, end: datetime, longest_gap: timedelta
) -> tuple[Piece, ...] | None:
    """Power from samples in watts, oldest first, by the trapezoidal rule; none where they are missing or too far apart.

    The interval's own ends are read off the line between their neighbours.
    """
    points = [sample for sample in samples if start < sample[0] < end]
    for edge in (start, end):
        watts = _between(samples, edge, longest_gap)
        if watts is None:
            return None
        points.append((edge, watts))
    points.sort(key=lambda sample: sample[0])
    if any(later - earlier > longest_gap for (earlier, _), (later, _) in pairwise(points)):
        return None
    if not all(math.isfinite(watts) and watts >= 0 for _, watts in points):
        return None
    return tuple(Piece(a, b, (first + second) / 2000.0) for (a, first), (b, second) in pairwise(points) if a < b)


def marginal(pieces: Iterable[Piece], steps: Iterable[Step], clean_below_g_per_kwh: float) -> Usage:
    """Power under the intensity of its hour: the integral of the product of two step functions that cover one span."""
    usage = Usage()
    for kwh, step in _together(list(pieces), list(steps)):
        clean_kwh = kwh if step.g_per_kwh < clean_below_g_per_kwh else 0.0
        usage += Usage(kwh, kwh * step.g_per_kwh / 1000.0, clean_kwh)
    return usage


def _together(pieces: Sequence[Piece], steps: Sequence[Step]) -> Iterator[tuple[float, Step]]:
    place = 0
    for piece in pieces:
        while place < len(steps) and steps[place].end <= piece.start:
            place += 1
        for step in steps[place:]:
            if step.start >= piece.end:
                break
            shared = min(piece.end, step.end) - max(piece.start, step.start)
            yield piece.kw * (shared / _HOUR), step


def _drawn_j(earlier: Reading, later: Reading) -> float | None:
    if earlier.meter != later.meter or earlier.counters.keys() != later.counters.keys() or later.at <= earlier.at:
        return None
    drawn = 0.0
    for name, counter in later.counters.items():
        counted = counted_j(earlier.counters[name], counter, later.at - earlier.at)
        if counted is None:
            return None
        drawn += counted
    return drawn


def _cut(pieces: Sequence[Piece], start: datetime, end: datetime) -> tuple[Piece, ...] | None:
    if not pieces or pieces[0].start > start or pieces[-1].end < end:
        return None
    return tuple(Piece(max(piece.start, start), min(piece.end, end), piece.kw) for piece in pieces)


def _between(samples: Sequence[tuple[datetime, float]], at: datetime, longest_gap: timedelta) -> float | None:
    for (earlier, first), (later, second) in pairwise(samples):
        if earlier <= at <= later and timedelta() < later - earlier <= longest_gap:
            return first + (second - first) * ((at - earlier) / (later - earlier))
    return None
