"""The federation-coordinator as a trainer sees it, over gRPC."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Final
from uuid import UUID

import grpc.aio
from google.protobuf.json_format import MessageToJson

from windfall.contracts.attestation import signed_bytes, statement
from windfall.contracts.message import sentence
from windfall.contracts.v1 import training_pb2 as pb
from windfall.contracts.v1.training_pb2_grpc import TrainingStub
from windfall.lowcomm.spec import Layout, TensorSpec
from windfall.servicekit.errors import Transient
from windfall.servicekit.rpc import DEADLINE, Refused, metadata, translated
from windfall.site_trainer.bulk import BulkStub, HashBehind, room
from windfall.site_trainer.claims import LONGEST_HEARTBEAT_S, check_claims
from windfall.tasks.ranges import Ranges

if TYPE_CHECKING:
    from windfall.lowcomm.rotation import Rotation
    from windfall.lowcomm.rule import Rule
    from windfall.servicekit.signing import Signer

PROTOCOL = 1

_PAUSE: Final = timedelta(seconds=1)
"""Wall time before a download that went wrong is tried again."""


@dataclass(frozen=True)
class SharedCorpus:
    """A corpus that every site holds a copy of."""

    rows: int
    seed: int
    """Decides the order of every epoch."""


@dataclass(frozen=True)
class Membership:
    """What the coordinator said when it admitted us."""

    attempt: int
    task: str
    task_settings: str
    layout: Layout
    rule_settings: tuple[str, str, bool, str]
    """From which ``rule`` is made."""
    heartbeat_s: float
    reply_json: str = ""
    """The reply itself, in protobuf's JSON."""
    overlap: bool = False
    """Train on while a contribution is on its way and the next base is fetched."""
    corpus: SharedCorpus | None = None
    """What all sites train on; none where each trains its own data."""
    fragments: int = 1
    """Into which the model is cut: each round synchronises one."""

    @cached_property
    def rotation(self) -> "Rotation":
        """Which fragment each round synchronises.

        Raises:
            ValueError: the model has less fragments.
        """
        from windfall.lowcomm.rotation import Rotation

        return Rotation(self.layout.split, self.fragments)

    @cached_property
    def rule(self) -> "Rule":
        """How we synchronise.

        Raises:
            ValueError: this version does not know it.
        """
        # Only now: it loads torch, without which a site that comes back is counted in seconds earlier.
        from windfall.lowcomm.rule import Rule

        return Rule.parse(*self.rule_settings)

    @property
    def codec(self) -> str:
        """The name of the one that contributions are written in."""
        return self.rule_settings[0].strip().partition(":")[0]


def membership_of(reply: pb.JoinReply) -> Membership:
    """What a reply says.

    Raises:
        ValueError: a layout that this version does not know.
    """
    return Membership(
        reply.attempt,
        reply.task,
        reply.task_settings_json,
        _layout(reply.tensors),
        (reply.codec, reply.outer, reply.clip, reply.merge),
        min(LONGEST_HEARTBEAT_S, max(0.1, reply.heartbeat_interval_ms / 1000)),
        MessageToJson(reply, indent=None),
        reply.overlap,
        SharedCorpus(reply.corpus.rows, reply.corpus.seed) if reply.HasField("corpus") else None,
        max(1, reply.fragments),
    )


@dataclass(frozen=True)
class Download:
    """What came down: a model and what belongs to it, or the outer log that leads to it."""

    data: memoryview
    log: bool


@dataclass(frozen=True)
class Noise:
    """That a contribution is told with; see ``windfall.lowcomm.privatise``."""

    norm: float
    multiple: float


