"""The ``Messages`` service: gRPC in, office out. It translates and refuses; it decides nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import grpc
from pydantic import TypeAdapter

from windfall.contracts.message import Name
from windfall.contracts.v1 import messages_pb2 as pb
from windfall.contracts.v1 import messages_pb2_grpc as rpc
from windfall.flower_adapter.blobs import EMPTY
from windfall.flower_adapter.exchange import Fenced, node_id_of
from windfall.flower_adapter.office import Office
from windfall.flower_adapter.reception import Reception, Refused
from windfall.flower_adapter.streams import NotMember
from windfall.flower_adapter.wire import CHUNK, Frames, ReplyFrame
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.rpc import serving

PROTOCOL: Final = 1
HEARTBEAT: Final = timedelta(seconds=1)
"""How often a member says that it lives, in wall time."""

_NAME: Final[TypeAdapter[str]] = TypeAdapter(Name)
_SHOWN: Final = 60
"""Characters of a stranger's word that are said back."""
_CODES: Final = {"size": grpc.StatusCode.RESOURCE_EXHAUSTED}


class MessagesService(rpc.MessagesServicer):
    """See ``proto/windfall/contracts/v1/messages.proto``.

    Args:
        app: ``publisher/name`` of the app that runs; sites hold the same.
        sites: who may join; empty for anybody.
    """

    def __init__(
        self,
        office: Office,
        reception: Reception,
        app: str,
        sites: tuple[str, ...],
        heartbeat: timedelta = HEARTBEAT,
    ) -> None:
        self._office = office
        self._reception = reception
        self._app = app
        self._sites = frozenset(sites)
        self._heartbeat = heartbeat
        self._frames = Frames()

    async def Join(self, request: pb.NodeJoinRequest, context: Any) -> pb.NodeJoinReply:  # noqa: N802 - gRPC's name
        with serving(context, "Messages/Join", {"windfall.site": request.site}):
            await self._check_join(request, context)
            try:
                window_id = UUID(request.window_id)
            except ValueError:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "window_id is not a UUID")
            state = self._office.state
            async with self._answering(context):
                attempt = await self._office.join(request.site, window_id, request.lease_token)
            return pb.NodeJoinReply(
                attempt=attempt,
                node_id=node_id_of(state.federation, request.site),
                run_id=state.run_id,
                run_config_json=self._office.config_json(),
                heartbeat_interval_ms=round(self._heartbeat.total_seconds() * 1000),
                max_body_bytes=self._reception.caps.body,
            )

    async def Listen(  # noqa: N802
        self, beats: AsyncIterator[pb.NodeBeat], context: Any
    ) -> AsyncIterator[pb.Announcement]:
        first = await anext(aiter(beats), None)
        if first is None:
            return
        listening = asyncio.get_running_loop().create_task(self._hear(first, beats))
        try:
            async for announcement in self._office.announcements(first.site, first.attempt):
                yield announcement
        except NotMember as ended:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(ended))
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def Fetch(self, request: pb.FetchRequest, context: Any) -> AsyncIterator[Any]:  # noqa: N802 - see ``wire``
        with serving(context, "Messages/Fetch", {"windfall.site": request.site}):
            office = self._office
            async with self._answering(context):
                office.check_member(request.site, request.attempt)
            waiting = [one for one in office.state.waiting.values() if one.site == request.site]
            if request.body_sha256 == EMPTY or request.body_sha256 not in {one.body_sha256 for one in waiting}:
                await context.abort(grpc.StatusCode.NOT_FOUND, "no message with this body waits for this site")
            offset = request.offset
            while True:
                try:
                    frame = self._frames.read(office.blobs, request.body_sha256, offset)
                except FileNotFoundError:
                    # Answered meanwhile; or lost in a crash, and the strategy is about to send it again.
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "this body is not here now")
                if frame is None:
                    return
                yield frame
                offset += CHUNK

    async def ReplyProgress(self, request: pb.ReplyKey, context: Any) -> pb.ReplyProgressReply:  # noqa: N802
        office = self._office
        async with self._answering(context):
            office.check_member(request.site, request.attempt)
        if request.message_id not in office.state.waiting:
            return pb.ReplyProgressReply(answered=office.is_answered(request.message_id))
        return pb.ReplyProgressReply(received_bytes=office.blobs.received(request.message_id))

    async def Reply(self, frames: AsyncIterator[Any], context: Any) -> pb.ReplyReceipt:  # noqa: N802 - see ``wire``
        source = aiter(frames)
        first: ReplyFrame | None = await anext(source, None)
        if first is None or isinstance(first, memoryview) or first.WhichOneof("kind") != "head":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a reply begins with its head")
        assert isinstance(first, pb.ReplyFrame)
        with serving(context, "Messages/Reply", {"windfall.site": first.head.key.site}):
            async with self._answering(context):
                duplicate = await self._reception.receive(first.head, _data(source))
            return pb.ReplyReceipt(duplicate=duplicate)

    async def Leave(self, request: pb.NodeLeaveRequest, context: Any) -> pb.NodeLeaveReply:  # noqa: N802
        with serving(context, "Messages/Leave", {"windfall.site": request.site}):
            async with self._answering(context):
                await self._office.leave(request.site, request.attempt)
            return pb.NodeLeaveReply()

    async def _hear(self, first: pb.NodeBeat, beats: AsyncIterator[pb.NodeBeat]) -> None:
        self._office.beat(first.site, first.attempt, first.draining)
        async for beat in beats:
            # Who a stream belongs to is said once.
            self._office.beat(first.site, first.attempt, beat.draining)

    @asynccontextmanager
    async def _answering(self, context: Any) -> AsyncIterator[None]:
        """Turn what the office raises into gRPC statuses."""
        try:
            yield
        except Fenced as fenced:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(fenced))
        except NotMember as ended:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(ended))
        except Refused as refused:
            code = _CODES.get(refused.reason, grpc.StatusCode.INVALID_ARGUMENT)
            await context.abort(code, str(refused))
        except Transient as passing:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(passing))
        except Mistake as mistake:
            # What a person must mend here, and where it lies, is no site's business.
            self._office.stand.fail(mistake)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the coordinator cannot go on and ends")

    async def _check_join(self, request: pb.NodeJoinRequest, context: Any) -> None:
        federation = self._office.state.federation
        if request.protocol != PROTOCOL:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"protocol {request.protocol} is not spoken here; this coordinator speaks {PROTOCOL}",
            )
        if request.federation != federation:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"there is no federation {request.federation[:_SHOWN]!r} here"
            )
        try:
            _NAME.validate_python(request.site)
        except ValueError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{request.site[:_SHOWN]!r} is no name of a site")
        if self._sites and request.site not in self._sites:
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED, f"{request.site!r} is not a site of {request.federation}"
            )
        if request.lease_token < 1:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "a site joins under a lease")
        if request.app != self._app:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"this run is of {self._app}; the site holds {request.app[:_SHOWN]!r}",
            )


async def _data(frames: AsyncIterator[ReplyFrame]) -> AsyncIterator[memoryview]:
    async for frame in frames:
        if isinstance(frame, memoryview):
            yield frame
        elif frame.WhichOneof("kind") == "data":
            yield memoryview(frame.data)
        else:
            raise Refused("size", "a second head in one stream")
