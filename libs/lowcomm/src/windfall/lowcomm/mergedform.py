"""What ``Rule.merge`` gave, as bytes that are exact to the bit: a round's contributions together, in one piece.

Little-endian, part by part in the order of ``Split.parts``; squeezed sections as in ``windfall.lowcomm.sections``:

======  ==============================================================================================================
type    meaning
======  ==============================================================================================================
u8      kind: 0 dense, 1 sparse, 2 sparse in coefficients of ``windfall.lowcomm.dct``
u64     elements of the part
f32     dense: every element; nothing else follows in this part
u64     sparse: ``m``, how many coordinates are known
u32     sparse: bytes of the gaps before they were squeezed
…       sparse: squeezed, the gaps between the positions (``windfall.lowcomm.positions``)
…       sparse: four squeezed runs of ``m`` bytes, the values' f32 byte by byte, the most significant first
======  ==============================================================================================================

A coordinate that one site alone sent has that site's few significant bits, so that the lower bytes squeeze well.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from windfall.lowcomm.codec import CODECS, Buffer
from windfall.lowcomm.gradient import LIMIT
from windfall.lowcomm.later import torch
from windfall.lowcomm.layout import Split
from windfall.lowcomm.positions import gaps_of, most_bytes, positions_of
from windfall.lowcomm.sections import Sections, squeeze
from windfall.lowcomm.sparse import Contribution, Sparse

if TYPE_CHECKING:
    from torch import Tensor

_DENSE, _SPARSE, _FREQUENCIES = 0, 1, 2
_PART: Final = struct.Struct("<BQ")
_KNOWN: Final = struct.Struct("<QI")
_LARGEST: Final = np.float32(LIMIT * 4)
"""No mean of what codecs may say is larger."""


def merged_form(parts: Sequence[Contribution], elements: Split) -> bytes:
    """What ``Rule.merge`` gave, exact to the bit.

    Raises:
        ValueError: the parts are not those of such a vector, or are too large to squeeze.
    """
    written = []
    for gradient, part in zip(parts, elements.parts, strict=True):
        size = part.stop - part.start
        if (gradient.elements if isinstance(gradient, Sparse) else gradient.numel()) != size:
            raise ValueError(f"a part has {size} elements; something else was merged")
        written.append(_dense(gradient) if isinstance(gradient, torch.Tensor) else _sparse(gradient))
    return b"".join(written)


def read_merged(section: Buffer, elements: Split) -> tuple[Contribution, ...]:
    """What ``merged_form`` wrote; it takes memory for one model at most.

    Raises:
        ValueError: no such bytes, or not about such a vector.
    """
    sections, found = Sections(section), list[Contribution]()
    for part in elements.parts:
        kind, size = sections.unpack(_PART)
        lossy = part.stop <= elements.trained
        if size != part.stop - part.start or kind > (_FREQUENCIES if lossy else _DENSE):
            raise ValueError(f"a merged part of kind {kind} and {size} elements is not one of this model")
        found.append(_read_sparse(sections, size, kind) if kind else _read_dense(sections, size))
    sections.end()
    return tuple(found)


def _dense(gradient: Tensor) -> bytes:
    return _PART.pack(_DENSE, gradient.numel()) + CODECS["fp32"].encode(gradient)


def _read_dense(sections: Sections, elements: int) -> Tensor:
    values = sections.raw(elements, "<f4").astype(np.float32)
    _check_values(values)
    return torch.from_numpy(values)


def _sparse(gradient: Sparse) -> bytes:
    gaps = gaps_of(gradient.positions)
    planes = gradient.values.astype("<f4", copy=False).view(np.uint8).reshape(-1, 4)
    return b"".join(
        (
            _PART.pack(_FREQUENCIES if gradient.dct else _SPARSE, gradient.elements),
            _KNOWN.pack(len(gradient.positions), len(gaps)),
            squeeze(gaps.data),
            *(squeeze(np.ascontiguousarray(planes[:, byte]).data) for byte in (3, 2, 1, 0)),
        )
    )


def _read_sparse(sections: Sections, elements: int, kind: int) -> Sparse:
    count, gaps = sections.unpack(_KNOWN)
    if count > elements or not count <= gaps <= most_bytes(count, elements):
        raise ValueError(f"{gaps} bytes of gaps do not hold {count} positions among {elements}")
    positions = positions_of(sections.squeezed(gaps, gaps), count, elements)
    planes = np.empty((count, 4), np.uint8)
    for byte in (3, 2, 1, 0):
        planes[:, byte] = sections.squeezed(count, count)
    values = planes.view("<f4").ravel().astype(np.float32, copy=False)
    _check_values(values)
    return Sparse(elements, positions, values, dct=kind == _FREQUENCIES)


def _check_values(values: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
    with np.errstate(invalid="ignore"):
        sane = not len(values) or bool(values.min() >= -_LARGEST and values.max() <= _LARGEST)
    if not sane:
        raise ValueError("a merged value is NaN, infinite or absurdly large")
