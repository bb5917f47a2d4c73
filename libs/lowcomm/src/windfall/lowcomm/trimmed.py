"""The coordinate-wise trimmed mean (Yin et al. 2018, arXiv 1803.01498, definition 2)."""

from math import ceil
from typing import Final

import numpy as np

from windfall.lowcomm.columns import Floats, Pick

_ROUNDING: Final = 1e-9
"""A share of 0.07 of a hundred sites is seven of them, whatever the last bit of the product says."""


def trimmed_mean(share: float = 0.2) -> Pick:
    """At every coordinate the mean of what is left of ``c`` sites without the ⌈share · c⌉ least and as many largest.

    It is not weighted, because a liar may claim any number of tokens. While at most that many lie, the result lies
    between the least and the largest that an honest site says, and it errs less than a median where few lie. When so
    many cannot be left out, as many are as leave one or two: of one or two sites it is the plain mean, of three or four
    with a share up to a quarter one is left out at either end.

    Raises:
        ValueError: ``share`` is not in [0, 0.5).
    """
    if not 0 <= share < 0.5:
        raise ValueError(f"the share that is left out at either end is at least 0 and below 0.5, not {share}")

    def pick(ordered: Floats) -> Floats:
        left_out = min(ceil(share * len(ordered) - _ROUNDING), (len(ordered) - 1) // 2)
        kept = ordered[left_out : len(ordered) - left_out]
        total = kept[0].astype(np.float64)
        for row in kept[1:]:
            total += row
        mean: Floats = (total / len(kept)).astype(np.float32)
        return mean

    return pick
