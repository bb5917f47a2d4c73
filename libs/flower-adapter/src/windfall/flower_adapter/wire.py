"""``Messages`` on both ends of the wire, with bulk frames that pass protobuf by (``windfall.servicekit.frames``)."""

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import grpc
import grpc.aio

from windfall.contracts.v1 import messages_pb2 as pb
from windfall.contracts.v1 import messages_pb2_grpc as rpc
from windfall.flower_adapter.blobs import Blobs
from windfall.servicekit.frames import framed, unframed
from windfall.servicekit.rpc import metadata

CHUNK: Final = 1024 * 1024
"""Bodies travel in pieces of this size."""

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["Messages"].full_name
_FETCHED: Final = pb.FetchFrame.DATA_FIELD_NUMBER
_KEPT_FRAMES: Final = 6
_REPLIED: Final = pb.ReplyFrame.DATA_FIELD_NUMBER

ReplyFrame = pb.ReplyFrame | memoryview
"""A frame, or the bytes of one that holds nothing else."""


def register(servicer: rpc.MessagesServicer, server: Any) -> None:
    """In place of the generated function. ``Fetch`` yields what ``Frames`` reads; ``Reply`` is given
    ``ReplyFrame``."""
    rpc.add_MessagesServicer_to_server(servicer, server)
    bulk = {
        "Fetch": grpc.unary_stream_rpc_method_handler(servicer.Fetch, pb.FetchRequest.FromString, _as_it_is),
        "Reply": grpc.stream_unary_rpc_method_handler(servicer.Reply, _reply, pb.ReplyReceipt.SerializeToString),
    }
    # What is registered last counts.
    server.add_registered_method_handlers(_SERVICE, bulk)


class Frames:
    """The last pieces that went down. Sites fetch a model at once and nearly in step: it is read once for them."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    def read(self, blobs: Blobs, sha256: str, offset: int) -> bytes | None:
        """A piece as it travels; none at the body's end. Raises ``FileNotFoundError`` when the body has gone."""
        frame = self._last.get((sha256, offset))
        if frame is None:
            if not (data := blobs.stretch(sha256, offset, CHUNK)):
                return None
            frame = self._last[sha256, offset] = framed(_FETCHED, data)
            if len(self._last) > _KEPT_FRAMES:
                self._last.popitem(last=False)
        return frame


class BulkStub:
    """``Fetch`` and ``Reply`` as the generated stub has them, but for what their frames are made of."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._fetch: Any = channel.unary_stream(
            f"/{_SERVICE}/Fetch", request_serializer=pb.FetchRequest.SerializeToString, response_deserializer=_fetched
        )
        self._reply: Any = channel.stream_unary(
            f"/{_SERVICE}/Reply", request_serializer=_written, response_deserializer=pb.ReplyReceipt.FromString
        )

    async def fetch(self, request: pb.FetchRequest) -> AsyncIterator[memoryview]:
        """A body from an offset on."""
        async for data in self._fetch(request, metadata=metadata()):
            yield data

    async def reply(self, head: pb.ReplyHead, pieces: Iterable[bytes]) -> pb.ReplyReceipt:
        """A head, and the body from its offset on."""
        receipt: pb.ReplyReceipt = await self._reply(_frames(head, pieces), metadata=metadata())
        return receipt


async def _frames(head: pb.ReplyHead, pieces: Iterable[bytes]) -> AsyncIterator[pb.ReplyFrame | bytes]:
    yield pb.ReplyFrame(head=head)
    skip = head.offset
    for piece in pieces:
        start = min(skip, len(piece))
        skip -= start
        view = memoryview(piece)
        for at in range(start, len(piece), CHUNK):
            yield framed(_REPLIED, view[at : at + CHUNK])


def _as_it_is(frame: bytes) -> bytes:
    return frame


def _written(frame: pb.ReplyFrame | bytes) -> bytes:
    return frame if isinstance(frame, bytes) else frame.SerializeToString()


def _reply(message: bytes) -> ReplyFrame:
    data = unframed(_REPLIED, message)
    return pb.ReplyFrame.FromString(message) if data is None else data


def _fetched(message: bytes) -> memoryview:
    data = unframed(_FETCHED, message)
    return memoryview(pb.FetchFrame.FromString(message).data) if data is None else data
