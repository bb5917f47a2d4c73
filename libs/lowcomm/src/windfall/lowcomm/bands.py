"""The same stretch of every contribution beside each other, in memory of a model or less however many there are.

Merges that look at one coordinate of all sites at once cannot take one contribution after the other. They take one
*band* after the other instead: every contribution is decoded once per band, and only what lies in the band is kept.
With ``n`` sites there are so many bands that what is kept of all together is about one model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from windfall.lowcomm.dct import inverse_dct
from windfall.lowcomm.later import torch
from windfall.lowcomm.layout import FLOAT32_BYTES
from windfall.lowcomm.said import Spoken, Vectors
from windfall.lowcomm.sparse import Contribution, Sparse

if TYPE_CHECKING:
    from torch import Tensor

RUN: Final = 1 << 16
"""Bands begin at multiples of it."""

_LEAST: Final = 1 << 24
"""Elements that all contributions may have in a band together, however small the model is."""

_SPARSER: Final = 8
"""Sparse contributions take one band for so many. In the codecs' default settings one takes a twenty-first of a model;
the rest is room for what is computed of them."""

_SPARSE_BYTES: Final = 12
"""Of a position and its value."""


@dataclass(frozen=True, eq=False)
class Band:
    """What all sites say about the elements from ``begin``: all sparse, or all fp32 vectors ``[elements]``."""

    begin: int
    elements: int
    contributions: list[Contribution]


def bands(spoken: Spoken, elements: int) -> Iterator[Band]:
    """Cut a part of so many elements; it is walked through once per band. What some say densely all say densely."""
    sparse = spoken.sparse
    many = -(-len(spoken) // _SPARSER) if sparse else len(spoken)
    width = -(-max(elements, _LEAST) // (many * RUN)) * RUN
    for begin in range(0, elements, width):
        end = min(begin + width, elements)
        source: Iterable[Contribution] = spoken if sparse else Vectors(spoken)
        yield Band(begin, end - begin, [_within(one, begin, end) for one in source])


def joined(merged: Iterable[tuple[int, Contribution]], elements: int) -> Contribution:
    """What was merged band by band, as one: the beginning of each band, and what all say about it together.

    What many sparse contributions say is kept as a vector where that is shorter; it moves the model to the same bits.
    """
    whole: Tensor | None = None
    known: list[tuple[int, Sparse]] = []
    size = 0
    for begin, one in merged:
        if isinstance(one, Sparse):
            known.append((begin, one))
            size += _SPARSE_BYTES * len(one.positions)
            if whole is None and size <= FLOAT32_BYTES * elements:
                continue
            whole = torch.zeros(elements) if whole is None else whole
            for start, each in known:
                whole.numpy()[each.positions + start] = each.values
            known = [(begin, replace(one, positions=one.positions[:0], values=one.values[:0]))]
            continue
        if one.numel() == elements:
            return one
        whole = torch.empty(elements) if whole is None else whole
        whole[begin : begin + one.numel()] = one
    dct = bool(known) and known[0][1].dct
    if whole is None:
        positions = np.concatenate([np.empty(0, np.int64), *(one.positions + begin for begin, one in known)])
        values = np.concatenate([np.empty(0, np.float32), *(one.values for _, one in known)])
        return Sparse(elements, positions, values, dct)
    if dct:
        inverse_dct(whole.numpy(), out=whole.numpy())
    return whole


def _within(one: Contribution, begin: int, end: int) -> Contribution:
    if isinstance(one, Sparse):
        first, last = np.searchsorted(one.positions, (begin, end))
        # Copies, or the rest would stay in memory with them.
        return Sparse(end - begin, one.positions[first:last] - begin, one.values[first:last].copy(), one.dct)
    whole = begin == 0 and end == one.numel()
    return one if whole else one[begin:end].clone()
