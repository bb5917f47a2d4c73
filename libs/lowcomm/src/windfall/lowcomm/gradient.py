"""What a codec accepts: a finite gradient, with what earlier rounds left unsent added to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from windfall.lowcomm.layout import check_flat

if TYPE_CHECKING:
    from torch import Tensor

LIMIT: Final = 2.0**50
"""No element of a sane gradient comes near it; below it no square, sum or mean of a chunk overflows in fp32."""


def checked(gradient: Tensor, elements: int | None = None) -> npt.NDArray[np.float32]:
    """The vector's own memory.

    Raises:
        ValueError: not a contiguous fp32 vector on the CPU (of so many elements), or an element is NaN, infinite or
            not below 2⁵⁰ in magnitude. The caller skips the contribution, counts it and says so.
    """
    check_flat(gradient, gradient.numel() if elements is None else elements)
    values: npt.NDArray[np.float32] = gradient.detach().numpy()
    _check_finite(values)
    return values


def accumulated(residual: Tensor, gradient: Tensor, decay: float) -> npt.NDArray[np.float32]:
    """Error feedback: β·e + Δ, in memory of its own, one rounding per multiplication and addition.

    Raises:
        ValueError: as ``checked``, of the gradient or of the sum.
    """
    total: npt.NDArray[np.float32] = np.multiply(residual.detach().numpy(), np.float32(decay))
    check_flat(gradient, len(total))
    # A NaN or an infinity in the gradient shows in the sum: one look at the sum is enough.
    total += gradient.detach().numpy()
    _check_finite(total)
    return total


def _check_finite(values: npt.NDArray[np.float32]) -> None:
    with np.errstate(invalid="ignore"):
        # Comparisons with NaN are false, and min and max of a vector with a NaN are NaN.
        sane = not len(values) or bool(values.min() > -LIMIT and values.max() < LIMIT)
    if not sane:
        raise ValueError("a gradient has an element that is NaN, infinite or absurdly large")
