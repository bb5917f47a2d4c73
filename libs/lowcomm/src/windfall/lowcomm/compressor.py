"""Codecs with memory: what a site did not get to say in one round, it says in a later one.

A compressor is a pure pair: ``init(elements)`` gives the state of a site that has just joined, ``encode(state,
gradient)`` the new state and a payload, which ``contribution.decode`` reads to the same bits everywhere. The state is
a frozen value; a site that leaves or rejoins starts again from ``init``, because its unsent rest belongs to a model
that has moved on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from windfall.lowcomm.blocks import bytes_of_blocks, encode_blocks
from windfall.lowcomm.codec import CODECS
from windfall.lowcomm.dct import forward_dct
from windfall.lowcomm.gradient import accumulated, checked
from windfall.lowcomm.later import torch
from windfall.lowcomm.setting import parse_named
from windfall.lowcomm.topk import TopK, send_largest
from windfall.lowcomm.twobit import most_bytes_of_bins, send_bins

if TYPE_CHECKING:
    from torch import Tensor

State = tuple["Tensor", ...]


@dataclass(frozen=True)
class Compressor:
    """One codec with its settings.

    ``slots`` is the number of state vectors of fragment size. ``encode`` takes the state and a fp32 vector ``[n]``,
    changes neither, and raises ``ValueError`` when the vector has an element that is NaN, infinite or absurdly large.
    What it sends and what it keeps add up to what it was given and had kept (times the decay), up to fp32 rounding.
    """

    name: str
    slots: int
    encode: Callable[[State, Tensor], tuple[State, bytes]]
    most_bytes: Callable[[int], int]
    """Of a payload of so many elements: no honest one is longer, so that a receiver refuses more before it has made
    room for it. It also bounds what a payload can be inflated to."""

    def init(self, elements: int) -> State:
        """The state of a site that has just joined: ``slots`` vectors of zeros, fp32 ``[elements]``."""
        return tuple(torch.zeros(elements) for _ in range(self.slots))


def _plain(name: str) -> Compressor:
    def encode(state: State, gradient: Tensor) -> tuple[State, bytes]:
        checked(gradient)
        return state, bytes(CODECS[name].encode(gradient))

    return Compressor(name, 0, encode, lambda elements: elements * CODECS[name].bytes_per_element)


def _blocks(name: str, bits: int) -> Compressor:
    return Compressor(
        name,
        0,
        lambda state, gradient: (state, encode_blocks(gradient, bits)),
        lambda elements: bytes_of_blocks(elements, bits),
    )


def q2_ef(decay: float = 1.0) -> Compressor:
    """Dense 2-bit values with error feedback.

    Raises:
        ValueError: ``decay`` is not in [0, 1].
    """
    _check_decay(decay)

    def encode(state: State, gradient: Tensor) -> tuple[State, bytes]:
        (residual,) = state
        total = accumulated(residual, gradient, decay)
        payload = send_bins(total)
        return (torch.from_numpy(total),), payload

    return Compressor("q2-ef", 1, encode, most_bytes_of_bins)


def topk_ef(chunk: float = 4096, keep: float = 64, decay: float = 0.9, levels: float = 2) -> Compressor:
    """The largest coordinates of every chunk with error feedback: e ← β·e + Δ, send Q(TopK(e)), keep the rest.

    Raises:
        ValueError: ``decay`` is not in [0, 1], or the others are not what ``TopK`` takes.
    """
    _check_decay(decay)
    rule = TopK(*_whole(chunk=chunk, keep=keep, levels=levels))

    def encode(state: State, gradient: Tensor) -> tuple[State, bytes]:
        (residual,) = state
        total = accumulated(residual, gradient, decay)
        payload = send_largest(total, rule)
        return (torch.from_numpy(total),), payload

    return Compressor("topk-ef", 1, encode, rule.most_bytes)


def dct_momentum(chunk: float = 4096, keep: float = 64, momentum: float = 0.9, levels: float = 2) -> Compressor:
    """The fast part of a momentum, in frequencies (after arXiv 2411.19870 and 2510.03371): m ← β·m + Δ, send
    q = Q(TopK(DCT m)), m ← m − IDCT q.

    The momentum is kept as coefficients, which an orthonormal transform allows: nothing is transformed back to encode.
    What is sent is all that moves the model, on the sender as on the others, so replicas cannot drift apart.

    Raises:
        ValueError: ``momentum`` is not in [0, 1], or the others are not what ``TopK`` takes.
    """
    _check_decay(momentum)
    rule = TopK(*_whole(chunk=chunk, keep=keep, levels=levels))

    def encode(state: State, gradient: Tensor) -> tuple[State, bytes]:
        (residual,) = state
        total = accumulated(residual, torch.from_numpy(forward_dct(checked(gradient, residual.numel()))), momentum)
        payload = send_largest(total, rule)
        return (torch.from_numpy(total),), payload

    return Compressor("dct-momentum", 1, encode, rule.most_bytes)


COMPRESSORS: Final[dict[str, Callable[..., Compressor]]] = {
    "fp32": lambda: _plain("fp32"),
    "bf16": lambda: _plain("bf16"),
    "int8-block": lambda: _blocks("int8-block", 8),
    "int4-block": lambda: _blocks("int4-block", 4),
    "q2-ef": q2_ef,
    "topk-ef": topk_ef,
    "dct-momentum": dct_momentum,
}
"""Every compressor by the name under which a setting asks for it."""


def parse_compressor(text: str) -> Compressor:
    """Read a setting like ``topk-ef`` or ``topk-ef:decay=0.95,levels=1``; what is left out has its default.

    Raises:
        ValueError: unknown compressor or setting, or a value that is no number or out of range.
    """
    return parse_named("compressor", text, COMPRESSORS)


def _check_decay(decay: float) -> None:
    if not 0 <= decay <= 1:
        raise ValueError(f"the decay of an error feedback is at least 0 and at most 1, not {decay}")


def _whole(**settings: float) -> tuple[int, ...]:
    """Settings are read as numbers; these must be whole ones."""
    for name, value in settings.items():
        if not float(value).is_integer():
            raise ValueError(f"{name} is a whole number, not {value}")
    return tuple(int(value) for value in settings.values())
