"""The ``Training`` service: gRPC in, coordinator out. It translates and refuses; it decides nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import grpc
from pydantic import TypeAdapter

from windfall.contracts.message import Name
from windfall.contracts.v1 import training_pb2 as pb
from windfall.contracts.v1 import training_pb2_grpc as rpc
from windfall.federation_coordinator.app import Coordinator
from windfall.federation_coordinator.checks import Refusal, described
from windfall.federation_coordinator.federation import Fenced, NotMember
from windfall.federation_coordinator.jurisdiction import Law, refusal, refused
from windfall.federation_coordinator.outer_step import Base, Stretch, size_of
from windfall.federation_coordinator.turns import Turns
from windfall.federation_coordinator.wire import Frames, PushFrame, invited
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.rpc import serving
from windfall.servicekit.transferred import IN_FULL
from windfall.tasks.ranges import Ranges

PROTOCOL = 1
HEARTBEAT = timedelta(seconds=1)
"""How often a member says that it lives, in wall time."""

_NAME: Final[TypeAdapter[str]] = TypeAdapter(Name)
_SHOWN: Final = 60
"""Characters of a stranger's word that are said back."""

_CODES = {
    # Join again: the same contribution may count under the new membership.
    "member": grpc.StatusCode.NOT_FOUND,
    "lease": grpc.StatusCode.FAILED_PRECONDITION,
    "round": grpc.StatusCode.FAILED_PRECONDITION,
    "base": grpc.StatusCode.FAILED_PRECONDITION,
    "size": grpc.StatusCode.INVALID_ARGUMENT,
    # The operator changed the rule: who joins again learns it.
    "codec": grpc.StatusCode.NOT_FOUND,
    "layout": grpc.StatusCode.INVALID_ARGUMENT,
    "digest": grpc.StatusCode.INVALID_ARGUMENT,
    "not-finite": grpc.StatusCode.INVALID_ARGUMENT,
    "tokens": grpc.StatusCode.INVALID_ARGUMENT,
    "norm": grpc.StatusCode.INVALID_ARGUMENT,
    "replay": grpc.StatusCode.INVALID_ARGUMENT,
    "shut-out": grpc.StatusCode.PERMISSION_DENIED,
    "rows": grpc.StatusCode.FAILED_PRECONDITION,
    "signature": grpc.StatusCode.PERMISSION_DENIED,
}


