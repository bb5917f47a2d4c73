"""The federation-coordinator as a trainer sees it, over gRPC."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

import grpc.aio

from windfall.contracts.v1 import training_pb2 as pb
from windfall.contracts.v1.training_pb2_grpc import TrainingStub
from windfall.lowcomm.layout import Layout, TensorSpec
from windfall.servicekit.errors import Transient
from windfall.servicekit.rpc import CHUNK_BYTES, DEADLINE, metadata, translated

PROTOCOL = 1

_PAUSE: Final = timedelta(seconds=1)
"""Wall time before a download that went wrong is tried again."""
_STRETCH: Final = 4 * 1024 * 1024
"""Bytes that are worth the way to a thread."""


@dataclass(frozen=True)
class Membership:
    """What the coordinator said when it admitted us."""

    attempt: int
    task: str
    task_settings: str
    layout: Layout
    codec: str
    heartbeat_s: float


class CoordinatorLink:
    """One site's calls. ``Transient`` means try again, ``Refused`` means no."""

    def __init__(self, channel: grpc.aio.Channel, federation: str, site: str) -> None:
        self._channel = channel
        self._stub = TrainingStub(channel)
        self._federation = federation
        self._site = site

    async def join(self, window_id: UUID, lease_token: int) -> Membership:
        request = pb.JoinRequest(
            federation=self._federation,
            site=self._site,
            window_id=str(window_id),
            lease_token=lease_token,
            protocol=PROTOCOL,
        )
        with translated("join"):
            reply = await self._stub.Join(request, timeout=DEADLINE.total_seconds(), metadata=metadata())
        layout = Layout(tuple(TensorSpec(one.name, tuple(one.shape), one.dtype) for one in reply.tensors))
        return Membership(
            reply.attempt,
            reply.task,
            reply.task_settings_json,
            layout,
            reply.codec,
            max(0.1, reply.heartbeat_interval_ms / 1000),
        )

    async def directives(self, beat: Callable[[], pb.Beat], every_s: float) -> AsyncGenerator[pb.Directive, None]:
        """What the coordinator says for as long as the stream holds; a heartbeat goes up at once and then regularly."""

        async def beats() -> AsyncGenerator[pb.Beat, None]:
            while True:
                yield beat()
                await asyncio.sleep(every_s)

        with translated("heartbeat"):
            call = self._stub.Heartbeat(beats(), metadata=metadata())
            try:
                async for directive in call:
                    yield directive
            finally:
                # Ends the beats as well: the call owns them while it runs.
                call.cancel()

    async def pull(self, attempt: int, digest: str, nbytes: int) -> memoryview:
        """The base model's bytes, checked against their digest; a cut goes on where it stopped.

        Raises:
            Transient: nothing arrived, or not what was asked for.
            Refused: the coordinator has moved on from this base.
        """
        buffer = memoryview(bytearray(nbytes))
        sha = _HashBehind(buffer)
        filled = 0
        while filled < nbytes:
            request = pb.PullRequest(
                federation=self._federation, site=self._site, attempt=attempt, base_digest=digest, offset=filled
            )
            before = filled
            try:
                with translated("pull"):
                    async for frame in self._stub.Pull(request, metadata=metadata()):
                        data = frame.data
                        if filled + len(data) > nbytes:
                            raise Transient("more bytes than the base has; pulling it again", _PAUSE)
                        buffer[filled : filled + len(data)] = data
                        filled += len(data)
                        await sha.follow(filled)
            except Transient:
                if filled == before:
                    raise
            if filled == before:
                raise Transient(f"the base ends after {before} of {nbytes} bytes", _PAUSE)
        if await sha.hexdigest(filled) != digest:
            raise Transient("the base does not have its digest; pulling it again", _PAUSE)
        return buffer

    async def push(self, manifest: pb.Manifest, data: memoryview) -> bool:
        """Deliver a contribution, from where a cut left off; true when it had been accepted before.

        Raises:
            Transient: whether it was accepted is not known; sending it again is safe.
            Refused: it does not count. ``NOT_FOUND``: under this membership, which has ended.
        """
        with translated("push"):
            progress = await self._stub.Progress(manifest.key, timeout=DEADLINE.total_seconds(), metadata=metadata())
            if progress.accepted:
                return True
            manifest.offset = min(progress.received_bytes, manifest.total_bytes)
            receipt = await self._stub.Push(_frames(manifest, data), metadata=metadata())
        return receipt.duplicate

    async def accepted(self, round_number: int, attempt: int) -> bool:
        """Whether an earlier membership's contribution to this round counts already."""
        key = pb.ContributionKey(federation=self._federation, site=self._site, round=round_number, attempt=attempt)
        with translated("progress"):
            progress = await self._stub.Progress(key, timeout=DEADLINE.total_seconds(), metadata=metadata())
        return progress.accepted

    async def leave(self, attempt: int, reason: str) -> None:
        request = pb.LeaveRequest(federation=self._federation, site=self._site, attempt=attempt, reason=reason)
        with translated("leave"):
            await self._stub.Leave(request, timeout=DEADLINE.total_seconds(), metadata=metadata())

    async def close(self) -> None:
        await self._channel.close()


class _HashBehind:
    """The SHA-256 of a buffer that is being filled, some MiB behind whoever fills it, and beside the event loop."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._sha = hashlib.sha256()
        self._hashed = 0
        self._running: asyncio.Future[None] | None = None

    async def follow(self, filled: int) -> None:
        """So many bytes are there now. Waits only for a hash that has fallen a whole stretch behind."""
        if filled - self._hashed < _STRETCH:
            return
        if self._running is not None:
            await self._running
        piece, self._hashed = self._buffer[self._hashed : filled], filled
        self._running = asyncio.get_running_loop().run_in_executor(None, self._sha.update, piece)

    async def hexdigest(self, filled: int) -> str:
        """Of everything up to here."""
        if self._running is not None:
            await self._running
        self._sha.update(self._buffer[self._hashed : filled])
        return self._sha.hexdigest()


async def _frames(manifest: pb.Manifest, data: memoryview) -> AsyncIterator[pb.PushFrame]:
    yield pb.PushFrame(manifest=manifest)
    for start in range(manifest.offset, len(data), CHUNK_BYTES):
        yield pb.PushFrame(data=bytes(data[start : start + CHUNK_BYTES]))


def tensors_of(layout: Layout) -> list[pb.Tensor]:
    """A layout as a manifest declares it."""
    return [pb.Tensor(name=spec.name, shape=spec.shape, dtype=spec.dtype) for spec in layout.tensors]
