"""A contribution on its way to disk."""

import hashlib
import os
from pathlib import Path
from typing import Final

from windfall.federation_coordinator.checks import Refusal
from windfall.federation_coordinator.durable import explained, sync_folder

_BLOCK: Final = 512 * 1024


class Incoming:
    """It is hashed while it arrives and may be cut and resumed.

    Args:
        path: where it lies until it is sealed; what lies there already is gone on from.
        expected_bytes: as its manifest declares.
    """

    def __init__(self, path: Path, expected_bytes: int) -> None:
        self._path = path
        self._expected = expected_bytes
        self._hash = hashlib.sha256()
        with explained(path):
            self._file = path.open("a+b")
            if path.stat().st_size > expected_bytes:
                self._file.truncate(0)
            self._file.seek(0)
            while block := self._file.read(_BLOCK):
                self._hash.update(block)
            self.received = self._file.tell()

    def write(self, data: bytes) -> None:
        """Take the next bytes.

        Raises:
            Refusal: more than declared.
            Mistake: the disk is full.
        """
        if self.received + len(data) > self._expected:
            raise Refusal("size", f"more than the declared {self._expected} bytes")
        with explained(self._path):
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
        with explained(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._path.replace(final)
            self._path = final
            sync_folder(final.parent)

    def pause(self) -> None:
        """Keep what has arrived: the site may go on from here."""
        with explained(self._path):
            self._file.close()

    def discard(self) -> None:
        """Forget it, sealed or not: it is not what it said, or it came too late."""
        self.pause()
        self._path.unlink(missing_ok=True)
