"""A site's trace as arrays, so that a year of it is a handful of operations."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from windfall.energy.signals import Trace

Seconds = NDArray[np.float64]
"""Instants as seconds since 1970-01-01 UTC."""
Levels = NDArray[np.float64]
"""gCO2/kWh, or whatever else the column holds."""


@dataclass(frozen=True, eq=False)
class Column:
    """Values that hold from their instants on, as a step signal. ``times`` and ``values`` are both of shape (n,).

    Raises:
        ValueError: fewer than two values, or times that do not increase.
    """

    times: Seconds
    values: Levels
    end: float
    """Until when the last value holds."""

    def __post_init__(self) -> None:
        if len(self.times) < 2 or len(self.times) != len(self.values):
            raise ValueError("a column needs at least two values, each with its time")
        if not np.all(np.diff(self.times) > 0):
            raise ValueError("the times of a column must increase")

    @classmethod
    def of(cls, trace: Trace) -> "Column":
        """The same trace as arrays."""
        times = np.array([reading.point_time.timestamp() for reading in trace.points])
        return cls(times, np.array([reading.intensity_g_per_kwh for reading in trace.points]), trace.end.timestamp())

    @cached_property
    def step(self) -> float:
        """Seconds between neighbours, most commonly."""
        distances, counts = np.unique(np.diff(self.times), return_counts=True)
        return float(distances[np.argmax(counts)])

    def cut(self, start: float, end: float) -> "Column":
        """The part that matters between two instants: with the value that holds at ``start``.

        Raises:
            ValueError: nothing is known at ``start``, or fewer than two values are left.
        """
        first = int(np.searchsorted(self.times, start, "right")) - 1
        if first < 0:
            raise ValueError(f"the trace begins at {moment(self.times[0]).isoformat()}, after {moment(start)}")
        last = int(np.searchsorted(self.times, end, "left"))
        times = self.times[first:last].copy()
        times[0] = start
        return Column(times, self.values[first:last], min(end, self.end))

    def at(self, when: float) -> int:
        """Index of the value that holds at an instant."""
        return max(0, int(np.searchsorted(self.times, when, "right")) - 1)

    @cached_property
    def _mass(self) -> Levels:
        return np.concatenate(([0.0], np.cumsum(self.values[:-1] * np.diff(self.times))))

    def integral(self, when: Seconds) -> Levels:
        """Value × seconds from the first instant until each of these; the last value holds for ever."""
        index = np.maximum(np.searchsorted(self.times, when, "right") - 1, 0)
        held: Levels = self._mass[index] + self.values[index] * (when - self.times[index])
        return held

    def where(self, threshold: float) -> "Column":
        """1 while the value is below a threshold, 0 otherwise."""
        return Column(self.times, (self.values < threshold).astype(np.float64), self.end)


def moment(seconds: float) -> datetime:
    """An instant from seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


def spans_below(column: Column, threshold: float) -> Sequence[tuple[float, float]]:
    """The stretches in which the value is below a threshold, in seconds."""
    below = np.concatenate(([False], column.values < threshold, [False]))
    edges = np.flatnonzero(below[1:] != below[:-1])
    bounds = np.concatenate((column.times, [column.end]))
    return [(float(bounds[a]), float(bounds[b])) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def seconds(duration: timedelta) -> float:
    """A duration as a number."""
    return duration.total_seconds()
