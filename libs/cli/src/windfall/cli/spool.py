"""Columns of a trace on disk: written block by block, read one column at a time, gone with the process."""

import errno
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, overload

import numpy as np

from windfall.energy.column import Column, Levels
from windfall.energy.traces import Block, ends
from windfall.servicekit.errors import ExitCode, Mistake

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Spool(Sequence[Column]):
    """Columns of which one is in memory at a time, as exact as they were read; each access reads the disk.

    The file has no name, so that nothing of it is left however the process ends. It is written and read rather than
    mapped: a full disk is then an error and not a signal, and its pages are not counted as ours.

    Args:
        blocks: of at least two rows together.

    Raises:
        Mistake: no space, or no folder, for temporary files.
    """

    def __init__(self, blocks: Iterable[Block]) -> None:
        with _mistakes():
            file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - it lives as long as the spool
        weakref.finalize(self, file.close)
        self._fd, self._places, self._width = file.fileno(), list[tuple[int, int]](), 0
        times, at = [], 0
        for block in blocks:
            times.append(block.times)
            self._places.append((at, len(block.times)))
            self._width = len(block.values)
            with _mistakes():
                at += _write(self._fd, block.values)
        self._times = np.concatenate(times)
        self._end = ends(self._times)

    def __len__(self) -> int:
        return self._width

    @overload
    def __getitem__(self, place: int) -> Column: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[Column]: ...

    def __getitem__(self, place: int | slice) -> Column | Sequence[Column]:
        if isinstance(place, slice):
            return [self[each] for each in range(*place.indices(len(self)))]
        values = np.empty_like(self._times)
        filled, column = 0, range(self._width)[place]
        for at, rows in self._places:
            part = values[filled : filled + rows]
            _read(self._fd, part, at + column * part.nbytes)
            filled += rows
        return Column(self._times, values, self._end)


@contextmanager
def _mistakes() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        where = f"the folder for temporary files ({os.environ.get('TMPDIR', 'TMPDIR is not set')})"
        if error.errno in _FULL:
            cause = f"the disk is full: {where} has no space for the values of the trace, 8 bytes each"
            raise Mistake(cause, "Free space, or set TMPDIR to a larger folder", ExitCode.DISK_FULL) from error
        cause = f"{where} cannot hold the trace ({error.strerror})"
        raise Mistake(cause, "Set TMPDIR to a folder that can be written to", ExitCode.RESOURCE) from error


def _write(fd: int, values: Levels) -> int:
    left = np.ascontiguousarray(values).data.cast("B")
    while left:
        left = left[os.write(fd, left) :]
    return values.nbytes


def _read(fd: int, into: Levels, at: int) -> None:
    left = into.data.cast("B")
    while left:
        got = os.preadv(fd, [left], at)
        if not got:
            raise OSError(errno.EIO, "a temporary file was cut short")
        left, at = left[got:], at + got
