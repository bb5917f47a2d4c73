"""Files that are whole and on disk, or not there at all; and what the disk says, as what a person can mend."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path
from typing import Final
from uuid import uuid4

from windfall.federation_coordinator.streamed import Streamed
from windfall.servicekit.crashpoint import reach
from windfall.servicekit.errors import ExitCode, Mistake

RESTORE: Final = "Restore the coordinator's folder from a backup, or move it away to start the federation afresh"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)

DRAFT: Final = f".{uuid4().hex[:8]}.tmp"
"""How this process's drafts end: one that wakes up after another has taken over must not write into that one's."""


class Whole:
    """A file that appears under its name only when it is whole and on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + DRAFT)

    def __enter__(self) -> "BufferedWriter[Streamed]":
        self._file = BufferedWriter(Streamed(self._temporary, "wb"))
        return self._file

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._file.flush()
                reach("file.written")
                os.fsync(self._file.fileno())
                reach("file.synced")
                self._temporary.replace(self._path)
                reach("file.named")
                sync_folder(self._path.parent)
                reach("file.whole")
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


def clear_drafts(folder: Path) -> None:
    """Forget what a crash left half-written, and take its drafts from a process that still believes to lead."""
    for draft in folder.glob("*.tmp"):
        draft.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
