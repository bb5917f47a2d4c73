"""Model files: safetensors (https://huggingface.co/docs/safetensors), written as their bytes come, and their digests.

A file is the length of its header (8 bytes, little-endian), a header in JSON and the tensors' bytes end to end. The
digest of a model is the SHA-256 of those bytes alone, as ``round.completed`` says it, whatever else the header holds.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field

from windfall.contracts.v1 import checkpoints_pb2 as pb
from windfall.servicekit.errors import ExitCode, Mistake

FEDERATION: Final = "windfall.federation"
ROUND: Final = "windfall.round"
TIED: Final = "windfall.tied"
"""Names that share another tensor's bytes, in JSON: the format knows no sharing."""

_METADATA: Final = "__metadata__"
_PREFIX: Final = struct.Struct("<Q")
_LONGEST_HEADER: Final = 100_000_000
"""Bytes, as the format has it."""
_FLOAT32_BYTES: Final = 4
_BLOCK: Final = 1024 * 1024


@dataclass(frozen=True)
class ModelFile:
    """What a file holds."""

    digest: str
    nbytes: int
    """Of its tensors."""
    tensors: int
    metadata: Mapping[str, str]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True)

    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class _Header(BaseModel):
    model_config = ConfigDict(frozen=True)

    tensors: dict[str, _Entry]
    metadata: dict[str, str] = Field(default_factory=dict)

    @classmethod
    def of(cls, found: object) -> Self:
        """
        Raises:
            ValueError: that is no header.
        """
        if not isinstance(found, dict):
            raise ValueError("its header is no object")
        tensors = {name: one for name, one in found.items() if name != _METADATA}
        return cls.model_validate({"tensors": tensors, "metadata": found.get(_METADATA, {})})


def header(head: pb.CheckpointHead, federation: str, round_text: str) -> bytes:
    """What stands before a model's bytes; the same each time.

    Args:
        round_text: which round left it.

    Raises:
        Mistake: the tensors are not as long as the model.
    """
    metadata = {"format": "pt", FEDERATION: federation, ROUND: round_text}
    if tied := {one.name: one.tied_to for one in head.tensors if one.tied_to}:
        metadata[TIED] = json.dumps(tied, sort_keys=True)
    entries: dict[str, object] = {_METADATA: metadata}
    end = 0
    for one in head.tensors:
        if not one.tied_to:
            begin, end = end, end + prod(one.shape) * _FLOAT32_BYTES
            entries[one.name] = {"dtype": "F32", "shape": list(one.shape), "data_offsets": [begin, end]}
    if end != head.checkpoint.bytes:
        raise Mistake(
            f"the coordinator says {head.checkpoint.bytes} bytes of a model whose tensors have {end}",
            "Run a coordinator of this version",
            ExitCode.SERVER,
        )
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return _PREFIX.pack(len(text)) + text


def read(path: Path) -> ModelFile:
    """Look through a file, a block at a time.

    Raises:
        Mistake: it is not there, or no model of float32 tensors.
    """
    try:
        with path.open("rb") as file:
            found = _header_of(path, file)
            if other := {one.dtype for one in found.tensors.values()} - {"F32"}:
                raise Mistake(
                    f"{path} holds {', '.join(sorted(other))}, and digests are of float32",
                    "Export the model anew with `windfall checkpoint export`",
                )
            sha = hashlib.sha256()
            nbytes = 0
            while block := file.read(_BLOCK):
                sha.update(block)
                nbytes += len(block)
    except FileNotFoundError as error:
        raise Mistake(f"there is no file {path}", "Name one that was exported", ExitCode.RESOURCE) from error
    due = max((one.data_offsets[1] for one in found.tensors.values()), default=0)
    if nbytes != due:
        raise Mistake(
            f"{path} has {nbytes} bytes of tensors, and its header speaks of {due}",
            "Export it again with --force",
            ExitCode.DIFFERENT,
        )
    return ModelFile(sha.hexdigest(), nbytes, len(found.tensors), found.metadata)


def data_start(path: Path) -> int:
    """Where the tensors of a file begin, as its header says; 0 where that is not whole."""
    with path.open("rb") as file:
        prefix = file.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size:
        return 0
    start = _PREFIX.size + int(_PREFIX.unpack(prefix)[0])
    return start if start <= path.stat().st_size else 0


def _header_of(path: Path, file: BufferedReader) -> _Header:
    prefix = file.read(_PREFIX.size)
    length = int(_PREFIX.unpack(prefix)[0]) if len(prefix) == _PREFIX.size else 0
    try:
        if not 0 < length <= _LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        return _Header.of(json.loads(file.read(length)))
    except (ValueError, RecursionError) as error:
        said = str(error).splitlines()[0]
        raise Mistake(
            f"{path} is no safetensors file ({said})", "Name one that `windfall checkpoint export` wrote"
        ) from error
