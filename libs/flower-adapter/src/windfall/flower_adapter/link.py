"""The coordinator of a Flower app as a site sees it, over gRPC."""

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import grpc.aio

from windfall.contracts.message import sentence
from windfall.contracts.v1 import messages_pb2 as pb
from windfall.contracts.v1.messages_pb2_grpc import MessagesStub
from windfall.flower_adapter.client_host import Identity, Outcome
from windfall.flower_adapter.messages import PROTOCOL
from windfall.flower_adapter.wire import BulkStub
from windfall.servicekit.errors import Transient
from windfall.servicekit.rpc import DEADLINE, Refused, metadata, translated

_DEADLINE_S: Final = DEADLINE.total_seconds()
_STRETCH: Final = 4 * 1024 * 1024
"""Bytes that are worth the way to a thread."""


@dataclass(frozen=True)
class Membership:
    """What the coordinator said when it admitted us."""

    attempt: int
    identity: Identity
    heartbeat_s: float
    max_body_bytes: int


class NodeLink:
    """One site's calls. ``Transient`` means try again, ``Refused`` means no.

    Args:
        max_body_bytes: the longest body that is fetched.
    """

    def __init__(self, channel: grpc.aio.Channel, federation: str, site: str, max_body_bytes: int) -> None:
        self._channel = channel
        self._stub = MessagesStub(channel)
        self._bulk = BulkStub(channel)
        self._federation = federation
        self._site = site
        self._max_body_bytes = max_body_bytes

    async def join(self, window_id: UUID, lease_token: int, app: str) -> Membership:
        request = pb.NodeJoinRequest(
            federation=self._federation,
            site=self._site,
            window_id=str(window_id),
            lease_token=lease_token,
            protocol=PROTOCOL,
            app=app,
        )
        with translated("join"):
            reply = await self._stub.Join(request, timeout=_DEADLINE_S, metadata=metadata())
        identity = Identity(reply.run_id, reply.node_id, json.loads(reply.run_config_json))
        return Membership(reply.attempt, identity, max(0.1, reply.heartbeat_interval_ms / 1000), reply.max_body_bytes)

    async def announcements(
        self, membership: Membership, draining: asyncio.Event
    ) -> AsyncGenerator[pb.Announcement, None]:
        """What the coordinator says for as long as the stream holds; signs of life go up at once and then regularly.

        Args:
            draining: set when we are about to go; that goes up at once as well.
        """

        async def beats() -> AsyncGenerator[pb.NodeBeat, None]:
            while True:
                drains = draining.is_set()
                yield pb.NodeBeat(
                    federation=self._federation, site=self._site, attempt=membership.attempt, draining=drains
                )
                with suppress(TimeoutError):
                    async with asyncio.timeout(membership.heartbeat_s):
                        await (asyncio.Event() if drains else draining).wait()

        with translated("listen"):
            call = self._stub.Listen(beats(), metadata=metadata())
            try:
                async for announcement in call:
                    yield announcement
            finally:
                # Ends the beats as well: the call owns them while it runs.
                call.cancel()

    async def fetch(self, attempt: int, sha256: str, nbytes: int) -> memoryview:
        """A body, checked against its digest; a cut goes on where it stopped.

        Raises:
            Transient: nothing arrived, or not what was announced.
            Refused: the message does not wait for us any more, or is longer than we take.
        """
        if nbytes > self._max_body_bytes:
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"a message of {nbytes} bytes; this site takes {self._max_body_bytes} (WINDFALL_MAX_MESSAGE_BYTES)",
            )
        buffer, filled = memoryview(bytearray(nbytes)), 0
        digest = _HashBehind(buffer)
        while filled < nbytes:
            before = filled
            request = pb.FetchRequest(
                federation=self._federation, site=self._site, attempt=attempt, body_sha256=sha256, offset=filled
            )
            try:
                with translated("fetch"):
                    async for data in self._bulk.fetch(request):
                        if filled + len(data) > nbytes:
                            raise Transient("more bytes came than were announced")
                        buffer[filled : filled + len(data)] = data
                        filled += len(data)
                        digest.follow(filled)
            except Transient:
                if filled == before:
                    raise
            if filled == before:
                raise Transient(f"the body ends after {filled} of {nbytes} bytes")
        if await digest.hexdigest() != sha256:
            raise Transient("the body does not have its digest")
        return buffer

    async def reply(self, membership: Membership, lease_token: int, message_id: str, outcome: Outcome) -> bool:
        """Deliver a reply, from where a cut left off; true when the message had been answered before.

        Raises:
            Transient: whether it was taken is not known; sending it again is safe.
            Refused: it does not count.
        """
        key = pb.ReplyKey(
            federation=self._federation, site=self._site, attempt=membership.attempt, message_id=message_id
        )
        head = pb.ReplyHead(key=key, lease_token=lease_token)
        pieces: tuple[bytes, ...] = ()
        with translated("reply"):
            if outcome.packed is None:
                head.error.CopyFrom(pb.ReplyError(code=outcome.code, reason=sentence(outcome.reason)))
            else:
                pieces = outcome.packed.pieces
                head.header, head.body_bytes = outcome.packed.header, outcome.packed.body_bytes
                head.body_sha256 = await asyncio.to_thread(_sha256, pieces)
                if head.body_bytes:
                    progress = await self._stub.ReplyProgress(key, timeout=_DEADLINE_S, metadata=metadata())
                    if progress.answered:
                        return True
                    head.offset = min(progress.received_bytes, head.body_bytes)
            receipt = await self._bulk.reply(head, pieces)
        return receipt.duplicate

    async def leave(self, attempt: int, reason: str) -> None:
        request = pb.NodeLeaveRequest(
            federation=self._federation, site=self._site, attempt=attempt, reason=sentence(reason)
        )
        with translated("leave"):
            await self._stub.Leave(request, timeout=_DEADLINE_S, metadata=metadata())

    async def close(self) -> None:
        await self._channel.close()


def _sha256(pieces: tuple[bytes, ...]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


class _HashBehind:
    """The SHA-256 of a buffer that is being filled, beside the event loop and never waited for while it fills."""

    def __init__(self, buffer: memoryview) -> None:
        self._buffer = buffer
        self._sha = hashlib.sha256()
        self._hashed = 0
        self._running: asyncio.Future[None] | None = None

    def follow(self, filled: int) -> None:
        """So many bytes are there now."""
        if filled - self._hashed < _STRETCH or (self._running is not None and not self._running.done()):
            return
        piece, self._hashed = self._buffer[self._hashed : filled], filled
        self._running = asyncio.get_running_loop().run_in_executor(None, self._sha.update, piece)

    async def hexdigest(self) -> str:
        """Of all of it."""
        if self._running is not None:
            await self._running
        await asyncio.to_thread(self._sha.update, self._buffer[self._hashed :])
        return self._sha.hexdigest()
