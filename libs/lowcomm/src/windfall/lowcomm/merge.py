"""How contributions become one pseudo-gradient."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def weighted_mean(chunks: Sequence[Tensor], weights: Sequence[int]) -> Tensor:
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

    total = sum(weights)
    mean = torch.mul(chunks[0], weights[0] / total)
    scaled = torch.empty_like(mean)
    for chunk, weight in zip(chunks[1:], weights[1:], strict=True):
        # Two kernels on purpose; see the package's docstring on fused operations.
        torch.mul(chunk, weight / total, out=scaled)
        mean.add_(scaled)
    return mean


def streamed_mean(chunks: Iterable[Tensor], weights: Sequence[int]) -> Tensor:
    """``weighted_mean``, to the same bits, of chunks of which only one need exist at a time: pass a generator that
    decodes them, and the mean takes three vectors of memory however many contributions there are.

    Raises:
        ValueError: as ``weighted_mean``.
    """
    total = sum(weights)
    mean = scaled = torch.empty(0)
    count = 0
    for count, chunk in enumerate(chunks, 1):
        if count > len(weights) or weights[count - 1] <= 0:
            raise ValueError("a mean needs one weight per chunk, a positive number of tokens")
        if chunk.dtype != torch.float32 or (count > 1 and chunk.shape != mean.shape):
            raise ValueError(f"chunks are fp32 of one shape, got {chunk.dtype}{list(chunk.shape)}")
        if count == 1:
            mean, scaled = torch.mul(chunk, weights[0] / total), torch.empty_like(chunk)
        else:
            mean.add_(torch.mul(chunk, weights[count - 1] / total, out=scaled))
    if not count or count != len(weights):
        raise ValueError(f"a mean needs one weight per chunk and at least one, got {count} and {len(weights)}")
    return mean
