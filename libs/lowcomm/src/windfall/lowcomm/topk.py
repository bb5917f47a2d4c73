"""The largest coordinates of every chunk of a vector, as bytes (SparseLoCo, arXiv 2508.15706).

A chunk is a run of 4096 elements (the last one may be shorter) of which the 64 largest in magnitude are kept, the
earlier one when two are equal; of a shorter chunk as many in proportion, rounded up. A kept value travels as its sign
and, with two levels, one bit that says which of the chunk's two magnitudes stands for it, each the mean of the values
it stands for. Halfway between them would be the border of least error (Lloyd); at six tenths large values are rarer,
so that after Huffman coding the bit costs 0.7 instead of 0.8 bit, and the squared error grows by a twentieth only.

Payload, little-endian; ``m`` kept coordinates in ``c`` chunks, sections as in ``windfall.lowcomm.sections``:

=========  ==========================================================================================================
type       meaning
=========  ==========================================================================================================
u16        elements of a whole chunk, at least 1
u16        kept of a whole chunk, at least 1 and at most the chunk
u8         levels of magnitude per chunk, 1 or 2
squeezed   the gaps between kept positions (``windfall.lowcomm.positions``)
raw        ``ceil(m / 8)`` bytes: signs, bit ``i mod 8`` of byte ``i div 8`` set when value ``i`` is negative
squeezed   with two levels: ``ceil(m / 8)`` bytes, the same for "the larger level"
squeezed   ``levels · c`` bytes: the upper halves of the levels' bf16, chunk after chunk, smaller level first
squeezed   ``levels · c`` bytes: their lower halves
=========  ==========================================================================================================
"""

import struct
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from windfall.lowcomm.codec import Buffer
from windfall.lowcomm.halves import from_halves, to_halves
from windfall.lowcomm.positions import gaps_of, most_bytes, positions_of
from windfall.lowcomm.sections import Sections, most_squeezed, squeeze
from windfall.lowcomm.tiles import rows_of, tiles

_HEAD: Final = struct.Struct("<HHB")
_LLOYD_ROUNDS: Final = 3
_BORDER: Final = np.float32(0.6)
_SIGNIFICANT_BITS: Final = 5
"""Of a level. The values around it spread far wider than its rounding, which error feedback returns anyway."""

Floats = npt.NDArray[np.float32]
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class TopK:
    """How much of a vector is kept, and how exactly.

    Raises:
        ValueError: ``keep`` is not in 1..``chunk``, ``chunk`` is above 65535, or ``levels`` is neither 1 nor 2.
    """

    chunk: int = 4096
    keep: int = 64
    levels: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.keep <= self.chunk < 2**16 or self.levels not in (1, 2):
            raise ValueError(f"cannot keep {self.keep} of {self.chunk} elements with {self.levels} levels")

    def kept(self, elements: int) -> int:
        """How many coordinates of a vector are kept."""
        whole, rest = divmod(elements, self.chunk)
        return whole * self.keep + self.kept_of_last(rest)

    def kept_of_last(self, rest: int) -> int:
        """How many of a last chunk of ``rest`` elements."""
        return -(-rest * self.keep // self.chunk)

    def most_bytes(self, elements: int) -> int:
        """No payload of a vector of so many elements is longer."""
        count = self.kept(elements)
        bits, planes = -(-count // 8), self.levels * rows_of(elements, self.chunk)
        squeezed = (most_bytes(count, elements), *((bits,) if self.levels == 2 else ()), planes, planes)
        return _HEAD.size + bits + sum(map(most_squeezed, squeezed))


def send_largest(total: Floats, rule: TopK) -> bytes:
    """Encode the largest coordinates of a finite vector ``[n]``, and subtract from it what the receiver will read.

    What stays in ``total`` is the error: sent + left = what was there, up to one fp32 rounding per kept coordinate.
    """
    positions = _largest(total, rule)
    values = total[positions]
    halves, upper = _levels(np.abs(values), rule)
    negative = np.signbit(values)
    total[positions] -= _values(from_halves(halves), upper, negative, rule)

    planes = halves.astype("<u2").view(np.uint8)
    return b"".join(
        (
            _HEAD.pack(rule.chunk, rule.keep, rule.levels),
            squeeze(gaps_of(positions).data),
            np.packbits(negative, bitorder="little").data,
            squeeze(np.packbits(upper, bitorder="little").data) if rule.levels == 2 else b"",
            squeeze(planes[1::2].copy().data),
            squeeze(planes[0::2].copy().data),
        )
    )


def read_largest(payload: Buffer, elements: int) -> tuple[Positions, Floats]:
    """Positions, strictly increasing, and values of what was kept of a vector of ``elements``.

    Raises:
        ValueError: no such payload, or not of a vector of that length.
    """
    sections = Sections(payload)
    rule = TopK(*sections.unpack(_HEAD))
    count, chunks = rule.kept(elements), rows_of(elements, rule.chunk)
    positions = positions_of(sections.squeezed(count, most_bytes(count, elements)), count, elements)
    _check_chunks(positions, elements, rule)
    negative = _bits(sections.raw(-(-count // 8), "u1"), count)
    upper = np.zeros(count, np.bool_)
    if rule.levels == 2:
        upper = _bits(sections.squeezed(-(-count // 8), -(-count // 8)), count)
    high = sections.squeezed(rule.levels * chunks, rule.levels * chunks)
    low = sections.squeezed(rule.levels * chunks, rule.levels * chunks)
    sections.end()
    if len(high) and int(high.max()) >= 0x80:
        raise ValueError("a level is negative")
    levels = from_halves(high.astype(np.uint16) << np.uint16(8) | low)
    return positions, _values(levels, upper, negative, rule)


def _largest(total: Floats, rule: TopK) -> Positions:
    found = [np.empty(0, np.int64)]
    for tile in tiles(len(total), rule.chunk):
        keep = rule.keep if tile.width == rule.chunk else rule.kept_of_last(tile.width)
        # The bits of a finite fp32 magnitude are an integer in the same order, and integers partition faster.
        magnitude = total[tile.span].view(np.int32).reshape(tile.shape) & np.int32(0x7FFFFFFF)
        border = np.partition(magnitude, -keep, axis=1)[:, -keep, None]
        chosen = magnitude >= border
        positions = np.flatnonzero(chosen)
        if len(positions) > keep * tile.rows:
            for row in np.flatnonzero(np.count_nonzero(chosen, axis=1) > keep):
                above = magnitude[row] > border[row]
                equal = np.flatnonzero(magnitude[row] == border[row])
                chosen[row] = above
                chosen[row, equal[: keep - np.count_nonzero(above)]] = True
            positions = np.flatnonzero(chosen)
        found.append(positions + tile.begin)
    return np.concatenate(found)


def _levels(magnitudes: Floats, rule: TopK) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    """Codes of the levels, ``[levels · chunks]``, and which values belong to the larger one, ``[m]``."""
    whole = len(magnitudes) // rule.keep * rule.keep
    # The kept of a last, shorter chunk are fewer than of a whole one, or as many: then they are a row like any other.
    rows = (magnitudes[:whole].reshape(-1, rule.keep), magnitudes[None, whole:])
    found = [_levels_of_rows(each, rule.levels) for each in rows if each.size]
    if not found:
        return np.empty(0, np.uint16), np.empty(0, np.bool_)
    return np.concatenate([halves for halves, _ in found]), np.concatenate([upper for _, upper in found])


def _levels_of_rows(rows: Floats, levels: int) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    width = rows.shape[1]
    sums = rows.sum(axis=1, keepdims=True)
    if levels == 1:
        return to_halves((sums / np.float32(width)).ravel(), _SIGNIFICANT_BITS), np.zeros(rows.size, np.bool_)
    least = rows.min(axis=1, keepdims=True)
    # The tail of a bell curve is nearly exponential, whose best border lies at 1.59 means: a good place to start.
    border = least + (sums / np.float32(width) - least) * np.float32(1.6)
    for _ in range(_LLOYD_ROUNDS):
        upper = rows > border
        many = upper.sum(axis=1, keepdims=True, dtype=np.float32)
        above = np.where(upper, rows, np.float32(0)).sum(axis=1, keepdims=True)
        small = np.where(upper, np.float32(0), rows).sum(axis=1, keepdims=True) / np.maximum(width - many, 1)
        large = np.where(many > 0, above / np.maximum(many, 1), small)
        border = small + (large - small) * _BORDER
    return to_halves(np.concatenate([small, large], axis=1).ravel(), _SIGNIFICANT_BITS), upper.ravel()


def _values(levels: Floats, upper: npt.NDArray[np.bool_], negative: npt.NDArray[np.bool_], rule: TopK) -> Floats:
    index = np.arange(len(upper)) // rule.keep * rule.levels
    if rule.levels == 2:
        index += upper
    magnitudes: Floats = levels[index]
    return np.where(negative, -magnitudes, magnitudes)


def _check_chunks(positions: Positions, elements: int, rule: TopK) -> None:
    whole = elements // rule.chunk
    firsts, lasts = positions[:: rule.keep], positions[rule.keep - 1 :: rule.keep]
    begins = np.arange(whole) * rule.chunk
    inside = (firsts[:whole] >= begins) & (lasts[:whole] < begins + rule.chunk)
    if not inside.all() or (len(firsts) > whole and firsts[whole] < whole * rule.chunk):
        raise ValueError("a chunk has more or fewer positions than it keeps")


def _bits(packed: npt.NDArray[Any], count: int) -> npt.NDArray[np.bool_]:
    if count % 8 and packed[-1] >> (count % 8):
        raise ValueError("bits are set behind the last value")
    return np.unpackbits(packed, count=count, bitorder="little").view(np.bool_)
