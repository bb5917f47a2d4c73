"""Tensors of which a process may hold a part.

``torch.distributed.tensor`` brings torch's compiler with it, a second and a half of processor time that a site of one
process would spend at the start of every window for nothing: it is loaded by who shards, and asked for only then.
"""

import sys
from typing import TYPE_CHECKING, TypeGuard

from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(tensor: Tensor) -> "TypeGuard[DTensor]":
    """Whether it is a ``DTensor``. Nobody has made one where the module is not loaded."""
    loaded = sys.modules.get("torch.distributed.tensor")
    return loaded is not None and isinstance(tensor, loaded.DTensor)


def whole(tensor: Tensor) -> Tensor:
    """All of it; all processes must ask alike."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor


def like(values: Tensor, held: "DTensor") -> "DTensor":
    """The part of ``values``, which every process has whole, that belongs beside ``held``; nothing is sent."""
    from torch.distributed.tensor import distribute_tensor

    there = values.to(held.device)
    return distribute_tensor(there, held.device_mesh, held.placements, src_data_rank=None)
