"""A vector of which only some coordinates are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

import numpy as np
import numpy.typing as npt

from windfall.lowcomm.dct import inverse_dct
from windfall.lowcomm.later import torch
from windfall.lowcomm.layout import check_flat

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Sparse:
    """``values[i]`` at ``positions[i]`` of a vector of ``elements``; elsewhere nothing was said.

    ``positions`` is int64 ``[m]``, strictly increasing; ``values`` is fp32 ``[m]``. With ``dct`` the coordinates are
    the coefficients of ``windfall.lowcomm.dct``, an orthonormal basis, so norms and means may be taken of either.
    """

    elements: int
    positions: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    dct: bool = False

    def dense(self) -> Tensor:
        """fp32 ``[elements]``, zero where nothing was said; to the same bits on every machine."""
        flat = np.zeros(self.elements, np.float32)
        flat[self.positions] = self.values
        return torch.from_numpy(inverse_dct(flat, out=flat) if self.dct else flat)


Contribution = Union["Tensor", Sparse]


def descend(base: Tensor, gradient: Sparse, lr: float = 1.0) -> Tensor:
    """The outer step of sparse codecs, plain averaging without momentum (arXiv 2508.15706): θ ← θ − α·Δ̄.

    Gives the bits of ``outer.average(lr)`` on ``gradient.dense()`` and touches only what changes.

    Raises:
        ValueError: the lengths differ.
    """
    check_flat(base, gradient.elements)
    if gradient.dct:
        step = gradient.dense().mul_(lr)
        return torch.sub(base, step, out=step)
    moved = base.detach().clone()
    moved.numpy()[gradient.positions] -= gradient.values * np.float32(lr)
    return moved
