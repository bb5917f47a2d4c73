"""Steps that are so far beyond the recent ones that their update is not made. Pure: a state, a step, a verdict.

A broken batch shows in the loss or in the gradient's norm before it shows in the weights. PaLM went back to a
checkpoint and left out the batches around a spike (arXiv 2204.02311, section 5.1); OLMo 2 leaves out the update of a
step whose loss or gradient norm lies more than six standard deviations above the last 128 (arXiv 2501.00656; the
``SkipStepOptimizer`` of OLMo-core). ZClip (arXiv 2504.02507) keeps exponential averages instead of a window, and lets a
spike enter them cut down, so that it hides no second one. This rule skips as OLMo does
on averages kept as ZClip does, with two differences that keep it silent where training is merely noisy: both measures
must be beyond their limit, and the spread is never taken for less than a share of the mean. A loss alone may jump where
a batch is hard, and a gradient alone is what clipping is for.
"""

from dataclasses import dataclass, replace
from math import exp, log, sqrt
from typing import Final

LOSS_SIGMAS: Final = 6.0
"""Standard deviations above the mean that are too many for a loss, as in OLMo 2."""
NORM_SIGMAS: Final = 3.0
"""And for the logarithm of a gradient's norm: ZClip cuts from 2.5 on."""
ENTERS: Final = 2.0
"""Standard deviations above the mean as which a measure beyond its limit enters the averages: each such one widens the
spread by 4 %."""
MEMORY: Final = 0.97
"""What an average keeps of itself at each step: it remembers about 33."""
WARM_UP: Final = 32
"""Steps that are only learnt from, at the start and after a change that was accepted."""
SETTLING: Final = 4
"""Steps on a new base that are not judged: it is another point than the one where the averages were taken."""
PATIENCE: Final = 5
"""Spikes in a row after which what is new counts as how things are."""
LEAST_LOSS_SPREAD: Final = 0.05
"""Of a loss, as a share of its mean."""
LEAST_NORM_SPREAD: Final = 0.2
"""Of the logarithm of a gradient's norm: norms differ by factors."""
_TINY: Final = 1e-30


@dataclass(frozen=True)
class Average:
    """Of one measure: exponential mean and variance, plain ones while there are few."""

    mean: float = 0.0
    variance: float = 0.0
    seen: int = 0

    def with_(self, value: float) -> "Average":
        """The average after one more value (West's update of mean and variance, CACM 22(9), 1979)."""
        share = max(1 / (self.seen + 1), 1 - MEMORY)
        away = value - self.mean
        mean = self.mean + share * away
        return Average(mean, (1 - share) * (self.variance + share * away * away), self.seen + 1)

    def above(self, sigmas: float, least_spread: float) -> float:
        return self.mean + sigmas * max(sqrt(self.variance), least_spread)

    def with_cut(self, value: float, most: float, least_spread: float) -> "Average":
        """The average after one more value, which counts for less where it is beyond the limit."""
        return self.with_(self.above(ENTERS, least_spread) if value > most else value)


@dataclass(frozen=True)
class Recent:
    """What is known of the steps so far."""

    loss: Average = Average()
    log_norm: Average = Average()
    row: int = 0
    """Spikes in a row up to now."""
    settling: int = 0
    """Steps that are still not judged, because the base is new."""


def on_new_base(recent: Recent) -> Recent:
    """Training goes on from another point."""
    return replace(recent, row=0, settling=SETTLING)


def judged(recent: Recent, loss: float, norm: float) -> tuple[Recent, bool]:
    """Whether a step is a spike, whose update is not to be made.

    Never for ever: after ``PATIENCE`` in a row a change is accepted, and the rule learns anew from it.

    Args:
        loss: of the step, finite.
        norm: of its gradient before clipping, finite.
    """
    log_norm = log(max(norm, _TINY))
    if recent.loss.seen < WARM_UP or recent.settling:
        learnt = Recent(recent.loss.with_(loss), recent.log_norm.with_(log_norm))
        return replace(learnt, settling=max(0, recent.settling - 1)), False
    most_loss, most_log_norm = _limits(recent)
    spike = loss > most_loss and log_norm > most_log_norm
    if spike and recent.row + 1 >= PATIENCE:
        return Recent(Average().with_(loss), Average().with_(log_norm)), False
    return (
        Recent(
            recent.loss.with_cut(loss, most_loss, _least_loss_spread(recent)),
            recent.log_norm.with_cut(log_norm, most_log_norm, LEAST_NORM_SPREAD),
            recent.row + 1 if spike else 0,
        ),
        spike,
    )


def limits(recent: Recent) -> tuple[float, float]:
    """Loss and gradient norm that the next step must both exceed to be a spike."""
    loss, log_norm = _limits(recent)
    return loss, exp(min(log_norm, 700.0))


def _limits(recent: Recent) -> tuple[float, float]:
    return (
        recent.loss.above(LOSS_SIGMAS, _least_loss_spread(recent)),
        recent.log_norm.above(NORM_SIGMAS, LEAST_NORM_SPREAD),
    )


def _least_loss_spread(recent: Recent) -> float:
    return LEAST_LOSS_SPREAD * abs(recent.loss.mean)
