"""The coordinator's disk: base models, the outer optimizer's state, and contributions on their way into them.

Memory stays at a few chunks whatever the model and the number of sites: contributions lie on disk from the moment they
arrive, and the outer step reads, merges and writes chunk by chunk. Contributions merge in the order of site and
attempt, so that the digest does not depend on who came first, nor on a crash in between.

A base is a valid safetensors file (8-byte little-endian header length, JSON header, raw little-endian tensors end to
end), written to a temporary name, fsynced and renamed, so that a name always stands for whole contents.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import torch
from torch import Tensor

from windfall.federation_coordinator.checks import Refusal
from windfall.federation_coordinator.rounds import Contribution
from windfall.lowcomm.codec import CODECS, Codec
from windfall.lowcomm.layout import FLOAT32_BYTES, Layout
from windfall.lowcomm.merge import weighted_mean
from windfall.lowcomm.outer import Outer
from windfall.servicekit.errors import ExitCode, Mistake

T = TypeVar("T")

_CHUNK: Final = 128 * 1024
"""Elements merged at a time: what fits the caches merges three times as fast as what does not."""


@dataclass(frozen=True)
class Base:
    """A base model on disk: where its tensors begin, and how many bytes they are."""

    path: Path
    data_start: int
    nbytes: int


class Incoming:
    """One contribution on its way to disk. It is checked while it arrives and may be cut and resumed."""

    def __init__(self, path: Path, codec: Codec, expected_bytes: int) -> None:
        self._path = path
        self._codec = codec
        self._expected = expected_bytes
        self._hash = hashlib.sha256()
        self._file = path.open("a+b")
        self._file.seek(0)
        while block := self._file.read(_CHUNK):
            self._hash.update(block)
        self.received = self._file.tell()

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            Refusal: more than declared, a torn element, or a value that is not finite.
        """
        if self.received + len(data) > self._expected:
            raise Refusal("size", f"more than the declared {self._expected} bytes")
        if len(data) % self._codec.bytes_per_element:
            raise Refusal("size", "a chunk ends inside an element")
        if not self._codec.finite(data):
            raise Refusal("not-finite", f"a value near byte {self.received} is not finite")
        self._hash.update(data)
        self._file.write(data)
        self.received += len(data)

    def seal(self, sha256: str, final: Path) -> None:
        """Make it durable under its final name.

        Raises:
            Refusal: bytes are missing, or they are not those that were declared.
        """
        if self.received != self._expected:
            raise Refusal("size", f"{self.received} bytes arrived, not the declared {self._expected}")
        if self._hash.hexdigest() != sha256:
            raise Refusal("digest", "the bytes do not have the declared SHA-256")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._path.replace(final)
        _sync_folder(final.parent)

    def pause(self) -> None:
        """Keep what has arrived: the site may go on from here."""
        self._file.close()

    def discard(self) -> None:
        """Forget it: it is not what it said."""
        self._file.close()
        self._path.unlink(missing_ok=True)


