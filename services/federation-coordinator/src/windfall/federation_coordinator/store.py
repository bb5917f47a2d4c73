"""The coordinator's disk: base models, the outer optimizer's state, and contributions on their way into them.

Memory stays at a few chunks whatever the model and the number of sites: contributions lie on disk from the moment they
arrive, and the outer step reads, merges and writes chunk by chunk. Contributions merge in the order of site and
attempt, so that the digest does not depend on who came first, nor on a crash in between.

A base is a valid safetensors file (8-byte little-endian header length, JSON header, raw little-endian tensors end to
end), written to a temporary name, fsynced and renamed, so that a name always stands for whole contents.
"""

import errno
import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedWriter, FileIO
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

_RESTORE: Final = "Restore the coordinator's folder from a backup, or move it away to start the federation afresh"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
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
        with _explained(path):
            self._file = path.open("a+b")
            self._file.truncate(_usable(path, codec, expected_bytes))
            self._file.seek(0)
            while block := self._file.read(_CHUNK):
                self._hash.update(block)
            self.received = self._file.tell()

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            Refusal: more than declared, a torn element, or a value that is not finite.
            Mistake: the disk is full.
        """
        if self.received + len(data) > self._expected:
            raise Refusal("size", f"more than the declared {self._expected} bytes")
        if len(data) % self._codec.bytes_per_element:
            raise Refusal("size", "a chunk ends inside an element")
        if not self._codec.finite(data):
            raise Refusal("not-finite", f"a value near byte {self.received} is not finite")
        with _explained(self._path):
            self._file.write(data)
        self._hash.update(data)
        self.received += len(data)

    def seal(self, sha256: str, final: Path) -> None:
        """Make it durable under its final name.

        Raises:
            Refusal: bytes are missing, or they are not those that were declared.
            Mistake: the disk is full.
        """
        if self.received != self._expected:
            raise Refusal("size", f"{self.received} bytes arrived, not the declared {self._expected}")
        if self._hash.hexdigest() != sha256:
            raise Refusal("digest", "the bytes do not have the declared SHA-256")
        with _explained(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._path.replace(final)
            self._path = final
            _sync_folder(final.parent)

    def pause(self) -> None:
        """Keep what has arrived: the site may go on from here."""
        with _explained(self._path):
            self._file.close()

    def discard(self) -> None:
        """Forget it, sealed or not: it is not what it said, or it came too late."""
        self.pause()
        self._path.unlink(missing_ok=True)


class ModelStore:
    """See the module.

    Args:
        folder: this coordinator's own.
        layout: of the model.
        outer: the outer optimizer.
        codec: in which contributions come.

    Raises:
        Mistake: the folder cannot be made. Whatever writes raises it when the disk is full.
    """

    def __init__(self, folder: Path, layout: Layout, outer: Outer, codec: str) -> None:
        self._folder = folder
        self._layout = layout
        self._outer = outer
        self._codec = CODECS[codec]
        self._header = _header(layout)
        with _explained(folder):
            folder.mkdir(parents=True, exist_ok=True)

    @property
    def final(self) -> Path:
        """Where the last model of a finished federation goes."""
        return self._folder / "model.safetensors"

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
        """Hold the base on disk against the digest in the journal, and see that the outer state lies beside it.

        Raises:
            Mistake: one of them is missing or damaged, or belongs to other settings.
        """
        found = self.digest(round_number)
        if found != digest:
            is_ = "missing" if found is None else "damaged or another task's"
            raise Mistake(f"the model {self._base_path(round_number)} is {is_}", _RESTORE, ExitCode.RESOURCE)
        for path in self._state_paths(round_number):
            if not path.exists() or path.stat().st_size != self._layout.nbytes:
                raise Mistake(
                    f"the outer optimizer's state {path} is missing or damaged",
                    f"Set WINDFALL_OUTER to what it was, if it was changed. {_RESTORE}",
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
        """A base as a flat fp32 vector ``[elements]``: it takes the model's size in memory.

        Raises:
            FileNotFoundError: it has been pruned.
        """
        base = self.base(round_number)
        flat = np.fromfile(base.path, dtype="<f4", count=self._layout.elements, offset=base.data_start)
        return torch.from_numpy(flat.astype(np.float32, copy=False))

    def incoming(self, round_number: int, site: str, attempt: int) -> Incoming:
        """Where the bytes of a contribution go that is not accepted; what arrived before a cut is there already."""
        part = self._part_path(round_number, site, attempt)
        sealed = self.contribution_path(round_number, site, attempt)
        with _explained(part):
            if sealed.exists():
                # A crash came between its last byte and its acceptance.
                sealed.replace(part)
        return Incoming(part, self._codec, self._expected)

    def received(self, round_number: int, site: str, attempt: int) -> int:
        """Bytes that have arrived of a contribution that is not accepted: where its site goes on."""
        sealed = self.contribution_path(round_number, site, attempt)
        path = sealed if sealed.exists() else self._part_path(round_number, site, attempt)
        return _usable(path, self._codec, self._expected)

    def contribution_path(self, round_number: int, site: str, attempt: int) -> Path:
        """Where an accepted contribution lies."""
        return self._folder / f"contribution-{round_number:06d}-{site}-{attempt}"

    def merge(self, round_number: int, contributions: Sequence[Contribution]) -> str:
        """Take the outer step from this round's base; gives the digest of the next round's.

        Memory: a few chunks per contribution. Doing it again gives the same bits, whatever a crash left of the first
        time.

        Raises:
            Mistake: the disk is full, or something that this round stands on is not there any more.
        """
        with _explained(self._folder):
            return self._merge(round_number, contributions)

    def _merge(self, round_number: int, contributions: Sequence[Contribution]) -> str:
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
                (CODECS[one.codec], stack.enter_context(path.open("rb", buffering=0)))
                for one in ordered
                for path in (self.contribution_path(round_number, *one.order),)
            ]
            old.seek(base.data_start)
            new.write(self._header)

            def moved(start: int) -> tuple[Tensor, tuple[Tensor, ...]]:
                count = min(_CHUNK, self._layout.elements - start)
                gradient = weighted_mean([_decoded(codec, source, count) for codec, source in sources], weights)
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
                path.unlink(missing_ok=True)

    def export(self, round_number: int, target: Path) -> None:
        """Write a base where a person wants it, whole or not at all."""
        with _explained(target), self._base_path(round_number).open("rb") as source, _Whole(target) as file:
            while block := source.read(_CHUNK):
                file.write(block)

    @property
    def _expected(self) -> int:
        return self._layout.elements * self._codec.bytes_per_element

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

    def __enter__(self) -> BufferedWriter:
        self._file = self._temporary.open("wb")
        return self._file

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._temporary.replace(self._path)
                _sync_folder(self._path.parent)
        finally:
            # Gone already when all went well; a full disk gets its room back when not.
            self._temporary.unlink(missing_ok=True)
            self._file.close()


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


def _decoded(codec: Codec, source: FileIO, count: int) -> Tensor:
    return codec.decode(_exactly(source, count * codec.bytes_per_element))


def _exactly(file: FileIO, size: int) -> bytearray:
    buffer = bytearray(size)
    view = memoryview(buffer)
    filled = 0
    while filled < size:
        read = file.readinto(view[filled:])
        if not read:
            raise Mistake(f"{file.name!r} is shorter than the model", _RESTORE, ExitCode.RESOURCE)
        filled += read
    return buffer


def _usable(path: Path, codec: Codec, expected_bytes: int) -> int:
    """Bytes of a part that can be gone on from: whole elements, for a crash may tear one; none of a part too long."""
    size = path.stat().st_size if path.exists() else 0
    return 0 if size > expected_bytes else size - size % codec.bytes_per_element


def _round_of(name: str) -> int | None:
    parts = name.split("-")
    digits = parts[1].split(".")[0] if len(parts) > 1 else ""
    return int(digits) if digits.isdigit() else None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn what the disk says into what a person can mend."""
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
        raise Mistake(f"cannot use {where} ({error.strerror})", _RESTORE, ExitCode.RESOURCE) from error


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
