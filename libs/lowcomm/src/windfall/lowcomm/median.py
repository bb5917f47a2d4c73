"""The coordinate-wise median (Yin et al. 2018, arXiv 1803.01498, definition 1)."""

import numpy as np

from windfall.lowcomm.columns import Floats


def median(ordered: Floats) -> Floats:
    """At every coordinate the middle of what ``c`` sites say, or the mean of the two in the middle.

    It is not weighted, because a liar may claim any number of tokens. While fewer than half of those who speak lie, the
    result lies between the least and the largest that an honest site says. It is defined for any number of sites: one
    comes back as it is, of two it is the plain mean, and liars are outvoted from three on.

    Args:
        ordered: fp32 ``[c, m]``, each column in ascending order, ``c`` at least 1.
    """
    low, high = ordered[(len(ordered) - 1) // 2], ordered[len(ordered) // 2]
    middle: Floats = (low + high) * np.float32(0.5)
    return middle
