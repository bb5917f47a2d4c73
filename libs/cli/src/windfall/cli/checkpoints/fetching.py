"""A model on its way from the coordinator, as often as the connection breaks."""

import asyncio
import hashlib
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import grpc.aio

from windfall.cli.checkpoints.door import away, explained, opened
from windfall.cli.checkpoints.listing import Checkpoint
from windfall.contracts.v1 import checkpoints_pb2 as pb
from windfall.servicekit.errors import ExitCode, Mistake, Transient

_TRIES: Final = 5
"""That bring nothing, one after the other."""
_PATIENCE_S: Final = 3.0
"""For the coordinator to be back, between two of them."""
_QUIET_S: Final = 2.0
"""Whoever waits longer is told how far it is."""
_LINES_S: Final = 10.0
"""Between two lines, where they are not written over each other."""


class Sink(Protocol):
    """Where a model goes."""

    def offset(self) -> int:
        """Bytes of it that are there."""
        ...

    def begin(self, head: pb.CheckpointHead) -> bool:
        """What comes is about to. False when what is there is the beginning of something else, and is gone now."""
        ...

    def take(self, data: bytes) -> None: ...


class Hashed:
    """A sink that keeps nothing but the digest."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._count = 0

    def offset(self) -> int:
        return self._count

    def begin(self, head: pb.CheckpointHead) -> bool:
        return True

    def take(self, data: bytes) -> None:
        self._sha.update(data)
        self._count += len(data)

    @property
    def digest(self) -> str:
        return self._sha.hexdigest()


async def fetch(target: str, wanted: Checkpoint, sink: Sink, tell: Callable[[str], None]) -> None:
    """Bring all bytes of a model to a sink, going on where a connection broke.

    Raises:
        Mistake: the coordinator stays away, refuses, or does not keep the model any more.
    """
    progress, failures = Progress(wanted, tell), 0
    async with opened(target) as (channel, stub):
        while True:
            before = sink.offset()
            request = pb.FetchCheckpointRequest(federation=wanted.federation, digest=wanted.digest, offset=before)
            try:
                with explained(target):
                    await _streamed(stub.Fetch(request), sink, progress)
                break
            except Transient as passing:
                failures = 1 if sink.offset() > before else failures + 1
                if failures == _TRIES:
                    raise _given_up(target, passing, sink.offset()) from passing
                with suppress(TimeoutError):
                    async with asyncio.timeout(_PATIENCE_S):
                        await channel.channel_ready()
    progress.over()


async def _streamed(
    call: "grpc.aio.UnaryStreamCall[pb.FetchCheckpointRequest, pb.CheckpointFrame]", sink: Sink, progress: "Progress"
) -> None:
    async for frame in call:
        if frame.HasField("head"):
            if not sink.begin(frame.head):
                call.cancel()
                raise Transient("what was there was the beginning of another model")
        else:
            sink.take(frame.data)
            progress.at(sink.offset())


def _given_up(target: str, passing: Transient, arrived: int) -> Mistake:
    lost = away(target, passing)
    if not arrived:
        return lost
    return Mistake(lost.cause, f"{arrived:,} bytes are here: the same command goes on from there", ExitCode.SERVER)


class Progress:
    """How far a model has come, for who waits longer than two seconds. Its line is written over in a terminal.

    Args:
        tell: takes a line, or with a carriage return before it what replaces the last.
    """

    def __init__(self, wanted: Checkpoint, tell: Callable[[str], None]) -> None:
        self._wanted, self._tell = wanted, tell
        self._moves = sys.stderr.isatty()
        self._next = asyncio.get_running_loop().time() + _QUIET_S
        self._told = False

    def at(self, count: int) -> None:
        now = asyncio.get_running_loop().time()
        if now < self._next:
            return
        self._next = now + (_QUIET_S / 4 if self._moves else _LINES_S)
        total = self._wanted.bytes_model
        line = f"{self._wanted.name}: {count / 1e6:,.1f} of {total / 1e6:,.1f} MB, {count / max(1, total):.0%}"
        self._tell(f"\r{line}" if self._moves else f"{line}\n")
        self._told = True

    def over(self) -> None:
        if self._told and self._moves:
            self._tell("\n")
