"""A contribution on its way to disk."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from windfall.federation_coordinator.checks import Refusal
from windfall.federation_coordinator.durable import explained, sync_folder
from windfall.federation_coordinator.streamed import Streamed
from windfall.servicekit.crashpoint import reach
from windfall.servicekit.offload import Offload, finished

_BLOCK: Final = 512 * 1024
_ROOM_BYTES: Final = 1024 * 1024
"""What may wait in memory while the disk works; beyond it the stream is not read, and its sender waits."""

Chunk = bytes | memoryview


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
            if path.exists() and path.stat().st_size > expected_bytes:
                os.truncate(path, 0)
            self._file = Streamed(path, "a+b")
            self._file.seek(0)
            while block := self._file.read(_BLOCK):
                self._hash.update(block)
            self.received = self._file.tell()

    def write(self, chunks: Sequence[Chunk]) -> None:
        """Take the next bytes.

        Raises:
            Refusal: more than declared.
            Mistake: the disk is full.
        """
        size = sum(map(len, chunks))
        if self.received + size > self._expected:
            raise Refusal("size", f"more than the declared {self._expected} bytes")
        with explained(self._path):
            self._file.append(chunks)
        reach("push.first-byte")
        for chunk in chunks:
            self._hash.update(chunk)
        self.received += size

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
        reach("push.received")
        with explained(self._path):
            os.fsync(self._file.fileno())
            self._file.close()
            self._path.replace(final)
            self._path = final
            sync_folder(final.parent)
        reach("push.sealed")

    def pause(self) -> None:
        """Keep what has arrived: the site may go on from here."""
        with explained(self._path):
            self._file.close()

    def discard(self) -> None:
        """Forget it, sealed or not: it is not what it said, or it came too late."""
        self.pause()
        self._path.unlink(missing_ok=True)


async def fill(incoming: Incoming, chunks: AsyncIterator[Chunk], offload: Offload) -> None:
    """Write what arrives, beside the event loop: what comes while the disk works is written in one turn after it.

    However it ends, what has arrived is written first.

    Raises:
        Refusal: more than declared.
        Mistake: the disk is full.
    """
    landing = _Landing(incoming, offload)
    try:
        async for chunk in chunks:
            await landing.take(chunk)
    finally:
        await finished(asyncio.ensure_future(landing.end()))


class _Landing:
    """Chunks between a stream and the disk: some being written, some waiting."""

    def __init__(self, incoming: Incoming, offload: Offload) -> None:
        self._incoming = incoming
        self._offload = offload
        self._waiting: list[Chunk] = []
        self._turn: asyncio.Future[None] | None = None

    async def take(self, chunk: Chunk) -> None:
        self._waiting.append(chunk)
        if self._turn is None or self._turn.done():
            self._next()
        elif sum(map(len, self._waiting)) >= _ROOM_BYTES:
            await finished(self._turn)

    async def end(self) -> None:
        turn = None
        while self._turn is not None and self._turn is not turn:
            turn = self._turn
            await turn

    def _next(self) -> None:
        if self._turn is not None and self._turn.done():
            # What went wrong with the last turn ends the stream.
            self._turn.result()
        chunks, self._waiting = self._waiting, []
        self._turn = asyncio.ensure_future(self._write(chunks))

    async def _write(self, chunks: list[Chunk]) -> None:
        await self._offload(self._incoming.write, chunks)
        if self._waiting:
            self._next()
