"""Merges that look at each coordinate alone: at what every site says of it, in order of size.

A coordinate that a sparse codec did not send is no opinion: the rule is taken over the sites that sent it, and where
none did, nothing is said. Had it been zero, a majority of silent sites would outvote every site that learnt something,
for honest supports hardly overlap. So liars are outvoted where most senders of a coordinate are honest; a coordinate
that a liar alone sends is the liar's, and ``Rule.clip`` bounds how long all of those together can be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from windfall.lowcomm.later import torch
from windfall.lowcomm.sparse import Contribution, Sparse

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float32]

Pick = Callable[[Floats], Floats]
"""From what ``c`` sites say about ``m`` coordinates, fp32 ``[c, m]``, each column in ascending order, to what they say
together, fp32 ``[m]``. ``c`` is at least 1."""

_NETWORK: Final = 24
"""Up to so many rows, comparing whole rows is faster than sorting columns."""

_CACHED: Final = 1 << 18
"""Elements of all rows together that are sorted at a time: they stay in the processor's cache."""

_UNSENT: Final = np.float32(np.inf)


def merge_columns(pick: Pick, contributions: Sequence[Contribution]) -> Contribution:
    """What all of them say together. The order in which they are given changes no bit.

    Args:
        contributions: of one length; all sparse in one basis, or all fp32 vectors ``[n]``.

    Raises:
        ValueError: none at all, or not of one kind and length.
    """
    if not contributions:
        raise ValueError("a merge needs at least one contribution")
    sparse = [one for one in contributions if isinstance(one, Sparse)]
    dense = [one for one in contributions if isinstance(one, torch.Tensor)]
    if (sparse and dense) or len({(each.elements, each.dct) for each in sparse}) > 1:
        raise ValueError("contributions are of one length and of one basis")
    return _merge_sparse(pick, sparse) if sparse else _merge_dense(pick, dense)


def _merge_dense(pick: Pick, chunks: Sequence[Tensor]) -> Tensor:
    if any(chunk.shape != chunks[0].shape or chunk.dtype != torch.float32 for chunk in chunks):
        raise ValueError(f"chunks are fp32 of one shape, got {[f'{x.dtype}{list(x.shape)}' for x in chunks]}")
    return torch.from_numpy(pick_columns(pick, [chunk.detach().numpy() for chunk in chunks]))


def pick_columns(pick: Pick, rows: Sequence[Floats]) -> Floats:
    """What ``c`` sites say together about ``m`` coordinates, fp32 ``[m]`` from ``c`` vectors ``[m]``."""
    merged = np.empty(len(rows[0]), np.float32)
    width = max(64, _CACHED // len(rows))
    for begin in range(0, len(merged), width):
        run = slice(begin, begin + width)
        merged[run] = pick(_in_order(np.stack([row[run] for row in rows])))
    return merged


def _merge_sparse(pick: Pick, contributions: Sequence[Sparse]) -> Sparse:
    first = contributions[0]
    positions = np.unique(np.concatenate([each.positions for each in contributions]))
    merged = np.empty(len(positions), np.float32)
    width = max(64, _CACHED // len(contributions))
    for begin in range(0, len(positions), width):
        run = positions[begin : begin + width]
        values = np.full((len(contributions), len(run)), _UNSENT)
        for row, each in zip(values, contributions, strict=True):
            start, stop = np.searchsorted(each.positions, (run[0], run[-1] + 1))
            row[np.searchsorted(run, each.positions[start:stop])] = each.values[start:stop]
        sent = np.count_nonzero(values != _UNSENT, axis=0)
        values = _in_order(values)
        into = merged[begin : begin + width]
        for count in np.unique(sent):
            columns = sent == count
            into[columns] = pick(values[:count, columns])
    return Sparse(first.elements, positions, merged, first.dct)


def _in_order(rows: Floats) -> Floats:
    """Each column in ascending order; the rows are taken over."""
    # Two zeros that compare as equal would lie in any order: there is one zero.
    rows += np.float32(0)
    if len(rows) > _NETWORK:
        return np.sort(np.ascontiguousarray(rows.T), axis=1).T
    spare = np.empty(rows.shape[1], np.float32)
    for low, high in _network(len(rows)):
        np.minimum(rows[low], rows[high], out=spare)
        np.maximum(rows[low], rows[high], out=rows[high])
        rows[low] = spare
    return rows


@cache
def _network(count: int) -> tuple[tuple[int, int], ...]:
    """Which rows to compare, one pair after the other: Batcher's odd-even merge sort (AFIPS 1968)."""
    found, size = [], 1
    while size < count:
        step = size
        while step >= 1:
            for start in range(step % size, count - step, 2 * step):
                for low in range(start, start + min(step, count - start - step)):
                    if low // (2 * size) == (low + step) // (2 * size):
                        found.append((low, low + step))
            step //= 2
        size *= 2
    return tuple(found)
