"""Radial-directional averaging of dense contributions (Decoupled DiLoCo, arXiv 2604.21428)."""

from collections.abc import Iterable, Sequence
from typing import Final

import torch
from torch import Tensor

from windfall.lowcomm.clip import norm
from windfall.lowcomm.merge import weighted_mean

_NOTHING: Final = 2.0**-100


def radial_directional_mean(chunks: Sequence[Tensor], weights: Sequence[int], tensors: Iterable[slice]) -> Tensor:
    """Per tensor: the weighted mean of the norms, along the weighted mean of the directions.

    A plain mean of many sites is short, because what they disagree about cancels; this one keeps their length. It adds
    up in the order given.

    Args:
        chunks: fp32 ``[n]`` each.
        weights: tokens, one positive number per chunk.
        tensors: where each tensor lies that is averaged so; the rest (embeddings, by advice) is averaged plainly.

    Raises:
        ValueError: as ``weighted_mean``.
    """
    mean = weighted_mean(chunks, weights)
    for span in tensors:
        parts = [chunk[span] for chunk in chunks]
        norms = [norm(part) for part in parts]
        units = [part * (1 / size if size > _NOTHING else 0.0) for part, size in zip(parts, norms, strict=True)]
        direction = weighted_mean(units, weights)
        length = norm(direction)
        radius = sum(size * weight for size, weight in zip(norms, weights, strict=True)) / sum(weights)
        mean[span] = direction * (radius / length) if length > _NOTHING else torch.zeros_like(direction)
    return mean
