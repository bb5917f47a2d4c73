"""A file that is long in the writing. The disk begins with each stretch of it while the next one comes, so that the
fsync at the end finds little left to wait for."""

import ctypes
import os
from collections.abc import Sequence
from io import SEEK_END, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STRETCH: Final = 8 * 1024 * 1024
_SYNC_FILE_RANGE_WRITE: Final = 2
_sync_file_range: Final = getattr(ctypes.CDLL(None), "sync_file_range", None)


class Streamed(FileIO):
    """Unbuffered. What is written goes to the end of the file.

    Args:
        mode: ``wb`` begins anew, ``a+b`` goes on from what is there and can be read as well.
    """

    def __init__(self, path: Path, mode: Literal["wb", "a+b"]) -> None:
        super().__init__(path, mode)
        self._end = self._begun = self.seek(0, SEEK_END)

    def write(self, data: "ReadableBuffer", /) -> int:
        count = super().write(data)
        self._wrote(count)
        return count

    def append(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Write all of several pieces, in one call to the system where it takes them in one."""
        rest = [memoryview(piece) for piece in pieces if len(piece)]
        while rest:
            count = os.writev(self.fileno(), rest)
            self._wrote(count)
            while rest and count >= rest[0].nbytes:
                count -= rest.pop(0).nbytes
            if count:
                rest[0] = rest[0][count:]

    def _wrote(self, count: int) -> None:
        self._end += count
        if self._end - self._begun >= _STRETCH:
            _begin_writeback(self.fileno(), self._begun, self._end - self._begun)
            self._begun = self._end


def _begin_writeback(descriptor: int, start: int, count: int) -> None:
    """Ask the system to begin writing these bytes to disk (sync_file_range(2)). Nothing depends on it: where it is not
    there or does not work, the fsync takes longer and says what is wrong."""
    if _sync_file_range is not None:
        _sync_file_range(descriptor, ctypes.c_int64(start), ctypes.c_int64(count), _SYNC_FILE_RANGE_WRITE)
