"""No site may pull harder than the median site does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import fsum, sqrt
from statistics import median
from typing import Final

import numpy as np
import numpy.typing as npt

from windfall.lowcomm.later import torch
from windfall.lowcomm.sparse import Contribution, Sparse

Floats = npt.NDArray[np.float32]

_BATCH: Final = 1 << 16


def norm(contribution: Contribution) -> float:
    """The Euclidean norm, to the same bits on every machine: squares in fp64, added up in pairs of halves."""
    values: Floats = contribution.values if isinstance(contribution, Sparse) else contribution.detach().numpy()
    return root_of(squares(values))


def squares(values: Floats) -> list[float]:
    """Sums of the squares of runs of 2¹⁶ elements; a stretch that begins at a multiple of it gives its part of them."""
    sums = []
    for begin in range(0, len(values), _BATCH):
        run = np.zeros(_BATCH)
        part = values[begin : begin + _BATCH]
        run[: len(part)] = part
        run *= run
        # A library's own sum may add in an order that depends on the width of the processor's vectors.
        while len(run) > 1:
            run = run[: len(run) // 2] + run[len(run) // 2 :]
        sums.append(float(run[0]))
    return sums


def root_of(sums: Iterable[float]) -> float:
    """The norm that ``squares`` make; in which order they come does not matter."""
    return sqrt(fsum(sums))


def clip_factors(norms: Sequence[float]) -> list[float]:
    """What contributions of these norms are multiplied by so that none is above the median of all, as SparseLoCo does
    (arXiv 2508.15706); 1 leaves one as it is."""
    limit = median(norms) if norms else 0.0
    return [limit / size if size > limit else 1.0 for size in norms]


def clip_to_median(contributions: Sequence[Contribution]) -> list[Contribution]:
    """Scale down every contribution whose norm is above the median of all norms; the others are passed on."""
    factors = clip_factors([norm(each) for each in contributions])
    return [scale(each, factor) for each, factor in zip(contributions, factors, strict=True)]


def scale(contribution: Contribution, factor: float) -> Contribution:
    """The contribution times the factor; itself when that is 1."""
    if factor == 1.0:
        return contribution
    if isinstance(contribution, torch.Tensor):
        return contribution * factor
    return replace(contribution, values=contribution.values * np.float32(factor))
