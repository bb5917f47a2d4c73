"""What a stretch of time drew, from counters that were read during it. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from windfall.contracts.measures import Interval
from windfall.profiler.measurement.estimates import interval

FEWEST: Final = 3
"""Readings within a stretch; fewer say nothing of it."""


@dataclass(frozen=True)
class Meter:
    """What one device's counters said."""

    joules: float | None = None
    """Since some instant; only grows, but for ``wraps_at``."""
    watts: float | None = None
    wraps_at: float | None = None
    """Joules at which the counter begins anew."""


@dataclass(frozen=True)
class Readings:
    """All devices at one instant."""

    at_s: float
    """Monotonic clock of the machine."""
    meters: Mapping[str, Meter] = field(default_factory=dict)


@dataclass(frozen=True)
class Drawn:
    """Power over a stretch, of all devices together."""

    watts: float
    about: Interval | None


def drawn(readings: Sequence[Readings], begin_s: float, end_s: float) -> Drawn | None:
    """Mean power between two instants; none when too few readings lie between them, or a device fell silent.

    A device's energy counter is believed before its momentary power, which says nothing of what lies between readings.
    """
    within = [one for one in readings if begin_s <= one.at_s <= end_s]
    if len(within) < FEWEST or not within[0].meters or any(w.meters.keys() != within[0].meters.keys() for w in within):
        return None
    steps = list(_steps(within))
    lasted = within[-1].at_s - within[0].at_s
    watts = sum(energy for energy, _ in steps) / lasted
    return Drawn(watts, interval([energy / seconds for energy, seconds in steps]))


def _steps(readings: Sequence[Readings]) -> Iterator[tuple[float, float]]:
    """Joules and seconds from each reading to the next."""
    for earlier, later in pairwise(readings):
        seconds = later.at_s - earlier.at_s
        if seconds > 0:
            yield sum(_joules(earlier.meters[name], later.meters[name], seconds) for name in earlier.meters), seconds


def _joules(earlier: Meter, later: Meter, seconds: float) -> float:
    if earlier.joules is not None and later.joules is not None:
        grown = later.joules - earlier.joules
        return grown if grown >= 0 or later.wraps_at is None else grown + later.wraps_at
    return ((earlier.watts or 0.0) + (later.watts or 0.0)) / 2 * seconds
