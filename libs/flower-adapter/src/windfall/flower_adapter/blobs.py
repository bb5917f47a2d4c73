"""Bodies of messages on the coordinator's disk, each under the SHA-256 of its bytes: equal ones lie there once."""

import hashlib
import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from windfall.servicekit.errors import ExitCode, Mistake

_BLOCK: Final = 1024 * 1024
EMPTY: Final = hashlib.sha256(b"").hexdigest()
"""Of a body without bytes; it needs no file."""


class Damaged(Exception):
    """The bytes are not those that were declared."""


class Blobs:
    """A folder of bodies. What :meth:`Incoming.seal` has returned from survives a power cut."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _explained(error, folder) from error

    def path(self, sha256: str) -> Path:
        return self._folder / f"{sha256}.body"

    def write(self, pieces: Iterable[bytes]) -> str:
        """Keep a body and name it. A power cut may lose or damage it: who sent it sends it again after a restart.

        Raises:
            Mistake: the disk is full or broken.
        """
        pieces = tuple(pieces)
        name = self.named(pieces)
        if any(pieces) and not self.path(name).exists():
            try:
                draft = self._folder / "writing"
                with draft.open("wb") as file:
                    file.writelines(pieces)
                draft.replace(self.path(name))
            except OSError as error:
                raise _explained(error, self._folder) from error
        return name

    def named(self, pieces: Iterable[bytes]) -> str:
        """What a body is called; it is not kept."""
        digest = hashlib.sha256()
        for piece in pieces:
            digest.update(piece)
        return digest.hexdigest()

    @contextmanager
    def opened(self, sha256: str) -> Iterator[memoryview]:
        """A body where it lies, without copying it; no view of it may outlive the block.

        Raises:
            Mistake: it is not there.
        """
        if sha256 == EMPTY:
            yield memoryview(b"")
            return
        try:
            with self.path(sha256).open("rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise _explained(error, self.path(sha256)) from error
        with mapped, memoryview(mapped) as view:
            yield view

    def stretch(self, sha256: str, offset: int, nbytes: int) -> bytes:
        """Bytes of a body from an offset on, fewer at its end. Raises ``FileNotFoundError`` when it has gone."""
        with self.path(sha256).open("rb", buffering=0) as file:
            file.seek(offset)
            return file.read(nbytes)

    def incoming(self, key: str, sha256: str, nbytes: int) -> "Incoming":
        """A body on its way; what arrived of it before a cut is gone on from.

        Args:
            key: names the transfer: a message's id.
        """
        return Incoming(self, self._arriving(key), sha256, nbytes)

    def received(self, key: str) -> int:
        """Bytes of a transfer that are here already."""
        path = self._arriving(key)
        return path.stat().st_size if path.exists() else 0

    def check(self, sha256: str) -> None:
        """Remove a body that is not what its name says: a power cut was faster than the disk."""
        if sha256 == EMPTY or not self.path(sha256).exists():
            return
        with self.path(sha256).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != sha256:
            self.remove(sha256)

    def keep(self, names: Iterable[str]) -> None:
        """Remove every body but these."""
        kept = {self.path(name).name for name in names}
        for path in self._folder.glob("*.body"):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def remove(self, sha256: str) -> None:
        self.path(sha256).unlink(missing_ok=True)

    def _arriving(self, key: str) -> Path:
        return self._folder / f"{key}.arriving"

    def _settle(self, path: Path, sha256: str) -> None:
        """Durable bytes first, then the name, then the folder's entry."""
        descriptor = os.open(path, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        path.replace(self.path(sha256))
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


class Incoming:
    """A body that arrives in pieces and is hashed meanwhile."""

    def __init__(self, blobs: Blobs, path: Path, sha256: str, nbytes: int) -> None:
        self._blobs = blobs
        self._path = path
        self._sha256 = sha256
        self._nbytes = nbytes
        self._hash = hashlib.sha256()
        try:
            self._file = path.open("a+b")
            if path.stat().st_size > nbytes:
                self._file.truncate(0)
            self._file.seek(0)
            while block := self._file.read(_BLOCK):
                self._hash.update(block)
        except OSError as error:
            raise _explained(error, path) from error
        self.received = self._file.tell()

    def write(self, data: memoryview | bytes) -> None:
        """Take the next bytes.

        Raises:
            Damaged: more than declared.
            Mistake: the disk is full.
        """
        if self.received + len(data) > self._nbytes:
            self.discard()
            raise Damaged(f"more than the declared {self._nbytes} bytes")
        try:
            self._file.write(data)
        except OSError as error:
            raise _explained(error, self._path) from error
        self._hash.update(data)
        self.received += len(data)

    def seal(self) -> None:
        """Make it a body of the folder.

        Raises:
            Damaged: it is not what was declared; it is gone.
            Mistake: the disk is full.
        """
        if self.received != self._nbytes or self._hash.hexdigest() != self._sha256:
            self.discard()
            raise Damaged("the bytes do not have the declared length and SHA-256")
        try:
            self._file.close()
            if self._nbytes:
                self._blobs._settle(self._path, self._sha256)
            else:
                self._path.unlink()
        except OSError as error:
            raise _explained(error, self._path) from error

    def pause(self) -> None:
        """Keep what has arrived: the site may go on from here."""
        self._file.close()

    def discard(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def _explained(error: OSError, where: Path) -> Mistake:
    return Mistake(
        f"cannot use {error.filename or where} ({error.strerror})",
        "Free space, and make WINDFALL_STATE_DIR a folder that this user may write",
        ExitCode.RESOURCE,
    )
