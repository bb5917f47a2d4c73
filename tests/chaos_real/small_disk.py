"""A file system of a few megabytes, and what fills it."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from windfall.servicekit.errors import ExitCode, Mistake

MEGABYTES: Final = 24
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH: Final = 2
_BLOCK: Final = bytes(64 * 1024)


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A folder is a file system in memory, of its own and small (tmpfs, mount(2)).

    Raises:
        Mistake: this user may not mount one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    where = os.fsencode(folder)
    if _LIBC.mount(b"windfall", where, b"tmpfs", 0, f"size={MEGABYTES}m".encode()):
        reason = os.strerror(ctypes.get_errno())
        raise Mistake(
            f"no small disk can be mounted ({reason})", "Run this fault as root, or leave it out", ExitCode.RESOURCE
        )
    try:
        yield
    finally:
        _LIBC.umount2(where, _MNT_DETACH)


def fill(folder: Path) -> Path:
    """Take all room of the file system under a folder; gives the file to remove again."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while file.write(_BLOCK):
                pass
        except OSError:
            pass
    return ballast
