"""The same stretch of every contribution beside each other, in memory of a model or less however many there are.

Merges that look at one coordinate of all sites at once cannot take one contribution after the other. They take one
*band* after the other instead: every contribution is decoded once per band, and only what lies in the band is kept.
With ``n`` sites there are so many bands that what is kept of all together is about one model.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from windfall.lowcomm.said import Spoken, Vectors
from windfall.lowcomm.sparse import Contribution, Sparse

RUN: Final = 1 << 16
"""Bands begin at multiples of it."""

_LEAST: Final = 1 << 24
"""Elements that all contributions may have in a band together, however small the model is."""

_SPARSER: Final = 16
"""By so much a sparse contribution takes less memory than a dense one, in the codecs' default settings and a little
less: position and value of one element in 64 are a twenty-first."""


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
    """What was merged band by band, as one: the beginning of each band, and what all say about it together."""
    whole: Tensor | None = None
    positions, values, dct = [np.empty(0, np.int64)], [np.empty(0, np.float32)], False
    for begin, one in merged:
        if isinstance(one, Sparse):
            positions.append(one.positions + begin)
            values.append(one.values)
            dct = one.dct
            continue
        if one.numel() == elements:
            return one
        if whole is None:
            whole = torch.empty(elements)
        whole[begin : begin + one.numel()] = one
    if whole is not None:
        return whole
    return Sparse(elements, np.concatenate(positions), np.concatenate(values), dct)


def _within(one: Contribution, begin: int, end: int) -> Contribution:
    if isinstance(one, Sparse):
        first, last = np.searchsorted(one.positions, (begin, end))
        # Copies, or the rest would stay in memory with them.
        return Sparse(end - begin, one.positions[first:last] - begin, one.values[first:last].copy(), one.dct)
    whole = begin == 0 and end == one.numel()
    return one if whole else one[begin:end].clone()
