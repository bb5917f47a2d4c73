"""bf16 numbers as 16-bit codes in numpy: the levels and scales of the lossy codecs."""

from typing import Final

import numpy as np
import numpy.typing as npt

from windfall.lowcomm.gradient import LIMIT

_LARGEST: Final = np.float32(LIMIT * 2).view(np.uint32) >> 16


def to_halves(values: npt.NDArray[np.float32], significant_bits: int = 8) -> npt.NDArray[np.uint16]:
    """Codes of finite numbers, rounded to nearest even at that many significant bits, 2 to 8: relative error at most
    2⁻ᵇ (for subnormal numbers, at most 2⁻¹²⁶⁻ᵇ). The bits of a code that are not significant are zero."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    dropped = np.uint32(24 - significant_bits)
    half = (bits >> dropped & np.uint32(1)) + ((np.uint32(1) << dropped - np.uint32(1)) - np.uint32(1))
    return ((bits + half) >> dropped << dropped - np.uint32(16)).astype(np.uint16)


def from_halves(codes: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The numbers, exactly.

    Raises:
        ValueError: one is NaN, infinite or larger than what may be encoded.
    """
    if len(codes) and int((codes & np.uint16(0x7FFF)).max()) > _LARGEST:
        raise ValueError("a level is not finite, or larger than any gradient may be")
    return (codes.astype(np.uint32) << np.uint32(16)).view(np.float32)
