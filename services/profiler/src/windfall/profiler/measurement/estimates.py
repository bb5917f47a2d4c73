"""Runs become estimates: a value that a busy moment does not move, and how far it may be off.

A run's time is what the work takes plus whatever else the machine did meanwhile, so the lower quartile stands for it:
as robust as a median, and nearer to the machine when half of the runs were disturbed. Its interval is the percentile
bootstrap's (Efron and Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13), which assumes no distribution;
its resamples are drawn from a fixed seed, so that the same runs always say the same.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from statistics import median, quantiles
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from windfall.contracts.measures import Interval

CONFIDENCE: Final = 0.95
FEWEST_RUNS: Final = 4
"""Fewer have a value and no interval."""
MOST_RUNS: Final = 200
"""Of one part; what is said beyond is not kept."""
STEPS: Final = "step_s_by_micro_batch."
_RESAMPLES: Final = 400


class Timed(BaseModel):
    """How often a piece of work was done, and how long it took each time."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    amount: float | None = Field(default=None, gt=0)
    """Of work in one run, in the unit of the rate that is wanted; none where the time itself is."""
    s: tuple[float, ...] = ()
    """Wall time of each run."""
    own_s: tuple[float, ...] = ()
    """Processor time of each, over the number of threads; empty where it says nothing of the work."""

    def and_(self, more: "Timed") -> "Timed":
        """Both; the amount of one run does not change."""
        return Timed(
            amount=more.amount,
            s=(*self.s, *more.s)[:MOST_RUNS],
            own_s=(*self.own_s, *more.own_s)[:MOST_RUNS],
        )

    @property
    def own(self) -> bool:
        """Whether every run has its processor time."""
        return len(self.own_s) == len(self.s) > 0 and min(self.own_s) > 0


def typical(times_s: Sequence[float]) -> float:
    """The lower quartile; of three or fewer the shortest."""
    return quantiles(times_s, n=4, method="inclusive")[0] if len(times_s) >= FEWEST_RUNS else min(times_s)


def interval(values: Sequence[float], of: Callable[[Sequence[float]], float] = median) -> Interval | None:
    """Where a statistic of the values lies with 95 % confidence; none of too few."""
    if len(values) < FEWEST_RUNS:
        return None
    draws = random.Random(len(values))
    resampled = sorted(of(draws.choices(values, k=len(values))) for _ in range(_RESAMPLES))
    tail = round((1 - CONFIDENCE) / 2 * _RESAMPLES)
    return Interval(low=resampled[tail], high=resampled[-1 - tail], runs=len(values))


def unshared(sizes: Mapping[int, Timed]) -> dict[int, tuple[float, ...]]:
    """Seconds of each run as if nothing else had used the processor.

    Who shares a processor waits for it, and long steps of several threads more than short ones, so that wall times say
    another size is the fastest on a busy machine than on an idle one. Processor time is not stretched so, but says
    nothing of threads that wait for each other. How much they do is read from the run that was held up least, of this
    size and the smaller ones: larger pieces of work never divide worse.

    Args:
        sizes: samples in a step → its runs, with their processor time.
    """
    found, least = {}, float("inf")
    for size, runs in sorted(sizes.items()):
        least = min(least, *(wall_s / own_s for wall_s, own_s in zip(runs.s, runs.own_s, strict=True)))
        found[size] = tuple(own_s * least for own_s in runs.own_s)
    return found


def estimated(timed: Mapping[str, Timed]) -> dict[str, Any]:
    """Runs by part → fields of a :class:`~windfall.profiler.profile.Compute`; ``part.key`` is an entry of a mapping."""
    found: dict[str, Any] = {}
    intervals: dict[str, Interval] = {}
    stepped = {part: int(part.partition(".")[2]) for part, runs in timed.items() if part.startswith(STEPS) and runs.own}
    alone = unshared({size: timed[part] for part, size in stepped.items()})
    for part, runs in timed.items():
        if not runs.s or min(runs.s) <= 0:
            continue  # a run that took no time is no run
        taken_s = alone[stepped[part]] if part in stepped else runs.s
        about = interval(taken_s, typical)
        value = typical(taken_s)
        if runs.amount is not None:
            value = runs.amount / value
            about = about and Interval(low=runs.amount / about.high, high=runs.amount / about.low, runs=about.runs)
        name, _, key = part.partition(".")
        if key:
            found.setdefault(name, {})[key] = value
        else:
            found[name] = value
        if about is not None:
            intervals[part] = about
    return found | ({"intervals": intervals} if intervals else {})
