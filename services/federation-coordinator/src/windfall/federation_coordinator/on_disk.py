"""Contributions as they lie on disk: read when they are looked at, and no more of them than is looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import FileIO
from os import preadv
from pathlib import Path
from sys import byteorder
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt

from windfall.federation_coordinator.durable import RESTORE
from windfall.lowcomm.codec import CODECS
from windfall.lowcomm.contribution import decode
from windfall.lowcomm.rule import Rule, Split
from windfall.lowcomm.sparse import Contribution
from windfall.lowcomm.wire import HEADER_BYTES, Header, head
from windfall.servicekit.errors import ExitCode, Mistake

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Runs:
    """A contribution in codecs that code every element alone: any run of it can be read without the rest."""

    file: FileIO
    elements: Split
    codec: str
    """Of the part that gradients move; the exact part is fp32."""

    def read(self, part: slice, start: int, into: Floats) -> None:
        """Fill ``into``, fp32 ``[count]``, from element ``start`` of the vector, which lies in ``part``.

        Raises:
            Mistake: the file is shorter than the model.
        """
        codec = CODECS[self._codec(part)]
        begin = 0
        for one in self.elements.parts:
            begin += HEADER_BYTES
            if one == part:
                break
            begin += (one.stop - one.start) * CODECS[self._codec(one)].bytes_per_element
        begin += (start - part.start) * codec.bytes_per_element
        if codec.name == "fp32":
            read_floats(self.file, begin, into)
        else:
            encoded = bytearray(len(into) * codec.bytes_per_element)
            fill(self.file, begin, memoryview(encoded))
            into[:] = codec.decode(encoded).numpy()

    def _codec(self, part: slice) -> str:
        return self.codec if part.stop <= self.elements.trained else "fp32"


class Parts(Sequence[Contribution]):
    """The parts of a contribution in any codec, read and decoded each time that they are looked at."""

    def __init__(self, path: Path, rule: Rule, elements: Split, codec: str) -> None:
        self._path = path
        self._codecs: list[Header] = []
        self._begins: list[tuple[int, int]] = []
        begin = 0
        with path.open("rb", buffering=0) as file:
            for fragment, part in enumerate(elements.parts):
                raw = bytearray(HEADER_BYTES)
                fill(file, begin, memoryview(raw))
                header, size, _ = head(raw, max_elements=part.stop - part.start)
                rule.check(header, fragment, elements, codec)
                self._codecs.append(header)
                self._begins.append((begin + HEADER_BYTES, size))
                begin += HEADER_BYTES + size

    def __len__(self) -> int:
        return len(self._codecs)

    @overload
    def __getitem__(self, index: int) -> Contribution: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Contribution]: ...
    def __getitem__(self, index: int | slice) -> Contribution | Sequence[Contribution]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        header, (begin, size) = self._codecs[index], self._begins[index]
        payload = bytearray(size)
        with self._path.open("rb", buffering=0) as file:
            fill(file, begin, memoryview(payload))
        return decode(header.codec, payload, header.elements)


def read_floats(file: FileIO, begin: int, into: Floats) -> None:
    """Fill a fp32 vector from its little-endian bytes that begin there in a file.

    Raises:
        Mistake: as ``fill``.
    """
    fill(file, begin, into.view(np.uint8).data)
    if byteorder == "big":
        into.byteswap(inplace=True)


def fill(file: FileIO, begin: int, view: memoryview) -> None:
    """Read as many bytes as the view has. The file's own position is left alone, so that threads may share it.

    Raises:
        Mistake: the file ends before.
    """
    filled = 0
    while filled < view.nbytes:
        read = preadv(file.fileno(), [view[filled:]], begin + filled)
        if not read:
            raise Mistake(f"{file.name!r} is shorter than the model", RESTORE, ExitCode.RESOURCE)
        filled += read


def raw(vector: Tensor) -> memoryview:
    """The little-endian bytes of a fp32 vector."""
    return vector.numpy().astype("<f4", copy=False).data.cast("B")
