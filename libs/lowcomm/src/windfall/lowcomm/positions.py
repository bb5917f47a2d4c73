"""Sorted positions as bytes: the gaps between them, ready for Huffman coding.

A gap is how many elements lie between two positions (or before the first). It is written as as many bytes 255 as it
holds 255s, and then the rest in one byte below 255. Positions drawn at random leave gaps with a geometric
distribution, which has no memory, so splitting off 255s costs nothing; and Huffman codes of bytes take 7.47 bits per
position where no code of random positions can take less than log2(C(4096, 64)) / 64 = 7.36. Measured beside it:
DEFLATE with matches 7.50, the best Rice code 7.53.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

_MORE = 255


def gaps_of(positions: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """The bytes of strictly increasing positions, counted from 0."""
    gaps = np.diff(positions, prepend=np.int64(-1)) - 1
    more, last = np.divmod(gaps, _MORE)
    bytes_ = np.full(len(gaps) + int(more.sum()), _MORE, np.uint8)
    bytes_[np.arange(len(gaps)) + np.cumsum(more)] = last
    return bytes_


def positions_of(bytes_: npt.NDArray[np.uint8], count: int, elements: int) -> npt.NDArray[np.int64]:
    """The positions, strictly increasing by construction.

    Raises:
        ValueError: not ``count`` whole positions, or one of ``elements`` or more.
    """
    ends = bytes_ != _MORE
    if int(np.count_nonzero(ends)) != count or (count and not ends[-1]) or (not count and len(bytes_)):
        raise ValueError(f"the gaps do not make {count} positions")
    walked = bytes_.astype(np.int64)
    walked += ends
    np.cumsum(walked, out=walked)
    positions: npt.NDArray[Any] = walked[ends] - 1
    if count and positions[-1] >= elements:
        raise ValueError(f"position {positions[-1]} lies outside of {elements} elements")
    return positions


def most_bytes(count: int, elements: int) -> int:
    """What the gaps of ``count`` positions among ``elements`` need at most."""
    return count + elements // _MORE
