"""Between a stream and the disk: few turns, bounded memory, and nothing that arrived is lost."""

import asyncio
import hashlib
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from windfall.federation_coordinator.checks import Refusal
from windfall.federation_coordinator.incoming import Incoming, fill

T = TypeVar("T")
CHUNK = 64 * 1024


class SlowDisk:
    """Work waits until it is let through, one piece for each ``release``."""

    def __init__(self) -> None:
        self.turns = 0
        self.began = asyncio.Event()
        self._released = asyncio.Semaphore(0)

    def release(self, turns: int = 1) -> None:
        for _ in range(turns):
            self._released.release()

    async def __call__(self, work: Callable[..., T], /, *arguments: object) -> T:
        self.turns += 1
        self.began.set()
        await self._released.acquire()
        return work(*arguments)


class Sender:
    """Chunks of a contribution; ``sent`` says how many were taken off it."""

    def __init__(self, chunks: int) -> None:
        self.data = bytes(range(256)) * (chunks * CHUNK // 256)
        self.sent = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self.data), CHUNK):
            self.sent += 1
            yield self.data[start : start + CHUNK]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


async def settled() -> None:
    """Everything that can run without the disk has run."""
    for _ in range(100):
        await asyncio.sleep(0)


async def test_a_slow_disk_holds_the_sender_and_not_the_bytes(tmp_path: Path) -> None:
    disk, sender = SlowDisk(), Sender(chunks=256)
    incoming = Incoming(tmp_path / "part", len(sender.data))
    tracemalloc.start()
    filling = asyncio.create_task(fill(incoming, aiter(sender), disk))
    await disk.began.wait()
    await settled()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sender.sent * CHUNK < 2 * 1024 * 1024, "of 16 MiB"
    assert held < 4 * 1024 * 1024
    disk.release(1000)
    await filling
    incoming.seal(sender.sha256, tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == sender.data
    assert disk.turns < 256 / 4, "what comes while the disk works is written together"


async def test_what_had_arrived_when_the_sender_broke_off_is_on_disk(tmp_path: Path) -> None:
    disk, sender = SlowDisk(), Sender(chunks=4)

    async def breaking() -> AsyncIterator[bytes]:
        async for chunk in sender:
            yield chunk
        raise ConnectionError("cut")

    incoming = Incoming(tmp_path / "part", len(sender.data) + CHUNK)
    disk.release(1000)
    with pytest.raises(ConnectionError):
        await fill(incoming, breaking(), disk)
    incoming.pause()
    assert (tmp_path / "part").read_bytes() == sender.data


async def test_cancelled_twice_it_still_waits_for_the_disk(tmp_path: Path) -> None:
    disk, sender = SlowDisk(), Sender(chunks=64)
    incoming = Incoming(tmp_path / "part", len(sender.data))
    filling = asyncio.create_task(fill(incoming, aiter(sender), disk))
    await disk.began.wait()
    await settled()
    for _ in range(2):
        filling.cancel()
        await settled()
        assert not filling.done()
    disk.release(1000)
    with pytest.raises(asyncio.CancelledError):
        await filling
    incoming.pause()
    assert incoming.received == (tmp_path / "part").stat().st_size == sender.sent * CHUNK


async def test_more_than_declared_is_refused_while_it_streams(tmp_path: Path) -> None:
    disk, sender = SlowDisk(), Sender(chunks=64)
    incoming = Incoming(tmp_path / "part", CHUNK)
    disk.release(1000)
    with pytest.raises(Refusal, match="more than the declared"):
        await fill(incoming, aiter(sender), disk)
    incoming.discard()
    assert sender.sent < 64
