"""When a round ends, and how many local steps a site takes in it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from math import floor, isfinite
from typing import Final

from windfall.lowcomm.setting import parse_named


@dataclass(frozen=True)
class Box:
    """What a round is boxed by: time, local steps, or both, whichever is used up first.

    Raises:
        ValueError: neither is given, or one is not positive.
    """

    duration: timedelta | None = None
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.duration is None and self.steps is None:
            raise ValueError("a round is boxed by a duration, by local steps, or by both")
        if self.duration is not None and self.duration <= timedelta():
            raise ValueError(f"a round's duration must be positive, not {self.duration}")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"a round has at least one local step, not {self.steps}")

    def ends_at(self, start: datetime) -> datetime | None:
        """The instant at which the round ends at the latest; none when it is boxed by steps alone."""
        return None if self.duration is None else start + self.duration


@dataclass(frozen=True)
class Round:
    """One round as it is handed out: every site's box, and whether there is anybody to synchronise with."""

    boxes: Mapping[str, Box]
    synchronises: bool


@dataclass(frozen=True)
class Schedule:
    """One schedule with its settings. ``boxes`` takes every site's measured speed in steps per second; ``alone`` is
    how often a site that trains alone keeps its model."""

    name: str
    boxes: Callable[[Mapping[str, float]], Mapping[str, Box]]
    alone: timedelta

    def plan(self, speeds: Mapping[str, float]) -> Round:
        """The next round of these sites. A site that is alone has nobody to wait for and nothing to tell: it trains
        on, and its round is the interval between two checkpoints.

        Raises:
            ValueError: no sites, or a speed is not positive and finite where the schedule follows speeds.
        """
        if not speeds:
            raise ValueError("a round needs at least one site")
        if len(speeds) == 1:
            return Round({site: Box(duration=self.alone) for site in speeds}, synchronises=False)
        return Round(self.boxes(speeds), synchronises=True)


def steps(h: float = 30, alone: float = 600) -> Schedule:
    """Every site takes ``h`` local steps (DiLoCo, arXiv 2311.08105); ``alone`` in seconds.

    Raises:
        ValueError: ``h`` is no whole number above 0, or ``alone`` is not positive.
    """
    box = Box(steps=_whole(h))
    return Schedule("steps", lambda speeds: dict.fromkeys(speeds, box), _seconds(alone))


def time(seconds: float = 600, alone: float = 600) -> Schedule:
    """Every site trains for that long, however fast it is (as in curtail-llm, arXiv 2602.22760).

    Raises:
        ValueError: a number of seconds is not positive.
    """
    box = Box(duration=_seconds(seconds))
    return Schedule("time", lambda speeds: dict.fromkeys(speeds, box), _seconds(alone))


def speed(h: float = 30, alone: float = 600) -> Schedule:
    """Every site takes steps in proportion to its measured speed, ``h`` on average, so that all reach the end
    together (dynamic local updates, arXiv 2401.09135).

    Raises:
        ValueError: as ``steps``.
    """
    mean = _whole(h)

    def boxes(speeds: Mapping[str, float]) -> Mapping[str, Box]:
        return {site: Box(steps=count) for site, count in steps_by_speed(speeds, mean).items()}

    return Schedule("speed", boxes, _seconds(alone))


def steps_by_speed(speeds: Mapping[str, float], mean: int) -> dict[str, int]:
    """Local steps per site, in proportion to speed as nearly as whole numbers allow, at least 1 each; together
    ``mean`` times the number of sites. A site never gets fewer than a slower one. Ties go by name.

    Args:
        speeds: steps per second, or in any other unit, of every site.
        mean: steps per site on average, at least 1.

    Raises:
        ValueError: a speed is not positive and finite, or ``mean`` is below 1.
    """
    if refused := [site for site, value in speeds.items() if not (isfinite(value) and value > 0)]:
        raise ValueError(f"the speed of {refused[0]} must be positive and finite, not {speeds[refused[0]]}")
    if mean < 1:
        raise ValueError(f"a site takes at least one step, not {mean} on average")
    # Fractions, so that rounding cannot lose a step or favour whom a sum in another order would not.
    exact = {site: Fraction(speeds[site]) for site in sorted(speeds)}
    left, share = Fraction(mean * len(exact)), dict[str, Fraction]()
    for site in sorted(exact, key=lambda site: exact[site]):
        # From the slowest on: who would get less than one step gets one, and the others share what is left.
        waiting = sum(exact[other] for other in exact if other not in share)
        share[site] = max(Fraction(1), left * exact[site] / waiting)
        left = left - share[site]
    counts = {site: floor(share[site]) for site in exact}
    missing = mean * len(exact) - sum(counts.values())
    for site in sorted(exact, key=lambda site: (counts[site] - share[site], site))[:missing]:
        counts[site] += 1
    return {site: counts[site] for site in speeds}


SCHEDULES: Final[dict[str, Callable[..., Schedule]]] = {"steps": steps, "time": time, "speed": speed}
"""Every schedule by the name under which a setting asks for it."""


def parse_schedule(text: str) -> Schedule:
    """Read a setting like ``steps:h=30``, ``time:seconds=600`` or ``speed:h=30,alone=900``.

    Raises:
        ValueError: unknown schedule or setting, or a value that is no number or out of range.
    """
    return parse_named("schedule", text, SCHEDULES)


def _whole(h: float) -> int:
    if not (isfinite(h) and float(h).is_integer()):
        raise ValueError(f"h is a whole number of local steps, not {h}")
    return int(h)


def _seconds(value: float) -> timedelta:
    if not (isfinite(value) and 0 < value < 1e9):
        raise ValueError(f"a duration is a positive number of seconds, not {value}")
    return timedelta(seconds=value)
