"""What a trainer that was killed goes on from: one safetensors file that says whose it is.

It holds the flat vector, the optimizer's state by parameter name, and metadata with a SHA-256 of everything. Nothing is
ever unpickled.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from windfall.site_trainer.engine import Progress
from windfall.site_trainer.tensor_file import Unusable, read_whole, write_whole

FORMAT: Final = "windfall-site-trainer/1"


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds. ``tensors`` are named ``local`` or ``optimizer/<parameter>/<key>``."""

    owner: Mapping[str, str]
    """Task, layout, optimizer and seed of the engine that wrote it: another's is of no use."""
    base_digest: str
    cursor: int
    progress: Progress
    scalars: Mapping[str, object]
    """Optimizer state that is not tensors, by the same names."""
    tensors: Mapping[str, Tensor]
    learnt: Mapping[str, Any] = field(default_factory=dict)
    """What the engine has learnt of how to train here, by name, as JSON: what fits into memory, the scale of fp16, how
    large losses are. None of it changes what the model is."""


def write(path: Path, checkpoint: Checkpoint) -> None:
    """Atomic: a file by this name is the old one or the new one at any instant, and on disk when this returns. The old
    one stays beside it, as ``<name>.previous``.

    Raises:
        OSError: it could not be written; the old file is as it was.
    """
    said, tensors = about(checkpoint), dict(checkpoint.tensors)
    write_whole(path, tensors, {"about": said, "sha256": seal(said, tensors)}, two=True)


def read(path: Path, owner: Mapping[str, str]) -> Checkpoint:
    """The checkpoint in a file.

    Raises:
        Unusable: it is corrupt or another owner's.
        OSError: it cannot be read; ``FileNotFoundError`` when there is none.
    """
    metadata, tensors = read_whole(path)
    said = metadata.get("about", "")
    if metadata.get("sha256") != seal(said, tensors):
        raise Unusable("its SHA-256 is not the one it names")
    try:
        fields: dict[str, Any] = json.loads(said)
        if fields["format"] != FORMAT:
            raise Unusable(f"its format is {fields['format']!r}, not {FORMAT!r}")
        if fields["owner"] != owner:
            other = ", ".join(name for name, value in owner.items() if fields["owner"].get(name) != value)
            raise Unusable(f"it was written under another {other}")
        return from_about(fields, tensors)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unusable(f"what it says of itself cannot be read ({error!r})") from error


def about(checkpoint: Checkpoint) -> str:
    """All but its tensors, as JSON."""
    return json.dumps(
        {
            "format": FORMAT,
            "owner": checkpoint.owner,
            "base_digest": checkpoint.base_digest,
            "cursor": checkpoint.cursor,
            "progress": asdict(checkpoint.progress),
            "scalars": checkpoint.scalars,
            "learnt": checkpoint.learnt,
        }
    )


def from_about(fields: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Checkpoint:
    """The checkpoint of which that was said."""
    return Checkpoint(
        owner=fields["owner"],
        base_digest=fields["base_digest"],
        cursor=fields["cursor"],
        progress=Progress(**fields["progress"]),
        scalars=fields["scalars"],
        tensors=tensors,
        learnt=fields.get("learnt", {}),
    )


def seal(about: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the metadata and every tensor, in the order of their names."""
    whole = hashlib.sha256(about.encode())
    for name, tensor in sorted(tensors.items()):
        whole.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        whole.update(tensor.detach().reshape(-1).view(torch.uint8).numpy().data)
    return whole.hexdigest()
