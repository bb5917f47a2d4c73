"""Training settings that follow from what was measured on a node, each with its reason. Pure.

What needs a model or other sites to be decided (codec, fragments, whose round is how long) is the coordinator's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from math import ceil
from typing import Final, get_args

from pydantic import BaseModel, ConfigDict, Field

from windfall.contracts.events import Measured, Precision, Recommendation, TrainingValue
from windfall.contracts.measures import Dtype

NEAR_BEST: Final = 0.98
"""A smaller micro-batch with this share of the best throughput is preferred: it costs less memory, and a site that is
told to stop finishes its step sooner."""
CHANCE: Final = 0.1
"""A measured step within this share of the line through all of them is on it; beyond, it is what was measured."""
FEWEST_ON_A_LINE: Final = 4
"""Sizes, for two unknowns and something to hold them against."""
WORTH_ROUNDING: Final = 1.1
"""So many times as fast bf16 must be before its 8 bits of mantissa are taken instead of 24."""


class Wishes(BaseModel):
    """What the site's owner wants instead; a value that is none follows from what was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    micro_batch: int | None = Field(default=None, ge=1)
    gradient_accumulation: int | None = Field(default=None, ge=1, le=4096)
    local_steps: int | None = Field(default=None, ge=1)
    precision: Precision | None = None


@dataclass(frozen=True)
class Goals:
    """What training settings should reach."""

    target_round: timedelta
    """Wall time of one round's local steps."""
    fallback_micro_batch: int = 8
    """Recommended when no step could be measured."""
    fallback_local_steps: int = 50
    """Recommended when no step could be measured."""
    step_samples: int | None = None
    """Samples that a step should see, however many passes that takes; none is one pass."""
    wishes: Wishes = field(default_factory=Wishes)


def recommend(measured: Measured, goals: Goals) -> Recommendation:
    """The smallest micro-batch near the best throughput, as many of them in a step as are wanted, steps to fill the
    target round, and the type of number that is fastest without need to round for nothing."""
    wishes = goals.wishes
    because: list[str] = []
    steps_s = {size: step_s for size, step_s in measured.step_s_by_micro_batch.items() if size > 0 and step_s > 0}
    size = wishes.micro_batch or _micro_batch(steps_s, goals, measured, because)
    passes = wishes.gradient_accumulation or min(4096, ceil((goals.step_samples or 1) / size))
    if goals.step_samples and not wishes.gradient_accumulation:
        because.append(f"{passes} in a step make {passes * size} samples of the {goals.step_samples} that are wanted")
    steps = wishes.local_steps or _local_steps(steps_s, size, passes, goals, because)
    precision, why = precision_of(measured.matmul_gflops_by_dtype)
    if wishes.precision is not None:
        precision = wishes.precision
    elif why:
        because.append(why)
    told = tuple(name for name in get_args(TrainingValue) if getattr(wishes, name) is not None)
    if told:
        because.append(f"{', '.join(told).replace('_', ' ')} as told")
    line = "; ".join(because)
    return Recommendation(
        micro_batch=size,
        gradient_accumulation=passes,
        local_steps=steps,
        precision=precision,
        told=told,
        because=f"{line[:1].upper()}{line[1:]}.",
    )


def smoothed(steps_s: Mapping[int, float]) -> dict[int, float]:
    """Seconds of a step by size with chance evened out: a step costs so much, and so much more for each sample in it.
    The line is the one with the least squares of relative errors. A size that is far off it (for which a cache is too
    small, say) is what it was measured to be."""
    if len(steps_s) < FEWEST_ON_A_LINE:
        return dict(steps_s)
    one = sum(1 / s**2 for s in steps_s.values())
    first, second = (sum(n**power / s**2 for n, s in steps_s.items()) for power in (1, 2))
    step, sample = sum(1 / s for s in steps_s.values()), sum(n / s for n, s in steps_s.items())
    spread = one * second - first**2
    if spread <= 0:
        return dict(steps_s)
    own_s, each_s = (step * second - sample * first) / spread, (sample * one - step * first) / spread
    line = {n: own_s + each_s * n for n in steps_s}
    return {n: line[n] if abs(line[n] / s - 1) <= CHANCE else s for n, s in steps_s.items()}


def precision_of(gflops: Mapping[Dtype, float]) -> tuple[Precision | None, str]:
    """What to multiply in, and why; none where either type was not measured.

    Args:
        gflops: by type of number.
    """
    full, half = gflops.get("fp32"), gflops.get("bf16")
    if not full or not half:
        return None, ""
    ratio = half / full
    return ("bf16" if ratio >= WORTH_ROUNDING else "fp32"), f"bf16 is {ratio:.3g} times as fast as fp32 here"


def _micro_batch(steps_s: Mapping[int, float], goals: Goals, measured: Measured, because: list[str]) -> int:
    rates = {size: size / step_s for size, step_s in smoothed(steps_s).items()}
    if not rates:
        why = measured.missing.get("step_s_by_micro_batch", "nothing was measured")
        because.append(f"no training step could be measured ({why}), so the defaults stand")
        return goals.fallback_micro_batch
    fastest = max(rates, key=lambda size: rates[size])
    chosen = min(size for size, rate in rates.items() if rate >= NEAR_BEST * rates[fastest])
    best = "the best measured" if chosen == fastest else f"within 2 % of the best, {rates[fastest]:.3g} at {fastest}"
    of = "samples/s" if measured.task else "reference samples/s"
    because.append(f"micro-batch {chosen} gives {rates[chosen]:.3g} {of} ({best})")
    return chosen


def _local_steps(steps_s: Mapping[int, float], size: int, passes: int, goals: Goals, because: list[str]) -> int:
    round_s = goals.target_round.total_seconds()
    if not steps_s:
        return goals.fallback_local_steps
    # Of a size that was told and not measured: by the nearest one.
    near = min(steps_s, key=lambda other: (abs(other - size), other))
    step_s = passes * steps_s[near] * size / near
    steps = max(1, int(round_s / step_s))
    because.append(
        f"{steps} steps of {step_s * 1000:.3g} ms fill a round of {round_s:g} s"
        if step_s <= round_s
        else f"one step of {step_s:.3g} s is longer than a round of {round_s:g} s"
    )
    return steps
