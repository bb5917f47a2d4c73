"""A pseudo-gradient that tells little of the data behind it: cut to a norm, and Gaussian noise on top."""

import numpy as np
import torch
from torch import Tensor

from windfall.lowcomm.layout import Split


def privatised(
    gradient: Tensor, elements: Split, norm: float, noise: float, dice: np.random.Generator | None = None
) -> Tensor:
    """The pseudo-gradient as it may be told (``accounting`` says how much it tells).

    The exact part, a model's buffers, has no norm to be cut to: nothing is said of it, and they stay as they are in the
    base.

    Args:
        gradient: base − local, fp32 ``[elements]``.
        norm: that it is cut down to when it is longer.
        noise: standard deviation of the noise in every element, as a multiple of ``norm``.
        dice: none takes fresh ones, seeded by the operating system.

    Raises:
        ValueError: the gradient is not finite: it could not be cut.
    """
    told = torch.zeros_like(gradient)
    moved = gradient[: elements.trained].double()
    length = float(moved.norm())
    if not np.isfinite(length):
        raise ValueError("NaN or infinity in what was trained")
    drawn = (dice or np.random.default_rng()).standard_normal(elements.trained)
    told[: elements.trained] = moved * min(1.0, norm / max(length, norm)) + torch.from_numpy(drawn) * (noise * norm)
    return told
