"""How the global model moves: outer optimizers as pure functions over frozen state."""

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Final

import torch
from torch import Tensor

from windfall.lowcomm.setting import parse_named

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class Outer:
    """One outer optimizer with its settings.

    ``slots`` is the number of state vectors of model size that cross a round. ``apply(state, base, gradient)`` takes
    fp32 vectors ``[n]``, gives the new state and the new base, and changes none of its arguments. It is elementwise:
    chunk by chunk and as a whole it gives the same bits.
    """

    name: str
    slots: int
    lr: float
    apply: Callable[[State, Tensor, Tensor], tuple[State, Tensor]]

    def init(self, elements: int) -> State:
        """The state before the first round: ``slots`` vectors of zeros, fp32 ``[elements]``."""
        return tuple(torch.zeros(elements) for _ in range(self.slots))


def average(lr: float = 1.0) -> Outer:
    """Plain (federated) averaging: θ ← θ − α·Δ̄. With α = 1 the new model is the weighted mean of the local ones.

    Raises:
        ValueError: ``lr`` is not positive and finite.
    """
    _check(lr=lr)

    def apply(state: State, base: Tensor, gradient: Tensor) -> tuple[State, Tensor]:
        return state, base - gradient * lr

    return Outer("average", 0, lr, apply)


def nesterov(lr: float = 0.7, momentum: float = 0.9) -> Outer:
    """DiLoCo (arXiv 2311.08105): m ← μ·m + Δ̄, then θ ← θ − α·(Δ̄ + μ·m).

    Raises:
        ValueError: ``lr`` is not positive and finite, or ``momentum`` is not in [0, 1).
    """
    _check(lr=lr, momentum=momentum)

    def apply(state: State, base: Tensor, gradient: Tensor) -> tuple[State, Tensor]:
        (moment,) = state
        moment = (moment * momentum).add_(gradient)
        ahead = (moment * momentum).add_(gradient)
        return (moment,), base - ahead.mul_(lr)

    return Outer("nesterov", 1, lr, apply)


OUTERS: Final[dict[str, Callable[..., Outer]]] = {"average": average, "nesterov": nesterov}
"""Every outer optimizer by the name under which a setting asks for it."""


def parse_outer(text: str) -> Outer:
    """Read a setting like ``average`` or ``nesterov:lr=0.7,momentum=0.9``; what is left out has its default.

    Raises:
        ValueError: unknown optimizer or setting, or a value that is no number or out of range.
    """
    return parse_named("outer optimizer", text, OUTERS)


def _check(lr: float, momentum: float = 0.0) -> None:
    if not (isfinite(lr) and lr > 0):
        raise ValueError(f"outer learning rate must be positive and finite, not {lr}")
    if not 0 <= momentum < 1:
        raise ValueError(f"outer momentum must be at least 0 and below 1, not {momentum}")