class TrainingService(rpc.TrainingServicer):
    """See ``proto/windfall/contracts/v1/training.proto``."""

    def __init__(
        self,
        coordinator: Coordinator,
        sites: tuple[str, ...],
        heartbeat: timedelta = HEARTBEAT,
        law: Law = Law(),
        overlap: bool = False,
    ) -> None:
        self._overlap = overlap
        self._law = law
        self._heartbeat = heartbeat
        self._frames = Frames()
        self._turns_down, self._turns_up = Turns(), Turns()
        self._coordinator = coordinator
        self._sites = frozenset(sites)

    async def Join(self, request: pb.JoinRequest, context: Any) -> pb.JoinReply:  # noqa: N802 - gRPC's name
        with serving(context, "Training/Join", {"windfall.site": request.site}):
            await self._check_join(request, context)
            coordinator = self._coordinator
            try:
                window_id = UUID(request.window_id)
            except ValueError:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "window_id is not a UUID")
            async with self._answering(context):
                attempt = coordinator.join(request.site, window_id, request.lease_token, request.signs)
            codec, outer, clip, merge = coordinator.store.rule.settings
            return pb.JoinReply(
                attempt=attempt,
                task=coordinator.model.task,
                task_settings_json=coordinator.model.task_settings,
                tensors=described(coordinator.model.layout),
                codec=codec,
                heartbeat_interval_ms=round(self._heartbeat.total_seconds() * 1000),
                outer=outer,
                clip=clip,
                merge=merge,
                overlap=self._overlap,
                fragments=coordinator.store.fragments.count,
                jurisdiction=self._law.own,
                jurisdictions=self._law.allowed,
                corpus=coordinator.leases.terms,
            )

    async def Heartbeat(  # noqa: N802
        self, beats: AsyncIterator[pb.Beat], context: Any
    ) -> AsyncIterator[pb.Directive]:
        first = await anext(aiter(beats), None)
        if first is None:
            return
        site, attempt = first.site, first.attempt
        await self._check_name(site, context)
        listening = asyncio.get_running_loop().create_task(self._listen(first, beats))
        try:
            async for directive in self._coordinator.directives(site, attempt):
                if directive.HasField("round_opened"):
                    directive.round_opened.jurisdictions.extend(self._law.allowed)
                yield directive
        except NotMember as ended:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(ended))
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)

    async def Pull(self, request: pb.PullRequest, context: Any) -> AsyncIterator[Any]:  # noqa: N802
        with serving(context, "Training/Pull", {"windfall.site": request.site}):
            await self._coordinator.mending.whole()
            log = await self._log(request, context)
            # Only now: a round may have been merged while the log was put together.
            if request.base_digest != self._coordinator.state.base_digest:
                await context.abort(grpc.StatusCode.NOT_FOUND, "this base is not the current one")
            stretches = log or self._stretches(request)
            codec = IN_FULL if log is None else self._coordinator.store.rule.codec.name
            total = size_of(stretches)
            if request.offset > total:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the base has {total} bytes")
            if not request.offset:
                yield pb.PullFrame(head=pb.PullHead(total_bytes=total, log=log is not None))
            async with self._turns_down.one(total - request.offset):
                try:
                    for frame, count in self._frames.of(stretches, request.offset):
                        self._coordinator.pulled(count, codec)
                        # Nothing here holds on to the bytes while a slow site takes them.
                        yield frame
                except FileNotFoundError:
                    # It waited for its turn, and a round was merged meanwhile.
                    await context.abort(grpc.StatusCode.NOT_FOUND, "this base is not the current one any more")

    async def _log(self, request: pb.PullRequest, context: Any) -> list[Stretch] | None:
        """What leads from the base that the site holds to the one that it asks for, when that is shorter."""
        if not request.held_digest or request.offset:
            return None
        coordinator, found = self._coordinator, None
        async with self._answering(context):
            found = await coordinator.offload(
                coordinator.store.log, request.held_digest, request.base_digest, request.held_contribution
            )
        return found

    def _stretches(self, request: pb.PullRequest) -> list[Stretch]:
        """What a full download is made of: the model, and for who will follow the outer log, the optimizer's state."""
        store, number = self._coordinator.store, self._coordinator.state.round
        states = store.states(number) if request.follow else []
        return [store.base(number), *(Base(path, 0, path.stat().st_size) for path in states)]

    async def Progress(self, request: pb.ContributionKey, context: Any) -> pb.PushProgress:  # noqa: N802
        coordinator = self._coordinator
        accepted = coordinator.accepted(request)
        known = request.site in coordinator.state.members
        received = coordinator.store.received(request.round, request.site, request.attempt) if known else 0
        return pb.PushProgress(received_bytes=received, accepted=accepted, invites=True)

    async def Push(self, frames: AsyncIterator[PushFrame], context: Any) -> pb.PushReceipt:  # noqa: N802
        source = aiter(frames)
        first = await anext(source, None)
        if not isinstance(first, pb.PushFrame) or first.WhichOneof("kind") != "manifest":
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a contribution begins with its manifest")
        assert isinstance(first, pb.PushFrame)
        key = first.manifest.key
        with serving(context, "Training/Push", {"windfall.site": key.site, "windfall.round": key.round}):
            size = first.manifest.total_bytes - first.manifest.offset
            async with self._answering(context), self._turns_up.later(size) as turn:
                duplicate = await self._coordinator.receive(first.manifest, invited(source, context, turn))
            return pb.PushReceipt(duplicate=duplicate)

    async def Leave(self, request: pb.LeaveRequest, context: Any) -> pb.LeaveReply:  # noqa: N802
        with serving(context, "Training/Leave", {"windfall.site": request.site}):
            async with self._answering(context):
                self._coordinator.leave(request.site, request.attempt)
            return pb.LeaveReply()

    async def Rows(self, request: pb.RowsRequest, context: Any) -> pb.RowsReply:  # noqa: N802
        with serving(context, "Training/Rows", {"windfall.site": request.site}):
            held: Ranges = ()
            async with self._answering(context):
                held = self._coordinator.leases.lease(request, self._coordinator.state.members)
            return pb.RowsReply(held=[pb.RowRange(begin=begin, end=end) for begin, end in held])

    async def _listen(self, first: pb.Beat, beats: AsyncIterator[pb.Beat]) -> None:
        self._coordinator.beat(first)
        async for beat in beats:
            # Who a stream belongs to is said once.
            beat.site, beat.attempt = first.site, first.attempt
            self._coordinator.beat(beat)

    @asynccontextmanager
    async def _answering(self, context: Any) -> AsyncIterator[None]:
        """Turn what the coordinator raises into gRPC statuses."""
        try:
            yield
        except Fenced as fenced:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(fenced))
        except Refusal as refusal:
            await context.abort(_CODES[refusal.reason], f"{refusal.reason}: {refusal.detail}")
        except Transient as passing:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(passing))
        except Mistake as mistake:
            # What a person must mend here, and where it lies, is no site's business.
            self._coordinator.stand.fail(mistake)
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the coordinator cannot go on and ends")

    async def _check_join(self, request: pb.JoinRequest, context: Any) -> None:
        state = self._coordinator.state
        if request.protocol != PROTOCOL:
            await context.abort(
                grpc.StatusCode.FAILED_PRECONDITION,
                f"protocol {request.protocol} is not spoken here; this coordinator speaks {PROTOCOL}",
            )
        if request.federation != state.name:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"there is no federation {request.federation[:_SHOWN]!r} here"
            )
        await self._check_name(request.site, context)
        await self._check_jurisdiction(request, context)
        if self._sites and request.site not in self._sites:
            await context.abort(
                grpc.StatusCode.PERMISSION_DENIED, f"{request.site!r} is not a site of {request.federation}"
            )
        if request.lease_token < 1:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "a site joins under a lease")
        if state.fragments > 1 and not request.fragments:
            await context.abort(
                grpc.StatusCode.UNIMPLEMENTED,
                f"this federation synchronises {state.fragments} fragments in turn, which this trainer cannot; run the"
                " coordinator's version",
            )

    async def _check_jurisdiction(self, request: pb.JoinRequest, context: Any) -> None:
        if detail := refusal(self._law, request.jurisdiction):
            stand, label = self._coordinator.stand, request.jurisdiction[:_SHOWN]
            stand.journal.commit(say=(refused(request.federation, request.site, label, detail, stand.clock.now()),))
            stand.outbox.wake()
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, detail)

    async def _check_name(self, site: str, context: Any) -> None:
        if not _is_name(site):
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"{site[:_SHOWN]!r} is no name of a site")


def _is_name(text: str) -> bool:
    try:
        _NAME.validate_python(text)
    except ValueError:
        return False
    return True
