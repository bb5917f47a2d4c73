"""The thresholds of a surplus rule as numbers: absolute ones as they are, moving ones from a history or a forecast."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from windfall.energy.rule import Absolute, Limit, Percentile, Rule, Threshold, limits
from windfall.energy.verdict import Verdict

ENOUGH: Final = timedelta(days=1)
"""One whole cycle of sun and demand."""


class Valued(Protocol):
    """A value from an instant on: a quote, or a point of a history."""

    @property
    def point_time(self) -> datetime: ...

    @property
    def value(self) -> float: ...


Series = Mapping[str, Sequence[Valued]]
"""By the signal's name, oldest first."""


@dataclass(frozen=True)
class Resolved:
    """A limit with its thresholds as numbers; none where a percentile cannot be told yet."""

    limit: Limit
    opens: float | None
    closes: float | None

    def verdict(self, value: float | None) -> Verdict | None:
        """None when the value or a threshold is not known."""
        if value is None or self.opens is None or self.closes is None:
            return None
        sign = 1.0 if self.limit.comparison == "<" else -1.0
        if sign * value > sign * self.closes:
            return Verdict.DIRTY
        return Verdict.CLEAN if sign * value < sign * self.opens else Verdict.BETWEEN

    @property
    def missing(self) -> Percentile | None:
        """The moving threshold that cannot be told yet."""
        for number, threshold in ((self.opens, self.limit.open), (self.closes, self.limit.close)):
            if number is None and isinstance(threshold, Percentile):
                return threshold
        return None


def enough(threshold: Percentile) -> timedelta:
    """How long a stretch the points must cover before a percentile of them is told: half of the span, or a day."""
    return min(ENOUGH, threshold.span / 2)


def percentile(values: Sequence[float], rank: float) -> float:
    """By linear interpolation between order statistics: definition 7 of Hyndman and Fan (1996).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values have no percentile")
    ordered = sorted(values)
    place = (len(ordered) - 1) * rank / 100.0
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    return low if low == high else low + (high - low) * (place - math.floor(place))


def resolve(rule: Rule, history: Series, forecast: Series, now: datetime | None) -> Mapping[Limit, Resolved]:
    """Every limit of the rule with its numbers; look-backs end and look-aheads begin at ``now``."""

    def number(limit: Limit, threshold: Threshold) -> float | None:
        if isinstance(threshold, Absolute):
            return threshold.value
        of = history if threshold.of == "history" else forecast
        return None if now is None else _of(of.get(limit.signal, ()), threshold, now)

    return {limit: Resolved(limit, number(limit, limit.open), number(limit, limit.close)) for limit in limits(rule)}


def _of(points: Sequence[Valued], threshold: Percentile, now: datetime) -> float | None:
    start, end = (now - threshold.span, now) if threshold.of == "history" else (now, now + threshold.span)
    first = bisect_left(points, start, key=_point_time)
    told = points[first : bisect_right(points, end, key=_point_time)]
    if len(told) < 2 or told[-1].point_time - told[0].point_time < enough(threshold):
        return None
    return percentile([point.value for point in told], threshold.rank)


def _point_time(point: Valued) -> datetime:
    return point.point_time
