"""Flat vectors in files that two processes map into memory: what one writes the other reads, without a copy between."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from windfall.lowcomm.layout import FLOAT32_BYTES

_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108
_VECTORS: Final = 8
"""So many vectors of the model's size must fit: the base, the local model, and a snapshot with two moments, twice."""


def folder_for(elements: int) -> Path:
    """A new folder of this user alone that has room: in shared memory where there is enough of it (a container may have
    64 MiB), else where temporary files go."""
    needed = _VECTORS * FLOAT32_BYTES * elements
    roomy = _SHARED_MEMORY.is_dir() and shutil.disk_usage(_SHARED_MEMORY).free > needed
    return Path(tempfile.mkdtemp(prefix="windfall-flats-", dir=_SHARED_MEMORY if roomy else None))


def reserve(path: Path, elements: int) -> None:
    """Make a file of a vector.

    Raises:
        OSError: there is no room; writing to it later would end the process.
    """
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, FLOAT32_BYTES * elements))


def mapped(path: Path, elements: int) -> Tensor:
    """The vector in a file that was reserved: fp32 ``[elements]``, shared with whoever maps it too."""
    return torch.from_file(str(path), shared=True, size=elements, dtype=torch.float32)
