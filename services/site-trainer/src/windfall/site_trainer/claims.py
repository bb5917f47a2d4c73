"""What a coordinator may claim to train before this node makes room for it: nothing it says is believed unchecked."""

import os
from typing import Final

from windfall.contracts.v1 import training_pb2 as pb
from windfall.lowcomm.spec import FLOAT32_BYTES

MOST_TENSORS: Final = 100_000
LONGEST_NAME: Final = 300
LONGEST_SETTINGS: Final = 64 * 1024
MOST_SAMPLES: Final = 65_536
"""Of a step, as a coordinator may ask for them."""
LONGEST_HEARTBEAT_S: Final = 60.0
_COPIES: Final = 3
"""Of a model that a trainer holds at least: weights, base and what is sent."""
_SHOWN: Final = 40


def unbelievable(reply: pb.JoinReply, memory_bytes: int) -> str:
    """What is wrong with what a coordinator says of its model; empty when nothing is.

    Args:
        memory_bytes: of this node.
    """
    if len(reply.task) > LONGEST_NAME or len(reply.task_settings_json) > LONGEST_SETTINGS:
        return f"a task of {len(reply.task)} and settings of {len(reply.task_settings_json)} characters"
    if len(reply.tensors) > MOST_TENSORS:
        return f"{len(reply.tensors)} tensors"
    elements = 0
    for tensor in reply.tensors:
        if len(tensor.name) > LONGEST_NAME or not tensor.name.isprintable() or len(tensor.shape) > 8:
            return f"a tensor {tensor.name[:_SHOWN]!r} of {len(tensor.shape)} dimensions"
        size = 1
        for length in tensor.shape:
            size *= length
        elements += 0 if tensor.tied_to else size
    if (needed := _COPIES * FLOAT32_BYTES * elements) > memory_bytes:
        return f"a model of {elements} elements, which takes {needed} bytes at least, on a node that has {memory_bytes}"
    return ""


def check_claims(reply: pb.JoinReply) -> None:
    """Hold what a coordinator says against the memory of this node.

    Raises:
        ValueError: it is not to be believed.
    """
    if why := unbelievable(reply, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")):
        raise ValueError(why)
