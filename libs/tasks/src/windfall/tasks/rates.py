"""Learning-rate schedules: how large a share of its learning rate a step uses, by the federation's tokens so far.

One line of a setting names a schedule and its numbers, in tokens: ``constant``,
``cosine:warmup=1e5,total=6e6,floor=0.1`` or ``wsd:warmup=1e5,total=6e6,decay=1.2e6``. A site that joins late, or that
resumes, is at the same point as the others.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from math import cos, isfinite, pi, sqrt
from typing import Annotated, Final

from pydantic import AfterValidator

Rate = Callable[[int], float]
"""From tokens of the whole federation to a share in [0, 1] of every learning rate."""


@dataclass(frozen=True)
class Constant:
    """The whole learning rate, always."""

    def __call__(self, tokens: int) -> float:
        return 1.0


@dataclass(frozen=True)
class Cosine:
    """Linear warmup, then half a cosine down to ``floor`` at ``total`` tokens and ``floor`` after that (SGDR, arXiv
    1608.03983, without restarts).

    Raises:
        ValueError: a number is negative or not finite, ``warmup`` is not below ``total``, or ``floor`` above 1.
    """

    total: float
    warmup: float = 0.0
    floor: float = 0.0

    def __post_init__(self) -> None:
        _within(self.warmup, self.total)
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor is a share in [0, 1], not {self.floor:g}")

    def __call__(self, tokens: int) -> float:
        if tokens < self.warmup:
            return tokens / self.warmup
        done = min(1.0, (tokens - self.warmup) / (self.total - self.warmup))
        return self.floor + (1 - self.floor) * (1 + cos(pi * done)) / 2


@dataclass(frozen=True)
class WarmupStableDecay:
    """Linear warmup, a plateau, and over the last ``decay`` tokens before ``total`` a way down to zero along
    1 − √(share of the decay that is done), the shape that arXiv 2405.18392 found best. (The plateau's name is from
    MiniCPM, arXiv 2404.06395: it can be prolonged without having been planned for.)

    Raises:
        ValueError: a number is negative or not finite, or ``warmup`` and ``decay`` do not fit into ``total``.
    """

    total: float
    decay: float
    warmup: float = 0.0

    def __post_init__(self) -> None:
        _within(self.warmup, self.total)
        if not 0 < self.decay <= self.total - self.warmup:
            raise ValueError(
                f"decay is above 0 and at most {self.total - self.warmup:g}, total less warmup, not {self.decay:g}"
            )

    def __call__(self, tokens: int) -> float:
        if tokens < self.warmup:
            return tokens / self.warmup
        done = min(1.0, max(0.0, (tokens - (self.total - self.decay)) / self.decay))
        return 1 - sqrt(done)


def _within(warmup: float, total: float) -> None:
    if not (isfinite(total) and 0 <= warmup < total):
        raise ValueError(f"warmup is at least 0 and less than total, both finite, not {warmup:g} of {total:g}")


SCHEDULES: Final[dict[str, Callable[..., Rate]]] = {
    "constant": Constant,
    "cosine": Cosine,
    "wsd": WarmupStableDecay,
}


def parse_rate(line: str) -> Rate:
    """The schedule that a line names.

    Raises:
        ValueError: unknown schedule or setting, one that is missing, or a value that is no number or out of range.
    """
    name, _, rest = line.strip().partition(":")
    schedule = SCHEDULES.get(name)
    if schedule is None:
        raise ValueError(f"unknown rate {name!r}; known are {', '.join(SCHEDULES)}")
    known = inspect.signature(schedule).parameters
    numbers: dict[str, float] = {}
    for part in rest.split(",") if rest else ():
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in known or key in numbers:
            problem = "given twice" if key in numbers else f"unknown; known are {', '.join(known) or 'none'}"
            raise ValueError(f"rate {name!r}: setting {key!r} is {problem}")
        try:
            numbers[key] = float(value)
        except ValueError:
            raise ValueError(f"rate {name!r}: {key} is a number, not {value!r}") from None
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in numbers:
            raise ValueError(f"rate {name!r}: setting {key!r} is missing")
    try:
        return schedule(**numbers)
    except ValueError as error:
        raise ValueError(f"rate {name!r}: {error}") from None


def _checked(line: str) -> str:
    parse_rate(line)
    return line


RateLine = Annotated[str, AfterValidator(_checked)]
"""A field of a task's settings that holds such a line and refuses another when the settings are read."""
