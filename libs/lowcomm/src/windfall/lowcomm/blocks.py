"""Dense codes of 8 and 4 bits: blocks of 256 elements, each with a scale of its own (absmax quantisation).

A block's scale is its largest magnitude divided by the largest code (127 or 7); an element is the nearest multiple of
it. A block that has nothing as large as 2⁻¹⁰⁰ is sent as zeros, so that scales are never subnormal. The last block may
be shorter.

Payload, little-endian, without lengths, because the number of elements gives them:

====  ================================================================================================================
type  meaning
====  ================================================================================================================
f32   one scale per block: finite, not negative, at most 2⁵⁰
i8    8 bits: one code per element, -127 to 127
u8    4 bits: two codes per byte, each 1 to 15 for -7 to 7. A block of ``w`` elements takes ``h = ceil(w / 2)`` bytes;
      byte ``i`` holds element ``i`` in its lower half and element ``h + i``, or 8 when there is none, in its upper half
====  ================================================================================================================

Error: at most 0.5001 · scale per element, or 2⁻¹⁰⁰ in a block sent as zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from windfall.lowcomm.codec import Buffer
from windfall.lowcomm.gradient import LIMIT, checked
from windfall.lowcomm.later import torch
from windfall.lowcomm.sections import Sections
from windfall.lowcomm.tiles import Tile, rows_of, tiles

if TYPE_CHECKING:
    from torch import Tensor

BLOCK: Final = 256
_ZERO: Final = np.float32(2.0**-100)
_LARGEST_CODE: Final = {8: 127, 4: 7}

Floats = npt.NDArray[np.float32]


def encode_blocks(gradient: Tensor, bits: int) -> bytes:
    """The payload of a fp32 vector ``[n]``.

    Raises:
        ValueError: as ``gradient.checked``.
    """
    values, largest_code = checked(gradient), np.float32(_LARGEST_CODE[bits])
    scales = np.empty(rows_of(len(values), BLOCK), np.float32)
    codes = np.empty(_bytes_of(len(values), bits), np.uint8)
    for tile in tiles(len(values), BLOCK):
        rows = values[tile.span].reshape(tile.shape)
        largest = np.maximum(rows.max(axis=1), -rows.min(axis=1))
        scale = np.where(largest < _ZERO, np.float32(0), largest / largest_code)
        scales[tile.first : tile.first + tile.rows] = scale
        inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
        nearest = np.rint(rows * inverse[:, None]).astype(np.int8)
        codes[_span(tile, bits)] = _pack(nearest, bits).ravel()
    return scales.astype("<f4", copy=False).tobytes() + codes.tobytes()


def decode_blocks(payload: Buffer, elements: int, bits: int) -> Tensor:
    """The vector, fp32 ``[elements]``.

    Raises:
        ValueError: no such payload, or not of a vector of that length.
    """
    sections = Sections(payload)
    scales = sections.raw(rows_of(elements, BLOCK), "<f4").astype(np.float32, copy=False)
    codes = sections.raw(_bytes_of(elements, bits), "u1")
    sections.end()
    if len(scales) and not (scales.min() >= 0 and scales.max() <= LIMIT):
        raise ValueError("the scale of a block is negative, not finite or too large")
    values = np.empty(elements, np.float32)
    for tile in tiles(elements, BLOCK):
        rows = values[tile.span].reshape(tile.shape)
        _unpack(codes[_span(tile, bits)].reshape(tile.rows, -1), rows, bits)
        rows *= scales[tile.first : tile.first + tile.rows, None]
    return torch.from_numpy(values)


def bytes_of_blocks(elements: int, bits: int) -> int:
    """Of the payload of a vector of so many elements."""
    return 4 * rows_of(elements, BLOCK) + _bytes_of(elements, bits)


def _bytes_of(elements: int, bits: int) -> int:
    return elements if bits == 8 else (elements + 1) // 2


def _span(tile: Tile, bits: int) -> slice:
    begin = tile.begin * bits // 8
    return slice(begin, begin + tile.rows * _bytes_of(tile.width, bits))


def _pack(nearest: npt.NDArray[np.int8], bits: int) -> npt.NDArray[np.uint8]:
    if bits == 8:
        return nearest.view(np.uint8)
    half = _bytes_of(nearest.shape[1], bits)
    shifted = (nearest + np.int8(8)).view(np.uint8)
    packed = shifted[:, :half].copy()
    packed[:, : nearest.shape[1] - half] |= shifted[:, half:] << np.uint8(4)
    packed[:, nearest.shape[1] - half :] |= np.uint8(8 << 4)
    return packed


def _unpack(packed: npt.NDArray[Any], rows: Floats, bits: int) -> None:
    """Write codes as numbers into ``rows``, and refuse those that no encoder writes."""
    if bits == 8:
        codes = packed.view(np.int8)
        if codes.min() < -_LARGEST_CODE[bits]:
            raise ValueError("a code of 8 bits is -128")
        rows[...] = codes
        return
    half = packed.shape[1]
    lower, upper = packed & np.uint8(15), packed >> np.uint8(4)
    if lower.min() == 0 or upper.min() == 0 or (rows.shape[1] < 2 * half and upper[-1, -1] != 8):
        raise ValueError("a code of 4 bits is 0, or stands behind the last element")
    np.subtract(lower.view(np.int8), np.int8(8), out=rows[:, :half], dtype=np.int8, casting="unsafe")
    rest = rows.shape[1] - half
    np.subtract(upper[:, :rest].view(np.int8), np.int8(8), out=rows[:, half:], dtype=np.int8, casting="unsafe")
