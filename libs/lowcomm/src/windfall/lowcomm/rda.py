"""Radial-directional averaging of dense contributions (Decoupled DiLoCo, arXiv 2604.21428)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from math import fsum
from typing import TYPE_CHECKING, Final

from windfall.lowcomm.clip import norm
from windfall.lowcomm.merge import streamed_mean

if TYPE_CHECKING:
    from torch import Tensor

_NOTHING: Final = 2.0**-100


def radial_directional_mean(chunks: Iterable[Tensor], weights: Sequence[float], tensors: Sequence[slice]) -> Tensor:
    """Per tensor: the weighted mean of the norms, along the weighted mean of the directions.

    A plain mean of many sites is short, because what they disagree about cancels; this one keeps their length. It adds
    up in the order given.

    Args:
        chunks: fp32 ``[n]`` each. They are walked through twice, and only one need exist at a time.
        weights: tokens, one positive number per chunk.
        tensors: where each tensor lies that is averaged so; the rest (embeddings, by advice) is averaged plainly.

    Raises:
        ValueError: as ``weighted_mean``.
    """
    norms = [[norm(chunk[span]) for span in tensors] for chunk in chunks]
    mean = streamed_mean(_directions(chunks, norms, tensors), weights)
    total = fsum(weights)
    for span, sizes in zip(tensors, zip(*norms, strict=True), strict=True):
        length = norm(mean[span])
        radius = fsum(size * weight for size, weight in zip(sizes, weights, strict=True)) / total
        mean[span] *= radius / length if length > _NOTHING else 0.0
    return mean


def _directions(
    chunks: Iterable[Tensor], norms: Sequence[Sequence[float]], tensors: Sequence[slice]
) -> Iterator[Tensor]:
    for chunk, sizes in zip(chunks, norms, strict=True):
        directed = chunk.clone()
        for span, size in zip(tensors, sizes, strict=True):
            directed[span] *= 1 / size if size > _NOTHING else 0.0
        yield directed
