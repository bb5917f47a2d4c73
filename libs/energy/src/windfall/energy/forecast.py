"""Looking ahead: readings that are expected, how wrong they may be, and the verdicts that follow from them."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Final

from windfall.energy.signals import Reading, Trace, plausible
from windfall.energy.verdict import Verdict

_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True)
class ForecastError:
    """How far a forecast is off, as standard deviations that grow with the lead.

    Of a signal that jumps between two levels the *instant* of the jump is what is uncertain; of one that glides, the
    *level*. Both grow linearly: ramps of wind and sun are missed by a share of the time that they are away. The
    defaults are careful: 73 minutes and 20 % a day ahead.

    Raises:
        ValueError: a value that is negative or not finite.
    """

    timing_at_once: timedelta = timedelta(minutes=1)
    timing_share: float = 0.05
    """Of the lead."""
    timing_most: timedelta = timedelta(minutes=90)
    level_at_once: float = 0.02
    """As a share of the value."""
    level_per_hour: float = 0.0075
    level_most: float = 0.25

    def __post_init__(self) -> None:
        shares = (self.timing_share, self.level_at_once, self.level_per_hour, self.level_most)
        if not all(math.isfinite(share) and share >= 0.0 for share in shares):
            raise ValueError(f"{self} has a share that is negative or not finite; give zero or more")
        if min(self.timing_at_once, self.timing_most) < timedelta(0):
            raise ValueError(f"{self} has a negative duration; give zero or more")

    @cached_property
    def is_none(self) -> bool:
        """Whether changes come when they are expected."""
        return self.timing_most == timedelta(0) or (self.timing_at_once == timedelta(0) and self.timing_share == 0.0)

    def timing(self, lead: timedelta) -> timedelta:
        """Standard deviation of the instant of a change that is expected so far ahead."""
        return min(self.timing_most, self.timing_at_once + self.timing_share * max(lead, timedelta(0)))

    def level(self, lead: timedelta) -> float:
        """Standard deviation of a value that is expected so far ahead, as a share of it."""
        return min(self.level_most, self.level_at_once + self.level_per_hour * max(lead / _HOUR, 0.0))

    def confidence(self, lead: timedelta, tolerance: timedelta) -> float:
        """Probability that a change comes within the tolerance of its expected instant, by a normal distribution."""
        if self.is_none:
            return 1.0
        deviation = self.timing(lead)
        return 1.0 if not deviation else math.erf(tolerance / (deviation * math.sqrt(2.0)))


EXPECTED_ERROR: Final = ForecastError()
"""What is assumed until a provider's own error is known."""
PERFECT: Final = ForecastError(timedelta(0), 0.0, timedelta(0), 0.0, 0.0, 0.0)
"""No error at all."""


def perfect(trace: Trace, now: datetime, horizon: timedelta) -> tuple[Reading, ...]:
    """What a trace will say after ``now``, no further than the horizon."""
    return trace.between(now, now + horizon)


def expected_runs(
    points_ahead: Iterable[Reading], verdict: Callable[[float], Verdict]
) -> tuple[tuple[datetime, Verdict], ...]:
    """The verdicts of a forecast, oldest first, each with the instant from which on it holds.

    Implausible points are passed over: the one before holds on.
    """
    runs: list[tuple[datetime, Verdict]] = []
    for reading in points_ahead:
        if plausible(reading.intensity_g_per_kwh):
            judged = verdict(reading.intensity_g_per_kwh)
            if not runs or runs[-1][1] is not judged:
                runs.append((reading.point_time, judged))
    return tuple(runs)
