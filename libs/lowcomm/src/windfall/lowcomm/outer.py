"""How the global model moves: outer optimizers as pure functions over frozen state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Final

from windfall.lowcomm.later import torch
from windfall.lowcomm.setting import parse_named

if TYPE_CHECKING:
    from torch import Tensor

State = tuple["Tensor", ...]

_RUN: Final = 1 << 16


@dataclass(frozen=True)
class Outer:
    """One outer optimizer with its settings.

    ``slots`` is the number of state vectors of model size that cross a round; ``counters`` is the number of those of
    one element, which come after them. ``apply(state, base, gradient)`` takes fp32 vectors ``[n]``, gives the new state
    and the new base, and changes none of its arguments. It is elementwise: chunk by chunk and as a whole it gives the
    same bits, when every chunk is given the counters as they were before the first.
    """

    name: str
    slots: int
    lr: float
    apply: Callable[[State, Tensor, Tensor], tuple[State, Tensor]]
    counters: int = 0

    def sizes(self, elements: int) -> tuple[int, ...]:
        """Elements of each state vector, for a model of so many."""
        return (elements,) * self.slots + (1,) * self.counters

    def init(self, elements: int) -> State:
        """The state before the first round: fp32 vectors of zeros, as long as ``sizes`` says."""
        return tuple(torch.zeros(size) for size in self.sizes(elements))


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


def delayed_nesterov(lr: float = 0.7, momentum: float = 0.9, arrivals: float = 4) -> Outer:
    """For contributions that move the model one by one (asynchronous local SGD, arXiv 2401.09135, with c = 0). Every
    arrival takes θ ← θ − α·Δ/N; the N-th one takes m ← μ·m + ΣΔ/N over the last N, then θ ← θ − α·(μ·m + Δ/N).

    The state is m, the running ΣΔ/N, and how many of it have arrived.

    Raises:
        ValueError: as ``nesterov``, or ``arrivals``, N, is not a whole number from 1 to 2²⁰.
    """
    _check(lr=lr, momentum=momentum)
    if not (1 <= arrivals <= 2**20 and float(arrivals).is_integer()):
        raise ValueError(f"arrivals between two steps of momentum are a whole number from 1 to 2^20, not {arrivals}")

    def apply(state: State, base: Tensor, gradient: Tensor) -> tuple[State, Tensor]:
        moment, running, count = state
        share = gradient * (1 / arrivals)
        running, count = running + share, count + 1
        if count.item() < arrivals:
            return (moment, running, count), base - share.mul_(lr)
        moment = (moment * momentum).add_(running)
        ahead = (moment * momentum).add_(share)
        return (moment, torch.zeros_like(running), torch.zeros_like(count)), base - ahead.mul_(lr)

    return Outer("delayed-nesterov", 2, lr, apply, counters=1)


OUTERS: Final[dict[str, Callable[..., Outer]]] = {
    "average": average,
    "nesterov": nesterov,
    "delayed-nesterov": delayed_nesterov,
}
"""Every outer optimizer by the name under which a setting asks for it."""


def parse_outer(text: str) -> Outer:
    """Read a setting like ``average`` or ``nesterov:lr=0.7,momentum=0.9``; what is left out has its default.

    Raises:
        ValueError: unknown optimizer or setting, or a value that is no number or out of range.
    """
    return parse_named("outer optimizer", text, OUTERS)


def apply_run_by_run(outer: Outer, state: State, base: Tensor, gradient: Tensor) -> tuple[State, Tensor]:
    """``outer.apply``, to the same bits, in runs that stay in the processor's cache: no vector lies between."""
    slots, counters = state[: outer.slots], state[outer.slots :]
    ahead, *moved = (torch.empty_like(vector) for vector in (base, *slots))
    after = state
    for begin in range(0, len(base), _RUN):
        run = slice(begin, begin + _RUN)
        after, ahead[run] = outer.apply((*(slot[run] for slot in slots), *counters), base[run], gradient[run])
        for into, chunk in zip(moved, after, strict=False):
            into[run] = chunk
    return (*moved, *after[outer.slots :]), ahead


def _check(lr: float, momentum: float = 0.0) -> None:
    if not (isfinite(lr) and lr > 0):
        raise ValueError(f"outer learning rate must be positive and finite, not {lr}")
    if not 0 <= momentum < 1:
        raise ValueError(f"outer momentum must be at least 0 and below 1, not {momentum}")
