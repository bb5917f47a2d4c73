"""How contributions become one pseudo-gradient."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import fsum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from windfall.lowcomm.later import torch

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float32]

_CACHED_ELEMENTS = 1 << 16


def weighted_mean(chunks: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """The mean of contributions, weighted by the tokens that each was trained on: Σ (wᵢ / Σw) · xᵢ.

    It adds up in the order given, in fp32, so the caller sorts (by site and attempt) and gets the same bits whatever
    the order of arrival. A single contribution comes back exactly.

    Args:
        chunks: fp32 ``[n]`` each; they may be the same slice of longer vectors.
        weights: tokens, one positive number per chunk.

    Raises:
        ValueError: no chunks, lengths or dtypes differ, or a weight is not positive.
    """
    if not chunks or len(chunks) != len(weights):
        raise ValueError(f"a mean needs one weight per chunk and at least one, got {len(chunks)} and {len(weights)}")
    if refused := [weight for weight in weights if weight <= 0]:
        raise ValueError(f"a weight is a positive number of tokens, got {refused[0]}")
    shape = chunks[0].shape
    if any(chunk.shape != shape or chunk.dtype != torch.float32 for chunk in chunks):
        raise ValueError(f"chunks are fp32 of one shape, got {[f'{x.dtype}{list(x.shape)}' for x in chunks]}")

    total = fsum(weights)
    mean = torch.mul(chunks[0], weights[0] / total)
    scaled = torch.empty_like(mean)
    for chunk, weight in zip(chunks[1:], weights[1:], strict=True):
        # Two kernels on purpose; see the package's docstring on fused operations.
        torch.mul(chunk, weight / total, out=scaled)
        mean.add_(scaled)
    return mean


def add_share(mean: Floats, chunk: Floats, share: float) -> None:
    """mean ← mean + share · chunk, to the bits of ``weighted_mean`` when ``share`` is wᵢ / Σw; the chunk is used up."""
    np.multiply(chunk, np.float32(share), out=chunk)
    np.add(mean, chunk, out=mean)


def streamed_mean(chunks: Iterable[Tensor], weights: Sequence[float]) -> Tensor:
    """``weighted_mean``, to the same bits, of chunks of which only one need exist at a time: pass a generator that
    decodes them, and two vectors of memory are enough however many contributions there are.

    Raises:
        ValueError: as ``weighted_mean``.
    """
    total, count = fsum(weights), 0
    mean, scaled = torch.empty(0), torch.empty(_CACHED_ELEMENTS)
    for chunk in chunks:
        count += 1
        if count > len(weights) or weights[count - 1] <= 0:
            raise ValueError("a mean needs one weight per chunk, a positive number of tokens")
        if chunk.dtype != torch.float32 or (count > 1 and chunk.shape != mean.shape):
            raise ValueError(f"chunks are fp32 of one shape, got {chunk.dtype}{list(chunk.shape)}")
        weight = weights[count - 1] / total
        if count == 1:
            mean = torch.mul(chunk, weight)
        else:
            _add_scaled(mean, chunk, weight, scaled)
        del chunk  # or it would still lie there while the next one is decoded
    if not count or count != len(weights):
        raise ValueError(f"a mean needs one weight per chunk and at least one, got {count} and {len(weights)}")
    return mean


def _add_scaled(mean: Tensor, chunk: Tensor, weight: float, scaled: Tensor) -> None:
    """mean ← mean + weight · chunk in short runs, with ``scaled`` for what is between the two kernels."""
    for into, part in zip(torch.split(mean, len(scaled)), torch.split(chunk, len(scaled)), strict=True):
        into.add_(torch.mul(part, weight, out=scaled[: len(part)]))
