"""Dense codes of 2 bits with error feedback (the statistical quantiser of MuLoCo, arXiv 2505.23725).

A chunk of 4096 elements is cut at its mean µ and at µ ± 1.5 σ into four bins, six σ over four; what travels is the bin
of every element, and of every bin the mean of the elements in it. What the means miss stays in the error feedback.

Payload, little-endian, for ``c = ceil(n / 4096)`` chunks:

========  ===========================================================================================================
type      meaning
========  ===========================================================================================================
u16       four bf16 levels per chunk: inner below µ, outer below, inner above, outer above
squeezed  codes, 0 to 3 in the order of the levels: byte ``i`` holds those of elements ``4 i`` to ``4 i + 3`` from its
          lowest bits upwards, and 0 for those that do not exist (``windfall.lowcomm.sections``)
========  ===========================================================================================================

Of a bell curve's elements 87 % are inner ones, so Huffman coding leaves about 1.6 of the 2 bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from windfall.lowcomm.codec import Buffer
from windfall.lowcomm.halves import from_halves, to_halves
from windfall.lowcomm.later import torch
from windfall.lowcomm.sections import Sections, most_squeezed, squeeze
from windfall.lowcomm.tiles import Tile, rows_of, tiles

if TYPE_CHECKING:
    from torch import Tensor

CHUNK: Final = 4096
_BORDER: Final = np.float32(1.5)
_LEVELS: Final = 4

Floats = npt.NDArray[np.float32]


def send_bins(total: Floats) -> bytes:
    """Encode a finite vector ``[n]``, and subtract from it what the receiver will read."""
    halves = np.zeros((rows_of(len(total), CHUNK), _LEVELS), np.uint16)
    codes = np.empty(_bytes_of(len(total)), np.uint8)
    for tile in tiles(len(total), CHUNK):
        rows = total[tile.span].reshape(tile.shape)
        bins = _bins(rows)
        sent = to_halves(_means(rows, bins))
        halves[tile.first : tile.first + tile.rows] = sent
        packed = _pack(bins)
        codes[_span(tile)] = packed.ravel()
        rows -= _look_up(packed, from_halves(sent.ravel()).reshape(-1, _LEVELS), tile.width)
    return halves.astype("<u2", copy=False).tobytes() + squeeze(codes.data)


def read_bins(payload: Buffer, elements: int) -> Tensor:
    """The vector, fp32 ``[elements]``.

    Raises:
        ValueError: no such payload, or not of a vector of that length.
    """
    sections = Sections(payload)
    halves = sections.raw(_LEVELS * rows_of(elements, CHUNK), "<u2").astype(np.uint16, copy=False)
    levels = from_halves(halves).reshape(-1, _LEVELS)
    codes = sections.squeezed(_bytes_of(elements), _bytes_of(elements))
    sections.end()
    if elements % 4 and codes[-1] >> 2 * (elements % 4):
        raise ValueError("a code stands behind the last element")
    values = np.empty(elements, np.float32)
    for tile in tiles(elements, CHUNK):
        packed = codes[_span(tile)].reshape(tile.rows, -1)
        values[tile.span] = _look_up(packed, levels[tile.first : tile.first + tile.rows], tile.width).ravel()
    return torch.from_numpy(values)


def _bins(rows: Floats) -> npt.NDArray[np.uint8]:
    width = np.float32(rows.shape[1])
    mean = rows.sum(axis=1, keepdims=True) / width
    away = rows - mean
    border = np.sqrt(np.einsum("ij,ij->i", away, away)[:, None] / width) * _BORDER
    above = (away >= 0).view(np.uint8)
    outer = (np.abs(away, out=away) > border).view(np.uint8)
    bins: npt.NDArray[np.uint8] = above << np.uint8(1) | outer
    return bins


def _means(rows: Floats, bins: npt.NDArray[np.uint8]) -> Floats:
    """The mean of the elements in every bin, ``[rows, 4]``; 0 of an empty one."""
    means = np.zeros((len(rows), _LEVELS), np.float32)
    for code in range(_LEVELS):
        inside = (bins == code).astype(np.float32)
        many = inside.sum(axis=1)
        np.divide(np.einsum("ij,ij->i", rows, inside), many, out=means[:, code], where=many > 0)
    return means


def most_bytes_of_bins(elements: int) -> int:
    """No payload of a vector of so many elements is longer."""
    return 2 * _LEVELS * rows_of(elements, CHUNK) + most_squeezed(_bytes_of(elements))


def _bytes_of(elements: int) -> int:
    return -(-elements // 4)


def _span(tile: Tile) -> slice:
    begin = tile.begin // 4
    return slice(begin, begin + tile.rows * -(-tile.width // 4))


def _pack(bins: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    padded = np.zeros((len(bins), -(-bins.shape[1] // 4) * 4), np.uint8)
    padded[:, : bins.shape[1]] = bins
    # Four codes as one 32-bit word: shifting them over each other packs all four at once.
    words = padded.view("<u4").astype(np.uint32, copy=False)
    words |= words >> np.uint32(6)
    words |= words >> np.uint32(12)
    return words.astype(np.uint8)


def _look_up(packed: npt.NDArray[Any], levels: Floats, width: int) -> Floats:
    """The level of every code, ``[rows, width]``: per row, a table of the four numbers that each byte means."""
    values = np.empty((len(packed), 4 * packed.shape[1]), np.float32)
    for row, table, out in zip(packed, levels, values.view(_FOUR), strict=True):
        np.take(table[_CODES_OF_BYTE].view(_FOUR).ravel(), row, out=out, mode="clip")
    return values[:, :width]


_FOUR: Final = np.complex128
"""Four fp32 numbers that numpy moves as one."""

_CODES_OF_BYTE: Final = np.arange(256)[:, None] >> np.array([0, 2, 4, 6]) & 3
