"""How a flat vector travels: dense codecs, in which any run of whole elements can be decoded alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from windfall.lowcomm.later import torch

if TYPE_CHECKING:
    from torch import Tensor

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Codec:
    """An elementwise code of a fixed number of little-endian bytes per element.

    ``encode`` takes a contiguous fp32 chunk ``[n]`` and returns ``n * bytes_per_element`` bytes, which may be a view
    of the chunk's own memory. ``decode`` takes such bytes and returns a fp32 chunk ``[n]``, which may take over the
    memory of a writable buffer, and raises ``ValueError`` when they are not whole elements. Encoding a vector in pieces
    gives the pieces of its code.
    """

    name: str
    bytes_per_element: int
    encode: Callable[[Tensor], memoryview]
    decode: Callable[[Buffer], Tensor]
    finite: Callable[[Buffer], bool]
    """Whether every encoded value is a finite number; cheaper than decoding, for whoever only checks what arrives."""


def _encode_fp32(chunk: Tensor) -> memoryview:
    return _chunk(chunk).numpy().astype("<f4", copy=False).view(np.uint8).data


def _decode_fp32(data: Buffer) -> Tensor:
    # The bytes of a message are read-only, and a tensor must not be: they are copied. A writable buffer is taken over.
    return torch.from_numpy(_elements(data, "<f4").astype(np.float32, copy=memoryview(data).readonly))


def _encode_bf16(chunk: Tensor) -> memoryview:
    # torch rounds to nearest even and keeps NaN a NaN, as the upper half of an IEEE 754 single must.
    upper = _chunk(chunk).to(torch.bfloat16).view(torch.int16)
    return upper.numpy().astype("<i2", copy=False).view(np.uint8).data


def _decode_bf16(data: Buffer) -> Tensor:
    single = _elements(data, "<u2").astype(np.uint32)
    single <<= 16
    return torch.from_numpy(single.view(np.float32))


def _finite_fp32(data: Buffer) -> bool:
    values = _elements(data, "<f4").astype(np.float32, copy=False)
    # One pass without a temporary: a sum of finite values is finite unless it overflows, and then we look closely.
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(values.sum()) or np.isfinite(values).all())


def _finite_bf16(data: Buffer) -> bool:
    return bool(((_elements(data, "<u2").astype(np.uint16, copy=False) & 0x7F80) != 0x7F80).all())


def _chunk(chunk: Tensor) -> Tensor:
    if chunk.dtype != torch.float32 or chunk.ndim != 1 or not chunk.is_contiguous():
        raise ValueError(f"expected a contiguous fp32 vector, got {chunk.dtype} of shape {list(chunk.shape)}")
    return chunk.detach()


def _elements(data: Buffer, dtype: str) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
    size = np.dtype(dtype).itemsize
    nbytes = memoryview(data).nbytes
    if nbytes % size:
        raise ValueError(f"{nbytes} bytes are not whole elements of {size} bytes")
    return np.frombuffer(data, dtype)


CODECS: Final[dict[str, Codec]] = {
    "fp32": Codec("fp32", 4, _encode_fp32, _decode_fp32, _finite_fp32),
    "bf16": Codec("bf16", 2, _encode_bf16, _decode_bf16, _finite_bf16),
}
"""Every codec by its name on the wire. ``fp32`` is exact; ``bf16`` keeps 8 bits of mantissa, half the bytes."""
