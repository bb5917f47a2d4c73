"""Where a link's measurements usually lie, and when they lie elsewhere for certain. Pure.

The band is the median of the recent measurements ± a robust spread: the median absolute deviation, scaled to the
standard deviation of a normal distribution (× 1.4826; Hampel, 1974). Half of the values may be anything at all before
either moves. What lies outside is not learnt from, until it has lasted so long that it is what is usual now.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

KEEP: Final = 60
"""Measurements that a band is made of, at most."""
LEAST: Final = 5
"""And at least."""
WIDTH: Final = 4.0
"""Spreads on each side."""
NARROWEST: Final = 0.25
"""Share of the median on each side, however still the link has been: less is no news to anybody."""
SURE: Final = 2
"""Measurements in a row: one alone is chance."""
SETTLED: Final = 30
"""Measurements in a row outside after which they are what is usual."""

_NORMAL: Final = 1.4826


@dataclass(frozen=True)
class Band:
    """From ``low`` to ``high``, both included."""

    low: float
    high: float


class Course(BaseModel):
    """How one part of a link has gone."""

    model_config = ConfigDict(frozen=True)

    recent: tuple[float, ...] = ()
    """Within the band, the newest last."""
    outside: tuple[float, ...] = ()
    """In a row, the newest last."""
    back: int = 0
    """Within the band in a row, of a link that is degraded."""
    degraded: bool = False


Turn = Literal["degraded", "recovered", "settled"]
"""``settled``: what was outside is what is usual now."""


def band(values: Sequence[float], least: float = 0.0) -> Band | None:
    """Where measurements like these lie; none of too few.

    Args:
        least: distance from the median that is no news, in the values' unit.
    """
    if len(values) < LEAST:
        return None
    middle = median(values)
    spread = _NORMAL * median(abs(value - middle) for value in values)
    half = max(WIDTH * spread, NARROWEST * middle, least)
    return Band(max(0.0, middle - half), middle + half)


def moved(
    course: Course, value: float, worse: Literal["above", "below"], least: float = 0.0
) -> tuple[Course, Turn | None]:
    """One more measurement, and what it turns.

    Args:
        worse: where a link is worse than usual; on the other side it is better, and that is learnt.
    """
    usual = band(course.recent, least)
    outside = usual is not None and (value > usual.high if worse == "above" else value < usual.low)
    if not outside:
        back = course.back + 1 if course.degraded else 0
        recovered = back >= SURE
        recent = (*course.recent, value)[-KEEP:]
        after = Course(recent=recent, back=0 if recovered else back, degraded=course.degraded and not recovered)
        return after, "recovered" if recovered else None
    beyond = (*course.outside, value)
    if len(beyond) >= SETTLED:
        return Course(recent=beyond), "settled"
    degrades = not course.degraded and len(beyond) >= SURE
    after = Course(recent=course.recent, outside=beyond, degraded=course.degraded or degrades)
    return after, "degraded" if degrades else None
