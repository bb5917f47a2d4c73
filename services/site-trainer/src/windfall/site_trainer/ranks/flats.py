"""Memory that the trainer and its ranks share: what one writes the other reads, without a copy between.

It has no name in any folder (``memfd_create(2)``), so that nothing is left of it once the last process that maps it is
gone, however that ended, and it does not count towards what a container has of ``/dev/shm``.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final
from weakref import finalize

import torch
from torch import Tensor

from windfall.lowcomm.layout import FLOAT32_BYTES

_ALIGNED: Final = 64
"""Bytes to whose multiples tensors are laid."""


class SharedFile:
    """A file in memory. Other processes of this user open it by its path as long as this object lives.

    Args:
        size: bytes that are set aside at once.

    Raises:
        OSError: there is no room for them, where writing to them later would end the process; or this is not Linux.
    """

    def __init__(self, name: str, size: int = 0) -> None:
        if sys.platform != "linux":
            raise OSError("several processes share memory by the means of Linux. Set WINDFALL_PROCESSES=1")
        descriptor = os.memfd_create(name)
        finalize(self, os.close, descriptor)
        if size:
            os.posix_fallocate(descriptor, 0, size)
        self.path = Path(f"/proc/{os.getpid()}/fd/{descriptor}")


def shared_vector(name: str, elements: int) -> SharedFile:
    """Room for a vector, which :func:`mapped` opens.

    Raises:
        OSError: as ``SharedFile``.
    """
    return SharedFile(name, max(1, FLOAT32_BYTES * elements))


def mapped(path: Path, elements: int) -> Tensor:
    """The vector in a shared file: fp32 ``[elements]``, the same memory for whoever maps it."""
    return torch.from_file(str(path), shared=True, size=elements, dtype=torch.float32)


def leave(path: Path, tensors: Mapping[str, Tensor]) -> list[tuple[str, str, list[int]]]:
    """Lay tensors of the CPU end to end into a shared file.

    Returns:
        what :func:`left` needs: the name, dtype and shape of each.

    Raises:
        OSError: there is no room for them.
    """
    with path.open("wb") as file:
        for tensor in tensors.values():
            file.write(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
            file.write(bytes(-tensor.nbytes % _ALIGNED))
    return [(name, str(each.dtype).removeprefix("torch."), list(each.shape)) for name, each in tensors.items()]


def left(path: Path, said: Sequence[Sequence[Any]]) -> dict[str, Tensor]:
    """Those tensors, in the memory in which they were laid."""
    kinds = [(name, getattr(torch, dtype), torch.Size(shape)) for name, dtype, shape in said]
    sizes = [dtype.itemsize * shape.numel() for _, dtype, shape in kinds]
    begins = list(accumulate((size + -size % _ALIGNED for size in sizes), initial=0))
    whole = torch.from_file(str(path), shared=True, size=begins[-1], dtype=torch.uint8)
    return {
        name: whole[begin : begin + size].view(dtype).view(shape)
        for (name, dtype, shape), begin, size in zip(kinds, begins, sizes, strict=False)
    }
