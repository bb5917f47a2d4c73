"""The parts of a payload, end to end: raw runs of known length, and runs squeezed by order-0 Huffman coding.

A squeezed section is a u32 and then bytes. The upper bit of the u32 says that they are stored as they are; otherwise
they are one raw DEFLATE stream (RFC 1951) made with Huffman coding alone, no matches. The lower 31 bits count them.

Without matches every byte costs at least one bit, so no honest stream grows more than eightfold: that bound is checked
before anything is inflated, and inflating stops at it.
"""

import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from windfall.lowcomm.codec import Buffer

_SIZE = struct.Struct("<I")
_STORED = 1 << 31


def squeeze(data: Buffer) -> bytes:
    """A squeezed section of whichever form is shorter.

    Raises:
        ValueError: 2 GiB or more.
    """
    size = memoryview(data).nbytes
    if size >= _STORED:
        raise ValueError(f"a section has less than {_STORED} bytes, not {size}")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    packed = packer.compress(data) + packer.flush()
    if len(packed) < size:
        return _SIZE.pack(len(packed)) + packed
    return _SIZE.pack(size | _STORED) + bytes(data)


def most_squeezed(size: int) -> int:
    """Bytes of the section of so many bytes, at most: it is stored as it is where that is shorter."""
    return _SIZE.size + size


class Sections:
    """Reads a payload from its beginning to its end; every method raises ``ValueError`` when the payload is short."""

    def __init__(self, payload: Buffer) -> None:
        self._rest = memoryview(payload).cast("B").toreadonly()

    def unpack(self, form: struct.Struct) -> tuple[Any, ...]:
        return form.unpack(self._take(form.size))

    def raw(self, count: int, dtype: str) -> npt.NDArray[Any]:
        """``count`` elements of a little-endian type, as a read-only view."""
        return np.frombuffer(self._take(count * np.dtype(dtype).itemsize), dtype)

    def squeezed(self, at_least: int, at_most: int) -> npt.NDArray[np.uint8]:
        """The bytes of a squeezed section, between ``at_least`` and ``at_most`` of them."""
        (word,) = self.unpack(_SIZE)
        packed = self._take(word & ~_STORED)
        if word & _STORED:
            data: Buffer = packed
        else:
            if packed.nbytes * 8 < at_least:
                raise ValueError(f"{packed.nbytes} bytes cannot hold {at_least} without matches")
            unpacker = zlib.decompressobj(-15)
            try:
                data = unpacker.decompress(packed, min(at_most, packed.nbytes * 8) + 1)
            except zlib.error as problem:
                raise ValueError(f"a section cannot be inflated: {problem}") from problem
            if not unpacker.eof or unpacker.unused_data:
                raise ValueError("a section is too long, or is followed by bytes that belong to nothing")
        if not at_least <= memoryview(data).nbytes <= at_most:
            raise ValueError(f"a section has {at_least} to {at_most} bytes, not {memoryview(data).nbytes}")
        return np.frombuffer(data, np.uint8)

    def end(self) -> None:
        """Refuse bytes behind the last section."""
        if self._rest.nbytes:
            raise ValueError(f"{self._rest.nbytes} bytes follow the payload's end")

    def _take(self, size: int) -> memoryview:
        if size > self._rest.nbytes:
            raise ValueError(f"the payload is cut short: {size} bytes expected, {self._rest.nbytes} left")
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken
