"""Files that are whole and on disk, or not there at all; and what the disk says, as what a person can mend."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path
from typing import Final

from windfall.federation_coordinator.streamed import Streamed
from windfall.servicekit.errors import ExitCode, Mistake

RESTORE: Final = "Restore the coordinator's folder from a backup, or move it away to start the federation afresh"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class Whole:
    """A file that appears under its name only when it is whole and on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + ".tmp")

    def __enter__(self) -> "BufferedWriter[Streamed]":
        self._file = BufferedWriter(Streamed(self._temporary, "wb"))
        return self._file

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._temporary.replace(self._path)
                sync_folder(self._path.parent)
        finally:
            # Gone already when all went well; a full disk gets its room back when not.
            self._temporary.unlink(missing_ok=True)
            self._file.close()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what the disk says into what a person can mend.

    Raises:
        Mistake: for every ``OSError`` inside.
    """
    try:
        yield
    except OSError as error:
        where = error.filename or path
        if error.errno in _FULL:
            raise Mistake(
                f"the disk under {where} is full; nothing that was accepted is lost",
                "Free space and start again",
                ExitCode.DISK_FULL,
            ) from error
        raise Mistake(f"cannot use {where} ({error.strerror})", RESTORE, ExitCode.RESOURCE) from error


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