class ModelStore:
    """See the module.

    Args:
        folder: this coordinator's own.
        layout: of the model.
        outer: the outer optimizer.
        codec: in which contributions come.
    """

    def __init__(self, folder: Path, layout: Layout, outer: Outer, codec: str) -> None:
        self._folder = folder
        self._layout = layout
        self._outer = outer
        self._codec = CODECS[codec]
        self._header = _header(layout)
        folder.mkdir(parents=True, exist_ok=True)

    def base(self, round_number: int) -> Base:
        """The model from which a round starts."""
        return Base(self._base_path(round_number), len(self._header), self._layout.nbytes)

    def initialise(self, flat: Tensor) -> str:
        """Lay down the model of round 0 and an empty outer state; gives the model's digest. Twice is harmless."""
        for path in self._state_paths(0):
            with _Whole(path) as file:
                file.truncate(self._layout.nbytes)
        with _Whole(self._base_path(0)) as file:
            file.write(self._header)
            file.write(_bytes(flat))
        return hashlib.sha256(_bytes(flat)).hexdigest()

    def check(self, round_number: int, digest: str) -> None:
        """Hold the base on disk against the digest in the journal.

        Raises:
            Mistake: it is missing or damaged.
        """
        found = self.digest(round_number)
        if found != digest:
            raise Mistake(
                f"the model {self._base_path(round_number)} is {'missing' if found is None else 'damaged'}",
                "Restore the coordinator's folder from a backup, or move it away to start the federation afresh",
                ExitCode.RESOURCE,
            )

    def digest(self, round_number: int) -> str | None:
        """SHA-256 of a base's tensors as they lie on disk; none when there is no such file."""
        sha = hashlib.sha256()
        try:
            with self._base_path(round_number).open("rb") as file:
                file.seek(len(self._header))
                while block := file.read(_CHUNK):
                    sha.update(block)
        except FileNotFoundError:
            return None
        return sha.hexdigest()

    def load(self, round_number: int) -> Tensor:
        """A base as a flat fp32 vector ``[elements]``: it takes the model's size in memory."""
        base = self.base(round_number)
        flat = np.fromfile(base.path, dtype="<f4", count=self._layout.elements, offset=base.data_start)
        return torch.from_numpy(flat.astype(np.float32, copy=False))

    def incoming(self, round_number: int, site: str, attempt: int) -> Incoming:
        """Where a contribution's bytes go; what arrived before a cut is there already."""
        expected = self._layout.elements * self._codec.bytes_per_element
        return Incoming(self._part_path(round_number, site, attempt), self._codec, expected)

    def received(self, round_number: int, site: str, attempt: int) -> int:
        """Bytes of a contribution that have arrived."""
        path = self._part_path(round_number, site, attempt)
        return path.stat().st_size if path.exists() else 0

    def contribution_path(self, round_number: int, site: str, attempt: int) -> Path:
        """Where an accepted contribution lies."""
        return self._folder / f"contribution-{round_number:06d}-{site}-{attempt}"

    def merge(self, round_number: int, contributions: Sequence[Contribution]) -> str:
        """Take the outer step from this round's base; gives the digest of the next round's.

        Memory: a few chunks per contribution. Doing it again gives the same bits.
        """
        ordered = sorted(contributions, key=lambda one: one.order)
        weights = [one.tokens for one in ordered]
        sha = hashlib.sha256()
        base = self.base(round_number)
        with ExitStack() as stack:
            # Left in reverse: the states become whole before the base, so a base that stands has its state beside it.
            new = stack.enter_context(_Whole(self._base_path(round_number + 1)))
            moved_states = [stack.enter_context(_Whole(path)) for path in self._state_paths(round_number + 1)]
            old = stack.enter_context(base.path.open("rb", buffering=0))
            states = [stack.enter_context(path.open("rb", buffering=0)) for path in self._state_paths(round_number)]
            sources = [
                stack.enter_context(self.contribution_path(round_number, *one.order).open("rb", buffering=0))
                for one in ordered
            ]
            old.seek(base.data_start)
            new.write(self._header)

            def moved(start: int) -> tuple[Tensor, tuple[Tensor, ...]]:
                count = min(_CHUNK, self._layout.elements - start)
                gradient = weighted_mean([self._decoded(source, count) for source in sources], weights)
                state, chunk = self._outer.apply(
                    tuple(_floats(file, count) for file in states), _floats(old, count), gradient
                )
                return chunk, state

            # One chunk is computed while the one before it is hashed and written.
            for chunk, state in _ahead(moved, range(0, self._layout.elements, _CHUNK)):
                sha.update(_bytes(chunk))
                new.write(_bytes(chunk))
                for output, vector in zip(moved_states, state, strict=True):
                    output.write(_bytes(vector))
        return sha.hexdigest()

    def prune(self, round_number: int) -> None:
        """Forget what no crash can need any more: everything before this round but the previous base."""
        for path in self._folder.iterdir():
            number = _round_of(path.name)
            previous_base = path.name == self._base_path(round_number - 1).name
            if number is not None and number < round_number and not previous_base:
                path.unlink()

    def export(self, round_number: int, target: Path) -> None:
        """Write a base where a person wants it, whole or not at all."""
        with self._base_path(round_number).open("rb") as source, _Whole(target) as file:
            while block := source.read(_CHUNK):
                file.write(block)

    def _decoded(self, source: FileIO, count: int) -> Tensor:
        return self._codec.decode(_exactly(source, count * self._codec.bytes_per_element))

    def _base_path(self, round_number: int) -> Path:
        return self._folder / f"base-{round_number:06d}.safetensors"

    def _state_paths(self, round_number: int) -> list[Path]:
        return [self._folder / f"outer-{round_number:06d}-{slot}.f32" for slot in range(self._outer.slots)]

    def _part_path(self, round_number: int, site: str, attempt: int) -> Path:
        return self._folder / f"incoming-{round_number:06d}-{site}-{attempt}"


class _Whole:
    """A file that appears under its name only when it is whole and on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + ".tmp")

    def __enter__(self) -> FileIO:
        self._file = self._temporary.open("wb", buffering=0)
        return self._file

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            self._temporary.replace(self._path)
            _sync_folder(self._path.parent)
        else:
            self._temporary.unlink(missing_ok=True)


def _ahead(work: Callable[[int], T], inputs: Iterable[int]) -> Iterator[T]:
    """Results in order, the next one being computed beside whoever uses the last."""
    with ThreadPoolExecutor(1) as beside:
        waiting: Future[T] | None = None
        for one in inputs:
            waiting, ready = beside.submit(work, one), waiting
            if ready is not None:
                yield ready.result()
        if waiting is not None:
            yield waiting.result()


def _header(layout: Layout) -> bytes:
    """The safetensors header of a layout, padded so that the tensors begin at a multiple of 8."""
    entries = {
        spec.name: {
            "dtype": "F32",
            "shape": list(spec.shape),
            "data_offsets": [offset * FLOAT32_BYTES, (offset + spec.elements) * FLOAT32_BYTES],
        }
        for spec, offset in zip(layout.tensors, layout.offsets, strict=True)
    }
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _floats(file: FileIO, count: int) -> Tensor:
    data = _exactly(file, count * FLOAT32_BYTES)
    return torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32, copy=False))


def _bytes(vector: Tensor) -> memoryview:
    return vector.numpy().astype("<f4", copy=False).data.cast("B")


def _exactly(file: FileIO, size: int) -> bytearray:
    buffer = bytearray(size)
    view = memoryview(buffer)
    filled = 0
    while filled < size:
        read = file.readinto(view[filled:])
        if not read:
            raise Mistake(
                f"{file.name} is shorter than the model",
                "Restore the coordinator's folder from a backup",
                ExitCode.RESOURCE,
            )
        filled += read
    return buffer


def _round_of(name: str) -> int | None:
    parts = name.split("-")
    digits = parts[1].split(".")[0] if len(parts) > 1 else ""
    return int(digits) if digits.isdigit() else None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