class CoordinatorLink:
    """One site's calls. ``Transient`` means try again, ``Refused`` means no.

    Args:
        signer: signs each contribution with the site's own key; none where the site has none that the fleet knows.
    """

    def __init__(
        self,
        channel: grpc.aio.Channel,
        federation: str,
        site: str,
        jurisdiction: str = "",
        signer: "Signer | None" = None,
    ) -> None:
        self._jurisdiction = jurisdiction
        self._signer = signer
        self._channel = channel
        self._stub = TrainingStub(channel)
        self._bulk = BulkStub(channel)
        self._federation = federation
        self._site = site

    async def join(self, window_id: UUID, lease_token: int) -> Membership:
        request = pb.JoinRequest(
            federation=self._federation,
            site=self._site,
            window_id=str(window_id),
            lease_token=lease_token,
            protocol=PROTOCOL,
            jurisdiction=self._jurisdiction,
            fragments=True,
            signs=self._signer is not None,
        )
        with translated("join"):
            reply = await self._stub.Join(request, timeout=DEADLINE.total_seconds(), metadata=metadata())
        try:
            check_claims(reply)
            return membership_of(reply)
        except ValueError as error:
            raise unknown(error) from error

    async def directives(
        self, beat: Callable[[], pb.Beat | None], every_s: float
    ) -> AsyncGenerator[pb.Directive, None]:
        """What the coordinator says for as long as the stream holds; a heartbeat goes up at once and then regularly,
        until there is none to send."""

        async def beats() -> AsyncGenerator[pb.Beat, None]:
            while (said := beat()) is not None:
                yield said
                await asyncio.sleep(every_s)

        with translated("heartbeat"):
            call = self._stub.Heartbeat(beats(), metadata=metadata())
            try:
                async for directive in call:
                    yield directive
            finally:
                # Ends the beats as well: the call owns them while it runs.
                call.cancel()

    async def pull(
        self, attempt: int, digest: str, model_bytes: int, total_bytes: int, *, held: str = "", own: str = ""
    ) -> Download:
        """The base model's bytes, checked against their digest, and behind them what belongs to it; a cut goes on where
        it stopped. Or the outer log from a base that is held.

        Args:
            total_bytes: of a full download: more than the model when the outer log is to be followed from here.
            held: digest of a base that is held; empty when there is none.
            own: SHA-256 of the last contribution, if it is held.

        Raises:
            Transient: nothing arrived, or not what was asked for.
            Refused: ``NOT_FOUND``, the coordinator has moved on from this base. Otherwise what it has is not what was
                expected: it goes by another rule than when we joined.
        """
        request = pb.PullRequest(
            federation=self._federation,
            site=self._site,
            attempt=attempt,
            base_digest=digest,
            held_digest=held,
            held_contribution=own,
            follow=total_bytes > model_bytes,
        )
        buffer = room(0 if held else total_bytes)
        sha = HashBehind(buffer[:model_bytes])
        filled = 0
        while not held or not filled:
            request.offset, before = filled, filled
            try:
                with translated("pull"):
                    async for data in self._bulk.pull(request):
                        if isinstance(data, pb.PullHead):
                            held, size = held if data.log else "", data.total_bytes
                            if size > total_bytes or not (held or size == total_bytes):
                                raise Refused(
                                    grpc.StatusCode.FAILED_PRECONDITION,
                                    f"{size} bytes are announced, under the rule that we know it were {total_bytes}",
                                )
                            buffer = room(size) if len(buffer) != size else buffer
                            sha = HashBehind(buffer[:model_bytes])
                            continue
                        if filled + len(data) > len(buffer):
                            raise Transient("more bytes came than were announced; pulling again", _PAUSE)
                        buffer[filled : filled + len(data)] = data
                        filled += len(data)
                        if not held:
                            await sha.follow(min(filled, model_bytes))
            except Transient:
                if filled == before or held:
                    raise
            if filled == len(buffer):
                break
            if filled == before or held:
                raise Transient(f"the download ends after {filled} of {len(buffer)} bytes", _PAUSE)
        if held:
            return Download(buffer, log=True)
        if await sha.hexdigest(model_bytes) != digest:
            raise Transient("the base does not have its digest; pulling it again", _PAUSE)
        return Download(buffer, log=False)

    async def telling(self) -> Noise | None:
        """Something that was trained is about to be written down for the coordinator: with which noise; none with none.

        Raises:
            Refused: it may not be told.
        """
        return None

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
            if self._signer is not None:
                # Each time anew: the certificate may have been renewed, and the membership with its attempt.
                manifest.certificate, manifest.signature = self._signer.sign(signed_bytes(statement(manifest)))
            receipt = await self._bulk.push(manifest, data, progress.invites)
        return receipt.duplicate

    async def accepted(self, round_number: int, attempt: int) -> bool:
        """Whether an earlier membership's contribution to this round counts already."""
        key = pb.ContributionKey(federation=self._federation, site=self._site, round=round_number, attempt=attempt)
        with translated("progress"):
            progress = await self._stub.Progress(key, timeout=DEADLINE.total_seconds(), metadata=metadata())
        return progress.accepted

    async def rows(self, attempt: int, lease_token: int, hold: int) -> Ranges:
        """All rows of the shared corpus that we hold, after more were leased so that they are ``hold``."""
        request = pb.RowsRequest(
            federation=self._federation, site=self._site, attempt=attempt, lease_token=lease_token, hold=hold
        )
        with translated("rows"):
            reply = await self._stub.Rows(request, timeout=DEADLINE.total_seconds(), metadata=metadata())
        return tuple((one.begin, one.end) for one in reply.held)

    async def leave(self, attempt: int, reason: str) -> None:
        # Why a site goes may have come from anywhere in it.
        request = pb.LeaveRequest(
            federation=self._federation, site=self._site, attempt=attempt, reason=sentence(reason)
        )
        with translated("leave"):
            await self._stub.Leave(request, timeout=DEADLINE.total_seconds(), metadata=metadata())

    async def close(self) -> None:
        await self._channel.close()


def unknown(error: ValueError) -> Refused:
    """Our own refusal of what the coordinator asks for."""
    return Refused(
        grpc.StatusCode.UNIMPLEMENTED,
        f"this trainer does not know what the coordinator asks for: {sentence(str(error))}",
    )


def tensors_of(layout: Layout) -> list[pb.Tensor]:
    """A layout as a manifest declares it."""
    tensors = [
        pb.Tensor(name=spec.name, shape=spec.shape, dtype=spec.dtype, exact=spec.exact) for spec in layout.tensors
    ]
    return tensors + [pb.Tensor(name=name, tied_to=owner) for name, owner in layout.tied]


def _layout(tensors: Iterable[pb.Tensor]) -> Layout:
    own = tuple(TensorSpec(one.name, tuple(one.shape), one.dtype, one.exact) for one in tensors if not one.tied_to)
    return Layout(own, tuple((one.name, one.tied_to) for one in tensors if one.tied_to))
