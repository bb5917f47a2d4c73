"""Bulk bytes on their way: frames of a push and a pull that pass protobuf by, and a hash beside the stream."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc.aio

from windfall.contracts.v1 import training_pb2 as pb
from windfall.servicekit.frames import AT_ONCE_BYTES, INVITED, framed, unframed
from windfall.servicekit.rpc import CHUNK_BYTES, metadata

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["Training"].full_name
_PULLED: Final = pb.PullFrame.DATA_FIELD_NUMBER
_PUSHED: Final = pb.PushFrame.DATA_FIELD_NUMBER
_STRETCH: Final = 4 * 1024 * 1024
"""Bytes that are worth the way to a thread."""


class BulkStub:
    """``Pull`` and ``Push`` as the generated stub has them, but for what their frames are made of."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._pull: Any = channel.unary_stream(
            f"/{_SERVICE}/Pull", request_serializer=pb.PullRequest.SerializeToString, response_deserializer=read_frame
        )
        self._push: Any = channel.stream_unary(
            f"/{_SERVICE}/Push", request_serializer=_written, response_deserializer=pb.PushReceipt.FromString
        )

    async def pull(self, request: pb.PullRequest) -> AsyncIterator[pb.PullHead | memoryview]:
        """The head, if there is one, and then the bytes."""
        async for frame in self._pull(request, metadata=metadata()):
            if isinstance(frame, memoryview):
                yield frame
            elif frame.WhichOneof("kind") == "head":
                yield frame.head
            else:
                yield memoryview(frame.data)

    async def push(self, manifest: pb.Manifest, data: memoryview, invites: bool) -> pb.PushReceipt:
        """A manifest, and the bytes from its offset on.

        Args:
            invites: the coordinator says when it wants the bytes; many are sent only then.
        """

        async def frames() -> AsyncIterator[pb.PushFrame | bytes]:
            yield pb.PushFrame(manifest=manifest)
            if invites and len(data) - manifest.offset > AT_ONCE_BYTES:
                told = await call.initial_metadata()
                if not any(key == INVITED for key, _ in told):
                    # It is refused: writing now would hide why.
                    await call.code()
                    return
            for start in range(manifest.offset, len(data), CHUNK_BYTES):
                yield framed(_PUSHED, data[start : start + CHUNK_BYTES])

        call = self._push(frames(), metadata=metadata())
        receipt: pb.PushReceipt = await call
        return receipt


class HashBehind:
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


def room(nbytes: int) -> memoryview:
    """So many writable bytes, with whatever is in them. numpy asks for them in large pages: filling those costs a
    quarter of the CPU that a page fault for every 4 KiB does."""
    # Imported here: a site joins before it loads what it trains with.
    import numpy as np

    return np.empty(nbytes, np.uint8).data


def _written(frame: pb.PushFrame | bytes) -> bytes:
    return frame if isinstance(frame, bytes) else frame.SerializeToString()


def read_frame(message: bytes) -> pb.PullFrame | memoryview:
    data = unframed(_PULLED, message)
    return pb.PullFrame.FromString(message) if data is None else data
