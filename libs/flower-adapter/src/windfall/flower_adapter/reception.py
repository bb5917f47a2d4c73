"""A reply on its way in: declared, received, hashed, read and checked before the strategy may have it.

A reply that does not pass is refused for good: the site is told with a status, the strategy gets an error in its place
and the fleet hears ``contribution.refused``. A transfer that was cut goes on where it stopped.
"""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from flwr.app import RecordDict

from windfall.contracts.v1 import messages_pb2 as pb
from windfall.flower_adapter.arrays import finite
from windfall.flower_adapter.blobs import EMPTY, Damaged, Incoming
from windfall.flower_adapter.content import HEADER_BYTES, Unreadable, unpack
from windfall.flower_adapter.exchange import TRAIN
from windfall.flower_adapter.office import Office
from windfall.flower_adapter.said import told
from windfall.flower_adapter.streams import NotMember
from windfall.flower_adapter.values import Answer, Sent, Told
from windfall.servicekit.errors import Transient
from windfall.servicekit.offload import finished
from windfall.servicekit.telemetry import outgoing_trace

_REASON_CHARACTERS: Final = 2000
"""Of a stranger's error that are kept."""
_SHORT: Final = 64 * 1024
"""Bodies up to here are journaled with their answer: one flush of the disk instead of three."""


class Refused(Exception):
    """The reply does not pass, and would not if it came again."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Caps:
    """What is taken at most, in bytes."""

    body: int
    buffered: int
    """All replies to a batch together."""
    refuse_not_finite: bool


class Reception:
    """Takes replies in for one office."""

    def __init__(self, office: Office, caps: Caps) -> None:
        self._office = office
        self.caps = caps
        self._arriving: dict[str, int] = {}

    async def receive(self, head: pb.ReplyHead, chunks: AsyncIterator[memoryview]) -> bool:
        """Take a reply in; true when its message was answered before.

        Raises:
            NotMember: membership has ended, or nothing of this id waits for this site.
            Refused: it does not pass.
            Transient: it may come again, from where ``ReplyProgress`` says.
        """
        office, key = self._office, head.key
        office.check_member(key.site, key.attempt)
        if office.is_answered(key.message_id):
            return True
        sent = office.state.waiting.get(key.message_id)
        if sent is None or sent.site != key.site:
            raise NotMember(f"no message {key.message_id[:64]!r} waits for {key.site}")
        if head.HasField("error"):
            reason = head.error.reason[:_REASON_CHARACTERS]
            await office.take(
                Answer(id=sent.id, error_code=head.error.code, reason=reason, trace=outgoing_trace()), None, Told()
            )
            return False
        if sent.id in self._arriving:
            # A cut link is noticed at the site first: the stream that it broke is about to end here as well.
            raise Transient("this reply is on its way already")
        try:
            self._check_size(head)
            self._arriving[sent.id] = head.body_bytes
            body = b""
            if head.body_bytes <= _SHORT:
                body = await self._short(head, chunks)
                content = self._checked(head, sent, body)
            else:
                await self._long(head, sent, chunks)
                content = await office.offload(self._read, head, sent)
        except Refused as refused:
            await office.refuse(sent.id, refused.reason, refused.detail)
            raise
        finally:
            self._arriving.pop(sent.id, None)
        answer = Answer(
            id=sent.id,
            header=head.header.decode(),
            body_sha256=head.body_sha256,
            body_bytes=head.body_bytes,
            body=base64.b64encode(body).decode(),
            trace=outgoing_trace(),
        )
        metrics = {name: value for record in content.metric_records.values() for name, value in record.items()}
        await office.take(answer, content, told(metrics))
        return False

    def _check_size(self, head: pb.ReplyHead) -> None:
        caps, state = self.caps, self._office.state
        if head.body_bytes > caps.body:
            detail = f"{head.body_bytes} bytes are declared, at most {caps.body} are taken (WINDFALL_MAX_MESSAGE_BYTES)"
            raise Refused("size", detail)
        together = state.buffered_bytes + sum(self._arriving.values()) + head.body_bytes
        if together > caps.buffered:
            detail = f"the batch's replies would hold {together} bytes, at most {caps.buffered} are buffered"
            raise Refused("size", f"{detail} (WINDFALL_MAX_BUFFERED_BYTES)")
        if len(head.header) > HEADER_BYTES:
            raise Refused("size", f"a header of {len(head.header)} bytes, at most {HEADER_BYTES} are taken")
        if not head.body_bytes and head.body_sha256 != EMPTY:
            raise Refused("digest", "an empty body under another digest")

    async def _short(self, head: pb.ReplyHead, chunks: AsyncIterator[memoryview]) -> bytes:
        body = bytearray()
        async for chunk in chunks:
            body += chunk
            if len(body) > head.body_bytes:
                raise Refused("size", f"more than the declared {head.body_bytes} bytes")
        if len(body) < head.body_bytes:
            raise Transient(f"{len(body)} of {head.body_bytes} bytes arrived")
        if hashlib.sha256(body).hexdigest() != head.body_sha256:
            raise Refused("digest", "the bytes do not have the declared SHA-256")
        return bytes(body)

    async def _long(self, head: pb.ReplyHead, sent: Sent, chunks: AsyncIterator[memoryview]) -> None:
        office = self._office
        incoming: Incoming = await office.offload(office.blobs.incoming, sent.id, head.body_sha256, head.body_bytes)
        writing: asyncio.Future[None] | None = None
        try:
            if head.offset != incoming.received:
                raise Transient(f"bytes from {head.offset} are offered, {incoming.received} are wanted")
            async for chunk in chunks:
                # The next piece comes while this one is hashed and written.
                if writing is not None:
                    await finished(writing)
                writing = asyncio.ensure_future(office.offload(incoming.write, chunk))
            if writing is not None:
                await finished(writing)
            if incoming.received < head.body_bytes:
                # A broken stream may look like one that has ended.
                raise Transient(f"{incoming.received} of {head.body_bytes} bytes arrived")
            await finished(asyncio.ensure_future(office.offload(incoming.seal)))
        except Damaged as damaged:
            if head.offset:
                raise Transient("the bytes before the cut are damaged; begin again") from damaged
            raise Refused("digest", str(damaged)) from damaged
        finally:
            if writing is not None and not writing.done():
                await finished(writing)
            incoming.pause()

    def _read(self, head: pb.ReplyHead, sent: Sent) -> RecordDict:
        with self._office.blobs.opened(head.body_sha256) as body:
            return self._checked(head, sent, body)

    def _checked(self, head: pb.ReplyHead, sent: Sent, body: memoryview | bytes) -> RecordDict:
        try:
            content = unpack(head.header, body)
        except Unreadable as error:
            raise Refused("layout", str(error)) from error
        if self.caps.refuse_not_finite and sent.category == TRAIN:
            for record in content.array_records.values():
                for name, array in record.items():
                    if not finite(array):
                        raise Refused("not-finite", f"array {name[:80]!r} holds NaN or infinity")
        return content
