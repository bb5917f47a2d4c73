"""``Training`` as a site meets it: one body over real gRPC and over the double that ships."""

import asyncio
import hashlib
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from math import nan
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID, uuid4

import grpc
import grpc.aio
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from windfall.contracts.commands import FinishRound, PauseFederation, ResumeFederation, RollBack, StopFederation
from windfall.contracts.envelope import seal, unseal
from windfall.contracts.events import (
    AdviceGiven,
    ContributionAccepted,
    ContributionRefused,
    FederationFinished,
    FederationPaused,
    FederationResumed,
    NodeProfiled,
    RoundCompleted,
    RoundDiscarded,
    RoundEvaluated,
    RoundStarted,
    SiteJoined,
    SiteLeft,
)
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, HUB, ORDERS_STREAM, hub_streams
from windfall.contracts.v1 import training_pb2 as pb
from windfall.contracts.v1.training_pb2_grpc import TrainingStub
from windfall.federation_coordinator.app import Coordinator, Model
from windfall.federation_coordinator.beginning import PROVISIONAL, Wanted
from windfall.federation_coordinator.durable import DRAFT
from windfall.federation_coordinator.federation import Federation, Phase, Policy
from windfall.federation_coordinator.offered import offered
from windfall.federation_coordinator.store import ModelStore
from windfall.federation_coordinator.training import TrainingService
from windfall.federation_coordinator.wire import Frames, register
from windfall.lowcomm.layout import Layout, TensorSpec, digest
from windfall.lowcomm.outer import parse_outer
from windfall.lowcomm.outerlog import read, replay
from windfall.lowcomm.rule import Rule
from windfall.lowcomm.wire import Header, compose
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.errors import ExitCode
from windfall.servicekit.frames import unframed
from windfall.servicekit.journal import Journal
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.rpc import connect, serve
from windfall.servicekit.service import Stand
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain
from windfall.servicekit.testing.memory_rpc import MemoryServer, memory_channel
from windfall.tasks.task import Evaluation

T = TypeVar("T")

LAYOUT = Layout((TensorSpec("embed", (100, 100)), TensorSpec("bias", (240,))))
OUTER = "nesterov:lr=0.7,momentum=0.9"
RULE = Rule.parse("fp32", OUTER)
SITES = ("site-a", "site-b")
FRAME = 4096
SECONDS = 30.0
"""Nothing here waits so long; a test that would hang ends by it."""


def flat(seed: int) -> Tensor:
    return torch.randn(LAYOUT.elements, generator=torch.Generator().manual_seed(seed))


def raw(vector: Tensor) -> bytes:
    return vector.numpy().tobytes()


def message(seed: int, number: int = 0, tokens: int = 100, rule: Rule = RULE) -> bytes:
    """What a site that has just joined says in a round."""
    state = rule.codec.init(LAYOUT.elements)
    return rule.encode(state, flat(seed), LAYOUT.split, base=number, tokens=tokens, steps=1)[1]


def frames(manifest: pb.Manifest, data: bytes) -> Iterator[pb.PushFrame]:
    yield pb.PushFrame(manifest=manifest)
    for start in range(manifest.offset, len(data), FRAME):
        yield pb.PushFrame(data=data[start : start + FRAME])


async def streamed(these: Iterator[pb.PushFrame]) -> AsyncIterator[pb.PushFrame]:
    for frame in these:
        yield frame


@dataclass
class Disk:
    """The coordinator's threads, with an eye on what they have written."""

    written: int = 0
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    gate: threading.Event = field(default_factory=threading.Event)
    """Closed, it holds every piece of work before it begins."""
    _held: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def __call__(self, work: Callable[..., T], /, *arguments: object) -> T:
        result = await asyncio.to_thread(self._through, work, *arguments)
        if getattr(work, "__name__", "") == "write":
            self.written += sum(map(len, cast(Sequence[bytes], arguments[0])))
            self.moved.set()
        return result

    def _through(self, work: Callable[..., T], *arguments: object) -> T:
        if not self.gate.is_set():
            self._held.set()
            self.gate.wait(SECONDS)
        return work(*arguments)

    async def held(self) -> None:
        """Something waits at the gate."""
        await asyncio.to_thread(self._held.wait, SECONDS)

    async def has(self, nbytes: int) -> None:
        async with asyncio.timeout(SECONDS):
            while self.written < nbytes:
                self.moved.clear()
                await self.moved.wait()


class Watched(TrainingService):
    """Knows when the last push has put its things away: gRPC's stop does not wait for a call that it has cancelled."""

    def __init__(self, coordinator: Coordinator) -> None:
        super().__init__(coordinator, SITES)
        self._pushes = 0
        self.idle = asyncio.Event()
        self.idle.set()

    async def Push(self, frames: AsyncIterator[pb.PushFrame], context: Any) -> pb.PushReceipt:  # noqa: N802
        self._pushes += 1
        self.idle.clear()
        try:
            return await super().Push(frames, context)
        finally:
            self._pushes -= 1
            if not self._pushes:
                self.idle.set()


@dataclass
class Place:
    """A coordinator that is served, and can be killed and started again."""

    kind: str
    folder: Path
    policy: Policy
    silence: timedelta = timedelta(seconds=SECONDS)
    evaluate: Callable[[int], Evaluation | None] | None = None
    rule: Rule = RULE
    wanted: Wanted = field(default_factory=Wanted)
    patience: timedelta = timedelta(seconds=SECONDS)
    domain: MemoryDomain = field(default_factory=lambda: MemoryDomain(HUB))
    server: MemoryServer = field(default_factory=MemoryServer)
    disk: Disk = field(default_factory=Disk)
    life: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def rise(self) -> None:
        journal = Journal(self.folder / "journal.sqlite", "/test")
        bus = MemoryBus(self.domain, "federation-coordinator", hub_streams(SITES))
        self.stand = Stand("federation-coordinator", "demo", SystemClock(), journal, bus, Outbox(journal, bus))
        journaled = journal.load("federation", Federation)
        if journaled and journaled.terms:
            self.rule = Rule.parse(journaled.terms.codec)
        fragments = journaled.fragments if journaled else 1
        self.store = ModelStore(self.folder / "models", LAYOUT, self.rule, fragments=fragments)
        first = journaled.base_digest if journaled else self.store.initialise(flat(0))
        self.coordinator = Coordinator(
            self.stand,
            "demo",
            Model("toy", "{}", LAYOUT),
            self.policy,
            self.store,
            first,
            self.silence,
            self.disk,
            self.evaluate,
            wanted=self.wanted,
            patience=self.patience,
        )
        self.service = Watched(self.coordinator)
        training = partial(register, self.service)
        if self.kind == "memory":
            self.server.down = False
            training(self.server)
            self.channel = memory_channel(self.server)
            self.life.push_async_callback(self.server.kill)
        else:
            server = await serve("127.0.0.1:0", [training])
            self.channel = connect(f"127.0.0.1:{server.port}")
            self.life.push_async_callback(server.stop, timedelta(0))
        self.life.push_async_callback(self.channel.close)
        self.stub = TrainingStub(self.channel)
        self.coordinator.attend()
        await self.stand.rise()

    async def fall(self) -> None:
        """All at once, as far as the files can tell."""
        await self.life.aclose()
        await self.service.idle.wait()
        self.coordinator.rest()
        await self.stand.lie_down()

    async def said(self, kind: type[T], count: int = 0) -> list[T]:
        """What was said of a kind, once there is so much of it."""
        self.stand.outbox.wake()
        await self.stand.outbox.emptied()
        async with asyncio.timeout(SECONDS):
            while True:
                stream = self.domain.stream(EVENTS_STREAM)
                assert stream is not None
                arrived = stream.arrived
                found: list[T] = [event for event in self.events() if isinstance(event, kind)]
                if len(found) >= count:
                    return found
                await arrived.wait()

    async def push(self, these: Callable[[], Iterator[pb.PushFrame]]) -> pb.PushReceipt:
        while True:
            try:
                receipt: pb.PushReceipt = await self.stub.Push(streamed(these()))
                return receipt
            except grpc.aio.AioRpcError as error:
                # An answer that comes before all has been sent may be lost on its way; a site asks again.
                if error.code() is not grpc.StatusCode.INTERNAL:
                    raise

    def events(self, stream: str = EVENTS_STREAM) -> list[Message]:
        return [unseal(letter) for letter in self.domain.letters(stream)]

    async def join(self, site: str, token: int = 1) -> "Site":
        reply = await self.stub.Join(
            pb.JoinRequest(federation="demo", site=site, window_id=str(uuid4()), lease_token=token, protocol=1)
        )
        return Site(self, site, reply.attempt, token)


@dataclass
class Site:
    """A member, and what it hears on its stream."""

    place: Place
    name: str
    attempt: int
    token: int
    heard: asyncio.Queue[pb.Directive | grpc.StatusCode] = field(default_factory=asyncio.Queue)
    silent: asyncio.Event = field(default_factory=asyncio.Event)

    async def listen(self) -> None:
        async def beats() -> AsyncIterator[pb.Beat]:
            yield pb.Beat(federation="demo", site=self.name, attempt=self.attempt)
            await self.silent.wait()

        try:
            async for directive in self.place.stub.Heartbeat(beats()):
                self.heard.put_nowait(directive)
        except grpc.aio.AioRpcError as error:
            self.heard.put_nowait(error.code())

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Site"]:
        ear = asyncio.create_task(self.listen())
        try:
            yield self
        finally:
            ear.cancel()
            with suppress(asyncio.CancelledError):
                await ear

    async def word(self) -> pb.Directive | grpc.StatusCode:
        async with asyncio.timeout(SECONDS):
            return await self.heard.get()

    async def opened(self) -> pb.RoundOpened:
        """The next round that is opened for us."""
        while True:
            word = await self.word()
            assert isinstance(word, pb.Directive), word
            if word.WhichOneof("kind") == "round_opened":
                return word.round_opened

    def key(self, number: int) -> pb.ContributionKey:
        return pb.ContributionKey(federation="demo", site=self.name, round=number, attempt=self.attempt)

    def manifest(
        self, data: bytes, tokens: int = 100, key: pb.ContributionKey | None = None, **changes: object
    ) -> pb.Manifest:
        state = self.place.coordinator.state
        manifest = pb.Manifest(
            key=key or self.key(state.round),
            lease_token=self.token,
            base_digest=state.base_digest,
            codec=self.place.rule.codec.name,
            tokens=tokens,
            steps=1,
            loss=2.5,
            total_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            tensors=[pb.Tensor(name=spec.name, shape=spec.shape, dtype="float32") for spec in LAYOUT.tensors],
        )
        for name, value in changes.items():
            setattr(manifest, name, value)
        return manifest

    async def send(self, manifest: pb.Manifest, data: bytes) -> pb.PushReceipt:
        return await self.place.push(partial(frames, manifest, data))

    async def push(self, seed: int, tokens: int = 100) -> pb.PushReceipt:
        """Say, to the round that is open, what was learnt."""
        data = message(seed, self.place.coordinator.state.round, tokens, self.place.rule)
        return await self.send(self.manifest(data, tokens), data)

    async def progress(self, number: int) -> pb.PushProgress:
        progress: pb.PushProgress = await self.place.stub.Progress(self.key(number))
        return progress

    async def resume(self, data: bytes) -> tuple[pb.PushReceipt, int]:
        """Go on as soon as the coordinator has noticed the cut; the receipt, and the bytes that were still to send."""
        async with asyncio.timeout(SECONDS):
            while True:
                manifest = self.manifest(data)
                manifest.offset = (await self.progress(manifest.key.round)).received_bytes
                try:
                    return await self.send(manifest, data), len(data) - manifest.offset
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.UNAVAILABLE, error

    async def pull(self, base_digest: str, offset: int = 0) -> bytes:
        return (await self.download(base_digest, offset=offset))[1]

    async def download(self, base_digest: str, **wishes: Any) -> tuple[pb.PullHead | None, bytes]:
        """What comes down, behind its head if it has one."""
        request = pb.PullRequest(
            federation="demo", site=self.name, attempt=self.attempt, base_digest=base_digest, **wishes
        )
        frames = [frame async for frame in self.place.stub.Pull(request)]
        head = frames.pop(0).head if frames and frames[0].WhichOneof("kind") == "head" else None
        assert all(frame.WhichOneof("kind") == "data" for frame in frames)
        data = b"".join(frame.data for frame in frames)
        assert head is None or head.total_bytes == len(data)
        return head, data

    async def leave(self) -> None:
        await self.place.stub.Leave(pb.LeaveRequest(federation="demo", site=self.name, attempt=self.attempt))


LONG = Policy(timedelta(hours=1), None, timedelta(hours=1), None)


@pytest.fixture(params=["memory", "grpc"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def standing(place: Place) -> AsyncIterator[Place]:
    await place.rise()
    try:
        yield place
    finally:
        await place.fall()


@pytest.fixture
async def place(kind: str, tmp_path: Path) -> AsyncIterator[Place]:
    async with standing(Place(kind, tmp_path, LONG)) as place:
        yield place


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details() or ""


def stepped(contributions: Sequence[tuple[Tensor, int]]) -> Tensor:
    """The model after round 0, computed plainly."""
    total = sum(tokens for _, tokens in contributions)
    mean = torch.zeros(LAYOUT.elements)
    for gradient, tokens in contributions:
        mean += gradient * (tokens / total)
    outer = parse_outer(OUTER)
    return outer.apply(outer.init(LAYOUT.elements), flat(0), mean)[1]


# --- a round ----------------------------------------------------------------------------------------------------------


async def test_a_site_joins_pulls_pushes_and_leaves(place: Place) -> None:
    reply = await place.stub.Join(
        pb.JoinRequest(federation="demo", site="site-a", window_id=str(UUID(int=5)), lease_token=3, protocol=1)
    )
    assert (reply.attempt, reply.task) == (1, "toy")
    assert Rule.parse(reply.codec, reply.outer, reply.clip, reply.merge).settings == RULE.settings
    assert [(one.name, tuple(one.shape)) for one in reply.tensors] == [("embed", (100, 100)), ("bias", (240,))]
    async with Site(place, "site-a", 1, 3).listening() as site:
        first = await site.opened()
        assert (first.round, first.base_digest, first.base_bytes) == (0, digest(flat(0)), LAYOUT.nbytes)
        assert (first.tokens, first.sites) == (0, 1)
        assert await site.pull(first.base_digest) == raw(flat(0))
        assert not (await site.push(1, tokens=7)).duplicate
        second = await site.opened()
        expected = stepped([(flat(1), 7)])
        assert (second.round, second.base_digest) == (1, digest(expected))
        assert (second.tokens, second.sites) == (7, 1)
        assert await site.pull(second.base_digest) == raw(expected)
        await site.leave()
        assert await site.word() is grpc.StatusCode.NOT_FOUND
    await place.said(SiteLeft)
    assert [event.topic for event in place.events()] == [
        "site.joined",
        "round.started",
        "contribution.accepted",
        "round.completed",
        "round.started",
        "site.left",
    ]
    (completed,) = await place.said(RoundCompleted)
    assert (completed.tokens, completed.bytes_up, completed.bytes_down) == (7, len(message(1)), LAYOUT.nbytes)


@pytest.mark.parametrize("offset", [0, 4, 12_345, LAYOUT.nbytes])
async def test_a_base_is_pulled_from_anywhere(place: Place, offset: int) -> None:
    site = await place.join("site-a")
    assert await site.pull(digest(flat(0)), offset) == raw(flat(0))[offset:]


async def test_a_base_that_is_not_the_current_one_is_not_there(place: Place) -> None:
    site = await place.join("site-a")
    async with site.listening():
        await site.opened()
        await site.push(1)
        await site.opened()
        assert (await refused(site.pull(digest(flat(0)))))[0] is grpc.StatusCode.NOT_FOUND
        now = place.coordinator.state.base_digest
        assert (await refused(site.pull(now, LAYOUT.nbytes + 1)))[0] is grpc.StatusCode.INVALID_ARGUMENT


# --- the way down -----------------------------------------------------------------------------------------------------

FOLLOWED = ["topk-ef", "int4-block", "q2-ef", "dct-momentum"]


async def play(place: Place, *sites: Site, rounds: int) -> list[str]:
    """Let so many rounds pass in which every site says something; the digests of their bases and of the last model."""
    digests = [place.coordinator.state.base_digest]
    for _ in range(rounds):
        number = place.coordinator.state.round
        for index, site in enumerate(sites):
            await site.push(10 * number + index)
        completed = await place.said(RoundCompleted, number + 1)
        digests.append(completed[-1].model_digest)
    return digests


@pytest.mark.parametrize("codec", FOLLOWED)
async def test_who_holds_the_base_gets_what_the_others_said(codec: str, kind: str, tmp_path: Path) -> None:
    rule = Rule.parse(codec)
    async with standing(Place(kind, tmp_path, LONG, rule=rule)) as place:
        one, other = await place.join("site-a"), await place.join("site-b")
        before, after = await play(place, one, other, rounds=1)
        own, theirs = message(0, rule=rule), message(1, rule=rule)
        sha = hashlib.sha256(own).hexdigest()
        head, log = await one.download(after, held_digest=before, held_contribution=sha, follow=True)
        assert head is not None
        assert head.log
        assert (own in log, theirs in log) == (False, True)
        elements = LAYOUT.split
        _, base = replay(rule, elements, rule.init(elements), flat(0), read(log, elements), {sha: own})
        assert digest(base) == after == digest(place.store.load(1))
        # Who has lost its own message, or has been away, gets that as well.
        head, log = await one.download(after, held_digest=before, follow=True)
        assert head is not None
        assert head.log
        _, base = replay(rule, elements, rule.init(elements), flat(0), read(log, elements))
        assert digest(base) == after


@pytest.mark.parametrize("codec", ["topk-ef", "int4-block"])
async def test_who_holds_nothing_gets_the_model_and_what_it_needs_to_follow(
    codec: str, kind: str, tmp_path: Path
) -> None:
    async with standing(Place(kind, tmp_path, LONG, rule=Rule.parse(codec))) as place:
        site = await place.join("site-a")
        _, after = await play(place, site, rounds=1)
        model = raw(place.store.load(1))
        states = b"".join(path.read_bytes() for path in place.store.states(1))
        assert len(states) == {"topk-ef": 0, "int4-block": LAYOUT.nbytes}[codec]
        for follow in (False, True):
            head, data = await site.download(after, follow=follow)
            assert head == pb.PullHead(total_bytes=len(data), log=False)
            assert data == (model + states if follow else model)


@pytest.mark.parametrize("codec", ["topk-ef:keep=512", "int4-block"])
async def test_who_is_some_rounds_behind_gets_them_as_long_as_they_are_shorter(
    codec: str, kind: str, tmp_path: Path
) -> None:
    rule, elements, rounds = Rule.parse(codec), LAYOUT.split, 20
    async with standing(Place(kind, tmp_path, LONG, rule=rule)) as place:
        site, other = await place.join("site-a"), await place.join("site-b")
        digests = await play(place, site, other, rounds=rounds)
        _, full = await site.download(digests[-1], follow=True)
        counts = []
        for held in reversed(digests[:-1]):
            head, data = await site.download(digests[-1], held_digest=held, follow=True)
            assert head is not None
            assert len(data) <= len(full)
            counts.append(len(list(read(data, elements))) if head.log else 0)
        reach = counts.index(0)
        assert counts == list(range(1, reach + 1)) + [0] * (rounds - reach)
        assert 4 <= reach < rounds


@pytest.mark.parametrize("held", ["f" * 64, "no digest at all", "x" * 100_000], ids=["unknown", "none", "endless"])
async def test_who_holds_what_nobody_knows_gets_the_model(held: str, kind: str, tmp_path: Path) -> None:
    async with standing(Place(kind, tmp_path, LONG, rule=Rule.parse("topk-ef"))) as place:
        site = await place.join("site-a")
        _, after = await play(place, site, rounds=1)
        head, data = await site.download(after, held_digest=held)
        assert head == pb.PullHead(total_bytes=LAYOUT.nbytes, log=False)
        assert data == raw(place.store.load(1))


@pytest.mark.parametrize("offset", [1, LAYOUT.nbytes - 3, LAYOUT.nbytes, LAYOUT.nbytes + 5, 2 * LAYOUT.nbytes])
async def test_a_full_download_that_was_cut_goes_on_anywhere_without_a_head(
    offset: int, kind: str, tmp_path: Path
) -> None:
    async with standing(Place(kind, tmp_path, LONG, rule=Rule.parse("int4-block"))) as place:
        site = await place.join("site-a")
        before, after = await play(place, site, rounds=1)
        _, whole = await site.download(after, follow=True)
        # What it held when it began does not matter any more: it is in the middle of a model.
        assert await site.download(after, follow=True, offset=offset, held_digest=before) == (None, whole[offset:])


async def test_what_went_down_is_counted_as_it_went(kind: str, tmp_path: Path) -> None:
    async with standing(Place(kind, tmp_path, LONG, rule=Rule.parse("topk-ef"))) as place:
        site = await place.join("site-a")
        before, after = await play(place, site, rounds=1)
        _, log = await site.download(after, held_digest=before)
        await site.download(after)
        await play(place, site, rounds=1)
        assert [one.bytes_down for one in await place.said(RoundCompleted)] == [0, len(log) + LAYOUT.nbytes]
        up = sum(one.bytes_up for one in await place.said(RoundCompleted))
        assert {
            (of["windfall.direction"], of["windfall.codec"]): sum_ for sum_, of in place.coordinator.transferred.read()
        } == {
            ("up", "topk-ef"): up,
            ("down", "topk-ef"): len(log),
            ("down", "fp32"): LAYOUT.nbytes,
        }


async def test_a_round_that_is_merged_while_a_log_is_put_together_is_not_sent_in_the_place_of_another(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, asked = threading.Event(), threading.Event()

    def slowly(*_: str) -> bytes | None:
        asked.set()
        goes_on.wait(SECONDS)
        return None

    async with standing(Place(kind, tmp_path, LONG, rule=Rule.parse("topk-ef"))) as place:
        site = await place.join("site-a")
        before, after = await play(place, site, rounds=1)
        monkeypatch.setattr(place.store, "log", slowly)
        late = asyncio.create_task(refused(site.download(after, held_digest=before)))
        await asyncio.to_thread(asked.wait, SECONDS)
        await play(place, site, rounds=1)
        goes_on.set()
        assert (await late)[0] is grpc.StatusCode.NOT_FOUND


# --- cuts and repetitions ---------------------------------------------------------------------------------------------


async def test_cut_at_nine_tenths_only_the_rest_is_sent_again(place: Place) -> None:
    site = await place.join("site-a")
    data = message(1)
    most = len(data) * 9 // 10 // FRAME * FRAME
    still = asyncio.Event()

    async def until_the_cut() -> AsyncIterator[pb.PushFrame]:
        for frame in frames(site.manifest(data), data[:most]):
            yield frame
        await still.wait()

    async def pushing() -> None:
        await place.stub.Push(until_the_cut())

    cut = asyncio.create_task(pushing())
    await place.disk.has(most)
    cut.cancel()
    receipt, sent = await site.resume(data)
    assert (receipt.duplicate, sent) == (False, len(data) - most)
    assert len(await place.said(ContributionAccepted)) == 1
    assert not await place.said(ContributionRefused)


async def test_one_stream_at_a_time_and_none_while_the_disk_still_works_for_the_last(place: Place) -> None:
    site = await place.join("site-a")
    data = message(1)
    goes_on = asyncio.Event()

    async def slowly() -> AsyncIterator[pb.PushFrame]:
        sent = [*frames(site.manifest(data), data)]
        for frame in sent[:2]:
            yield frame
        await goes_on.wait()
        yield sent[2]
        await asyncio.Event().wait()

    async def pushing() -> None:
        await place.stub.Push(slowly())

    first = asyncio.create_task(pushing())
    await place.disk.has(FRAME)
    # A second stream that goes on where the first one is would write into the same file.
    second = site.manifest(data, offset=FRAME)
    assert (await refused(site.send(second, data)))[0] is grpc.StatusCode.UNAVAILABLE
    place.disk.gate.clear()
    goes_on.set()
    await place.disk.held()
    first.cancel()
    # Its client has gone, but what it sent is still on its way to the disk.
    assert (await refused(site.send(second, data)))[0] is grpc.StatusCode.UNAVAILABLE
    place.disk.gate.set()
    receipt, sent = await site.resume(data)
    assert (receipt.duplicate, sent) == (False, len(data) - 2 * FRAME)
    assert not await place.said(ContributionRefused)


async def test_a_stream_that_just_ends_early_is_a_cut_and_keeps_its_bytes(place: Place) -> None:
    site = await place.join("site-a")
    data = message(1)
    code, detail = await refused(site.send(site.manifest(data), data[: 2 * FRAME]))
    assert (code, str(2 * FRAME) in detail) == (grpc.StatusCode.UNAVAILABLE, True)
    assert (await site.resume(data))[1] == len(data) - 2 * FRAME
    assert not await place.said(ContributionRefused)


async def test_bytes_from_elsewhere_than_wanted_are_sent_again(place: Place) -> None:
    site = await place.join("site-a")
    data = message(1)
    code, detail = await refused(site.send(site.manifest(data, offset=FRAME), data))
    assert (code, "0 are wanted" in detail) == (grpc.StatusCode.UNAVAILABLE, True)
    assert (await site.resume(data))[1] == len(data)


async def test_what_lay_there_before_the_cut_was_damaged_it_begins_again(place: Place) -> None:
    site = await place.join("site-a")
    data = message(1)
    await refused(site.send(site.manifest(data), message(2)[:FRAME]))
    receipt, sent = await site.resume(data)
    assert (receipt.duplicate, sent) == (False, len(data))
    assert not await place.said(ContributionRefused)


async def test_sent_twice_it_counts_once_in_its_round_and_after(place: Place) -> None:
    one, other = await place.join("site-a"), await place.join("site-b")
    data = message(1)
    manifest = one.manifest(data)
    async with other.listening():
        await other.opened()
        assert not (await one.send(manifest, data)).duplicate
        assert (await one.progress(0)).accepted
        assert (await one.send(manifest, data)).duplicate
        await other.push(2)
        await other.opened()
        # The receipt was lost, and the round has been merged meanwhile: it counts, and its site must hear so.
        assert (await one.progress(0)).accepted
        assert (await one.send(manifest, data)).duplicate
        assert not (await one.progress(1)).accepted
    assert len(await place.said(ContributionAccepted)) == 2
    (completed,) = await place.said(RoundCompleted)
    assert (completed.contributors, completed.tokens) == (("site-a", "site-b"), 200)


# --- what does not pass -----------------------------------------------------------------------------------------------


def reshaped(manifest: pb.Manifest) -> None:
    manifest.tensors[0].shape[:] = [50, 200]


def of_another_round(manifest: pb.Manifest) -> None:
    manifest.key.round = 4


def of_another_attempt(manifest: pb.Manifest) -> None:
    manifest.key.attempt = 9


def setting(**fields: object) -> Callable[[pb.Manifest], None]:
    def change(manifest: pb.Manifest) -> None:
        for name, value in fields.items():
            setattr(manifest, name, value)

    return change


INVALID, PRECONDITION, NOT_FOUND, UNAVAILABLE = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNAVAILABLE,
)
SOUND = message(1)
# No honest site writes it: its codec refuses to.
NAN = compose(
    Header("fp32", 0, LAYOUT.elements, 0, 100, 1),
    raw(flat(1).index_fill(0, torch.tensor([LAYOUT.elements // 2]), nan)),
)
WRONG: dict[str, tuple[Callable[[pb.Manifest], None], bytes, str, grpc.StatusCode]] = {
    "NaN in the middle": (setting(), NAN, "not-finite", INVALID),
    "a NaN loss": (setting(loss=nan), SOUND, "not-finite", INVALID),
    "another shape": (reshaped, SOUND, "layout", INVALID),
    "raw numbers": (setting(), raw(flat(1)), "layout", INVALID),
    "a torn element": (setting(), SOUND[:-1], "layout", INVALID),
    "oversized, as declared": (setting(total_bytes=RULE.most_bytes(LAYOUT.split) + 1), SOUND, "size", INVALID),
    "oversized, undeclared": (setting(total_bytes=len(SOUND)), SOUND + bytes(4), "size", INVALID),
    "another codec": (setting(codec="bf16"), message(1, rule=Rule.parse("bf16")), "codec", NOT_FOUND),
    "another codec than it says": (setting(), message(1, rule=Rule.parse("bf16")), "layout", INVALID),
    "implausible tokens": (setting(tokens=2**50), SOUND, "tokens", INVALID),
    "other tokens than it says": (setting(), message(1, tokens=101), "tokens", INVALID),
    "trained from another round's base, as it says": (setting(), message(1, number=1), "tokens", INVALID),
    "a stale round": (of_another_round, SOUND, "round", PRECONDITION),
    "another base": (setting(base_digest="0" * 64), SOUND, "base", PRECONDITION),
    "an old lease": (setting(lease_token=4), SOUND, "lease", PRECONDITION),
    "an attempt that is over": (of_another_attempt, SOUND, "member", NOT_FOUND),
}


@pytest.mark.parametrize(("spoil", "data", "reason", "code"), WRONG.values(), ids=WRONG)
async def test_refused_with_a_reason_while_the_round_goes_on(
    place: Place, spoil: Callable[[pb.Manifest], None], data: bytes, reason: str, code: grpc.StatusCode
) -> None:
    one, other = await place.join("site-a", token=5), await place.join("site-b")
    async with other.listening():
        await other.opened()
        manifest = one.manifest(data)
        spoil(manifest)
        status, detail = await refused(one.send(manifest, data))
        assert (status, detail.split(":")[0]) == (code, reason)
        (event,) = await place.said(ContributionRefused)
        assert (event.site, event.reason) == ("site-a", reason)
        assert (await one.progress(0)).received_bytes == 0
        # A better one still counts, and the others' round is none the worse.
        await one.push(3, tokens=1)
        await other.push(2, tokens=3)
        assert (await other.opened()).base_digest == digest(stepped([(flat(3), 1), (flat(2), 3)]))


async def test_with_another_digest_it_may_come_once_more_and_is_then_refused(place: Place) -> None:
    one, other = await place.join("site-a"), await place.join("site-b")
    async with other.listening():
        await other.opened()
        assert (await refused(one.send(one.manifest(SOUND, sha256="0" * 64), SOUND)))[0] is UNAVAILABLE
        assert not await place.said(ContributionRefused)
        status, detail = await refused(one.send(one.manifest(SOUND, sha256="0" * 64), SOUND))
        assert (status, detail.split(":")[0]) == (INVALID, "digest")
        (event,) = await place.said(ContributionRefused)
        assert (event.site, event.reason) == ("site-a", "digest")
        assert (await one.progress(0)).received_bytes == 0


async def test_nobody_waits_for_what_was_refused(place: Place) -> None:
    one, other = await place.join("site-a"), await place.join("site-b")
    async with one.listening(), other.listening():
        await one.opened()
        await other.opened()
        await refused(one.send(one.manifest(NAN), NAN))
        await other.push(2)
        assert [(await each.opened()).round for each in (one, other)] == [1, 1]
        assert place.coordinator.state.base_digest == digest(stepped([(flat(2), 1)]))


async def test_alone_and_refused_the_round_opens_again(place: Place) -> None:
    site = await place.join("site-a")
    async with site.listening():
        first = await site.opened()
        await refused(site.send(site.manifest(NAN), NAN))
        assert await site.opened() == first
        await site.push(1)
        assert (await site.opened()).round == 1


async def test_a_second_manifest_in_one_stream_is_refused(place: Place) -> None:
    site = await place.join("site-a")
    data = message(1)
    twice = [*frames(site.manifest(data), data)]
    twice.insert(2, twice[0])
    code, detail = await refused(place.push(partial(iter, twice)))
    assert (code, "second manifest" in detail) == (INVALID, True)
    (event,) = await place.said(ContributionRefused)
    assert event.reason == "size"


@pytest.mark.parametrize("stream", [[pb.PushFrame(data=b"1234")], [pb.PushFrame()], []], ids=["data", "empty", "none"])
async def test_a_stream_without_a_manifest_is_refused(place: Place, stream: list[pb.PushFrame]) -> None:
    await place.join("site-a")
    assert (await refused(place.push(partial(iter, stream))))[0] is INVALID


async def test_a_stranger_is_refused_and_not_talked_about(place: Place) -> None:
    stranger = Site(place, "site-b", 1, 1)
    assert (await refused(stranger.push(1)))[0] is NOT_FOUND
    assert (await stranger.progress(0)).received_bytes == 0
    assert not await place.said(ContributionRefused)


@pytest.mark.parametrize("kind", ["grpc"], indirect=True)
async def test_a_frame_over_the_size_cap_is_refused(place: Place) -> None:
    site = await place.join("site-a")
    manifest = site.manifest(SOUND)
    frame = pb.PushFrame(data=bytes(5 * 1024 * 1024))
    code, _ = await refused(place.push(partial(iter, [pb.PushFrame(manifest=manifest), frame])))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not (await site.resume(SOUND))[0].duplicate


# --- membership -------------------------------------------------------------------------------------------------------

WELL: dict[str, Any] = {
    "federation": "demo",
    "site": "site-a",
    "window_id": str(UUID(int=5)),
    "lease_token": 3,
    "protocol": 1,
}


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"federation": "other"}, NOT_FOUND),
        ({"federation": "x" * 100_000}, NOT_FOUND),
        ({"site": "site-z"}, grpc.StatusCode.PERMISSION_DENIED),
        ({"site": "../../etc"}, INVALID),
        ({"site": ""}, INVALID),
        ({"site": "x" * 100_000}, INVALID),
        ({"protocol": 2}, PRECONDITION),
        ({"lease_token": 0}, PRECONDITION),
        ({"lease_token": 2}, PRECONDITION),
        ({"window_id": "the first"}, INVALID),
    ],
    ids=[
        "federation",
        "endless federation",
        "site",
        "no name of a site",
        "no site",
        "endless site",
        "protocol",
        "no lease",
        "fenced",
        "window",
    ],
)
async def test_not_admitted(place: Place, wrong: dict[str, Any], code: grpc.StatusCode) -> None:
    await place.join("site-a", token=3)
    request = pb.JoinRequest(**(WELL | wrong))
    found, detail = await refused(place.stub.Join(request))
    assert (found, len(detail) < 200) == (code, True)
    assert len(await place.said(SiteJoined)) == 1


async def test_a_heartbeat_of_nobody_is_told_to_join(place: Place) -> None:
    site = await place.join("site-a")
    for stranger in (Site(place, "site-a", site.attempt + 1, 1), Site(place, "site-b", 1, 1)):
        async with stranger.listening():
            assert await stranger.word() is NOT_FOUND


async def test_a_stream_without_a_beat_ends(place: Place) -> None:
    async def nothing() -> AsyncIterator[pb.Beat]:
        for _ in range(0):
            yield pb.Beat()

    assert [word async for word in place.stub.Heartbeat(nothing())] == []


async def test_a_silent_member_is_dropped_and_hears_it(kind: str, tmp_path: Path) -> None:
    async with standing(Place(kind, tmp_path, LONG, silence=timedelta(seconds=0.3))) as place:
        site = await place.join("site-a")
        async with site.listening():
            await site.opened()
            # It beat once and never again.
            assert await site.word() is NOT_FOUND
        (left,) = await place.said(SiteLeft)
        assert (left.reason, place.coordinator.state.phase) == ("silent", Phase.DARK)


async def test_a_round_does_not_wait_for_the_silent(kind: str, tmp_path: Path) -> None:
    async with standing(Place(kind, tmp_path, LONG, silence=timedelta(seconds=0.3))) as place:
        await place.join("site-b")
        site = await place.join("site-a")
        await site.push(1)
        (completed,) = await place.said(RoundCompleted, 1)
        assert completed.contributors == ("site-a",)
        assert "site-b" in {left.site for left in await place.said(SiteLeft)}


async def test_the_newer_lease_takes_over_from_one_that_still_pushes(place: Place) -> None:
    """Two trainers of one site overlap: the older one drains while the next window's has come up."""
    old = await place.join("site-a", token=1)
    data = message(1)
    still = asyncio.Event()

    async def slowly() -> AsyncIterator[pb.PushFrame]:
        sent = [*frames(old.manifest(data), data)]
        for frame in sent[:-1]:
            yield frame
        await still.wait()
        yield sent[-1]

    async def pushing() -> tuple[grpc.StatusCode, str]:
        return await refused(place.stub.Push(slowly()))

    async with old.listening():
        await old.opened()
        late = asyncio.create_task(pushing())
        await place.disk.has(len(data) - FRAME)
        new = await place.join("site-a", token=2)
        assert await old.word() is NOT_FOUND
        still.set()
        code, detail = await late
        assert (code, detail.split(":")[0]) == (PRECONDITION, "lease")
        assert not (await old.progress(0)).accepted
    async with new.listening():
        await new.opened()
        await new.push(2)
        assert (await new.opened()).base_digest == digest(stepped([(flat(2), 1)]))
    assert [left.reason for left in await place.said(SiteLeft)] == ["replaced"]


async def test_a_contribution_accepted_before_the_takeover_counts(place: Place) -> None:
    other = await place.join("site-b")
    old = await place.join("site-a", token=1)
    async with other.listening():
        await other.opened()
        await old.push(1, tokens=2)
        new = await place.join("site-a", token=2)
        await new.leave()
        await other.push(2, tokens=3)
        assert (await other.opened()).base_digest == digest(stepped([(flat(1), 2), (flat(2), 3)]))


# --- how contributions are written, chosen before the first round ----------------------------------------------------


def profile(site: str) -> NodeProfiled:
    return NodeProfiled.model_validate(
        {
            **{"id": uuid4(), "at": SystemClock().now(), "site": site, "window_id": UUID(int=5), "lease_token": 1},
            "node": "n",
            "measured": {
                **{"fingerprint": "f", "cpu_model": "m", "cpu_cores": 1, "memory_bytes": 1, "link_rtt_ms": 0.01},
                **{"step_s_by_micro_batch": {"4": 0.001}, "link_up_mb_per_s": 1e5, "link_down_mb_per_s": 1e5},
            },
            "recommendation": {
                **{"micro_batch": 4, "gradient_accumulation": 2, "local_steps": 9, "precision": "bf16"},
                "because": "it fits",
            },
        }
    )


async def test_nothing_opens_before_the_terms_are_chosen_and_then_they_hold(kind: str, tmp_path: Path) -> None:
    wanted, rule = Wanted(None, None), Rule.parse(PROVISIONAL)
    policy = replace(LONG, minimum=2)
    place = Place(kind, tmp_path, policy, rule=rule, wanted=wanted)
    async with standing(place):
        sites = [await place.join(name) for name in SITES]
        async with sites[0].listening(), sites[1].listening():
            for name in SITES:
                place.domain.store(seal(profile(name), "/test"))
            # Who joined before learns them by joining again: nothing was opened meanwhile.
            assert [await site.word() for site in sites] == [NOT_FOUND, NOT_FOUND]
        assert not await place.said(RoundStarted)
        reply = await place.stub.Join(
            pb.JoinRequest(
                federation="demo", site="site-a", window_id=str(UUID(int=5)), lease_token=1, protocol=1, fragments=True
            )
        )
        assert reply.codec == "fp32" == place.coordinator.store.rule.codec.name
        terms = place.coordinator.state.terms
        assert terms is not None and terms.measured and terms.fragments == reply.fragments
        assert place.coordinator.state.fragments == reply.fragments
        other = await place.join("site-b")
        async with other.listening():
            opened = await other.opened()
            # A site's own values follow its profile.
            assert (opened.micro_batch, opened.accumulation, opened.precision) == (8, 2, "bf16")
        (advice,) = await place.said(AdviceGiven, 1)
        assert (advice.codec.used, advice.codec.by, advice.fragments.by) == ("fp32", "advice", "advice")
    async with standing(Place(kind, tmp_path, policy, rule=rule, wanted=wanted)) as again:
        assert again.coordinator.store.rule.codec.name == "fp32"
        assert again.coordinator.state.terms == terms


async def test_a_choice_does_not_wait_for_ever(kind: str, tmp_path: Path) -> None:
    place = Place(
        kind, tmp_path, LONG, rule=Rule.parse(PROVISIONAL), wanted=Wanted(None, 1), patience=timedelta(seconds=0.05)
    )
    async with standing(place):
        site = await place.join("site-a")
        async with site.listening():
            await site.opened()
        terms = place.coordinator.state.terms
        assert terms is not None and (terms.codec, terms.measured) == (PROVISIONAL, False)


# --- the end of a round and of the federation -------------------------------------------------------------------------


async def test_the_end_of_a_round_reaches_an_open_stream_and_the_bus(kind: str, tmp_path: Path) -> None:
    policy = Policy(timedelta(seconds=0.1), None, timedelta(hours=1), None)
    async with standing(Place(kind, tmp_path, policy)) as place:
        site = await place.join("site-a")
        async with site.listening():
            assert (await site.opened()).round == 0
            word = await site.word()
            assert isinstance(word, pb.Directive)
            assert word.finish_round.round == 0
            assert word.WhichOneof("kind") == "finish_round"
        async with site.listening():
            # A stream that opens now hears both words again.
            assert (await site.opened()).round == 0
            again = await site.word()
            assert isinstance(again, pb.Directive)
            assert again.WhichOneof("kind") == "finish_round"
        await place.said(SiteJoined)
        (order,) = place.events(ORDERS_STREAM)
        assert isinstance(order, FinishRound)
        assert (order.site, order.round) == ("site-a", 0)


async def test_told_to_stop_it_finishes_the_round_and_lays_the_model_down(place: Place) -> None:
    site = await place.join("site-a")
    command = StopFederation(id=uuid4(), at=SystemClock().now(), federation="demo")
    async with site.listening():
        await site.opened()
        await place.stand.bus.publish(seal(command, "/test"))
        kinds = []
        for _ in range(2):
            word = await site.word()
            assert isinstance(word, pb.Directive)
            kinds.append(word.WhichOneof("kind"))
            if kinds == ["finish_round"]:
                await site.push(1)
        assert kinds == ["finish_round", "stop"]
    (finished,) = await place.said(FederationFinished, 1)
    assert (finished.rounds, finished.model_digest) == (1, digest(stepped([(flat(1), 1)])))
    final = load_file(place.store.final)
    assert torch.equal(torch.cat([final[name].flatten() for name in ("embed", "bias")]), place.store.load(1))


async def test_every_new_model_is_evaluated_and_a_pruned_one_is_skipped(kind: str, tmp_path: Path) -> None:
    loop, asked = asyncio.get_running_loop(), asyncio.Queue[int]()

    def evaluate(number: int) -> Evaluation | None:
        loop.call_soon_threadsafe(asked.put_nowait, number)
        return None if number == 1 else Evaluation(3.0 + number, "accuracy", 0.5, 100)

    async with standing(Place(kind, tmp_path, LONG, evaluate=evaluate)) as place:
        site = await place.join("site-a")
        async with site.listening():
            for number in range(3):
                await site.opened()
                assert await asked.get() == number
                await site.push(number)
        evaluated = await place.said(RoundEvaluated, 3)
        assert [(one.round, one.loss_nats) for one in evaluated] == [(0, 3.0), (2, 5.0), (3, 6.0)]
        assert {(one.metric, one.value) for one in evaluated} == {("accuracy", 0.5)}
        assert (asked.get_nowait(), asked.qsize()) == (3, 0)


# --- late, alone, judged ----------------------------------------------------------------------------------------------


async def test_what_comes_after_its_round_was_merged_counts_in_the_next_for_less(kind: str, tmp_path: Path) -> None:
    # Long enough that on a busy machine, too, both sites get to speak in the second one.
    policy = replace(LONG, steps=1, straggler_grace=timedelta(0), length=timedelta(seconds=1))
    async with standing(Place(kind, tmp_path, policy, rule=Rule.parse("topk-ef"))) as place:
        one, other = await place.join("site-a"), await place.join("site-b")
        await place.said(RoundStarted, 1)
        base, late = place.coordinator.state.base_digest, message(2, 0, 100, place.rule)
        await one.push(1)
        await place.said(RoundCompleted, 1)
        # The round went on without it; its base is not the newest one any more.
        await other.send(other.manifest(late, base_digest=base, key=other.key(0)), late)
        assert (await other.progress(0)).accepted
        again = await other.send(other.manifest(late, base_digest=base, key=other.key(0)), late)
        assert again.duplicate
        await one.push(3)
        await other.push(4)
        first, second = await place.said(RoundCompleted, 2)
        accepted = await place.said(ContributionAccepted, 4)
        assert [(each.site, each.round, each.rounds_late) for each in accepted] == [
            ("site-a", 0, 0),
            ("site-b", 1, 1),
            ("site-a", 1, 0),
            ("site-b", 1, 0),
        ]
        assert (first.contributors, second.contributors) == (("site-a",), ("site-a", "site-b", "site-b"))
        # A replica that follows the log takes the same step: with what was late at e^(-1/2) of its tokens.
        held = flat(0)
        for number, before, after in (
            (0, first.base_digest, first.model_digest),
            (1, first.model_digest, second.model_digest),
        ):
            stretches = place.store.log(before, after, "")
            assert stretches is not None
            log = b"".join(unframed(1, frame) or b"" for frame, _ in Frames().of(stretches, 0))
            _, held = replay(place.rule, LAYOUT.split, place.rule.init(LAYOUT.split), held, read(log, LAYOUT.split))
            assert digest(held) == after, number


async def test_later_than_it_may_be_it_is_refused_with_its_reason(kind: str, tmp_path: Path) -> None:
    policy = replace(LONG, length=timedelta(seconds=0.1), straggler_grace=timedelta(0), rounds_late=0)
    async with standing(Place(kind, tmp_path, policy)) as place:
        one, other = await place.join("site-a"), await place.join("site-b")
        base, late = place.coordinator.state.base_digest, message(2)
        await one.push(1)
        await place.said(RoundCompleted, 1)
        code, detail = await refused(other.send(other.manifest(late, base_digest=base, key=other.key(0)), late))
        assert (code, detail[:6]) == (grpc.StatusCode.FAILED_PRECONDITION, "round:")
        (event,) = await place.said(ContributionRefused, 1)
        assert (event.site, event.reason) == ("site-b", "round")


async def test_a_site_that_is_alone_says_all_and_follows_itself_without_a_download(kind: str, tmp_path: Path) -> None:
    policy = replace(LONG, alone=timedelta(hours=2), alone_codec="int8-block", steps=7)
    rule = Rule.parse("topk-ef")
    async with standing(Place(kind, tmp_path, policy, rule=rule)) as place:
        site = await place.join("site-a")
        async with site.listening():
            opened = await site.opened()
            assert (opened.codec, opened.local_steps, opened.sites) == ("int8-block", 0, 1)
            state, split = rule.codec.init(LAYOUT.split.trained), LAYOUT.split
            _, data = rule.encode(state, flat(1), split, base=0, tokens=100, steps=1, codec="int8-block")
            await site.send(site.manifest(data, codec="int8-block"), data)
            await site.opened()
        (completed,) = await place.said(RoundCompleted, 1)
        after = place.store.load(1)
        # All of it arrived, to a part in 127 of the largest value of a block; topk-ef would have said one in 64.
        assert torch.allclose(after, flat(0) - flat(1), atol=flat(1).abs().max().item() / 127)
        own = hashlib.sha256(data).hexdigest()
        head, log = await site.download(
            completed.model_digest, held_digest=completed.base_digest, held_contribution=own, follow=True
        )
        assert head is not None and head.log
        assert len(log) < 200
        _, held = replay(rule, split, rule.init(split), flat(0), read(log, split), {own: data})
        assert digest(held) == completed.model_digest


async def test_a_model_that_does_worse_is_discarded_and_the_round_starts_from_the_base_before(
    kind: str, tmp_path: Path
) -> None:
    losses = {0: 3.0, 1: 2.0, 2: 9.0, 3: 1.9}

    def evaluate(number: int) -> Evaluation | None:
        return Evaluation(losses[min(number, 3)], "accuracy", 0.5, 100)

    policy = replace(LONG, steps=1, canary=0.1)
    async with standing(Place(kind, tmp_path, policy, evaluate=evaluate)) as place:
        site = await place.join("site-a")
        await place.said(RoundEvaluated, 1)
        async with site.listening():
            await site.opened()
            await site.push(1)
            good = await site.opened()
            await place.said(RoundEvaluated, 2)
            await site.push(2)
            again = await site.opened()
            assert (again.round, again.base_digest) == (2, good.base_digest)
            assert await site.pull(again.base_digest)
            losses[3] = 1.9
            await site.push(3)
            await site.opened()
        (gone,) = await place.said(RoundDiscarded, 1)
        (refusal,) = await place.said(ContributionRefused, 1)
        assert (gone.round, gone.base_digest, gone.contributors) == (1, good.base_digest, ("site-a",))
        assert "9.0000 after 2.0000" in gone.because
        assert (refusal.round, refusal.reason) == (1, "canary")
        completed = await place.said(RoundCompleted, 2)
        assert [(each.round, each.base_digest) for each in completed] == [(0, digest(flat(0))), (2, good.base_digest)]
        assert completed[-1].tokens_total == 200
    # What the journal and the disk hold is one story, also for who starts again.
    await place.rise()
    assert place.coordinator.state.round == 3
    assert place.store.digest(3) == completed[-1].model_digest
    await place.fall()


async def test_asked_to_it_goes_back_to_the_best_model_under_a_new_number(kind: str, tmp_path: Path) -> None:
    def evaluate(number: int) -> Evaluation | None:
        return Evaluation(1.0 if number == 1 else 2.0 + number, "accuracy", 0.5, 100)

    async with standing(Place(kind, tmp_path, replace(LONG, steps=1), evaluate=evaluate)) as place:
        site = await place.join("site-a")
        async with site.listening():
            await place.said(RoundEvaluated, 1)
            await site.opened()
            await site.push(1)
            best = await site.opened()
            await place.said(RoundEvaluated, 2)
            for number in (2, 3):
                await site.push(number)
                await site.opened()
                await place.said(RoundEvaluated, number + 1)
            order = RollBack(id=uuid4(), at=SystemClock().now(), federation="demo", reason="it got worse")
            await place.stand.bus.publish(seal(order, "/test"))
            back = await site.opened()
            assert (back.round, back.base_digest) == (4, best.base_digest)
            assert hashlib.sha256(await site.pull(back.base_digest)).hexdigest() == best.base_digest
            await site.push(4)
            await site.opened()
        evaluated = await place.said(RoundEvaluated, 5)
        assert [each.round for each in evaluated if each.best] == [0, 1]
        kept = offered(place.coordinator.state, place.coordinator.kept)
        assert [(one.starts, one.newest, one.best, one.tokens_total) for one in kept] == [
            (5, True, False, 400),
            (4, False, True, 100),
        ]
        assert all(one.made_at is not None for one in kept) and kept[1].loss_nats is not None
        (gone,) = await place.said(RoundDiscarded, 1)
        assert (gone.round, gone.base_digest) == (3, best.base_digest)


async def test_paused_it_keeps_what_was_trained_and_goes_on_from_there_also_after_a_restart(
    kind: str, tmp_path: Path
) -> None:
    place = Place(kind, tmp_path, LONG)
    async with standing(place):
        site = await place.join("site-a")
        async with site.listening():
            await site.opened()
            order = PauseFederation(id=uuid4(), at=SystemClock().now(), federation="demo", reason="new disks")
            await place.stand.bus.publish(seal(order, "/test"))
            word = await site.word()
            assert isinstance(word, pb.Directive) and word.HasField("finish_round")
            await site.push(1)
            (paused,) = await place.said(FederationPaused, 1)
            assert (paused.round, paused.base_digest) == (1, digest(stepped([(flat(1), 100)])))
            assert paused.because == "new disks"
    await place.rise()
    try:
        other = await place.join("site-b")
        assert len(await place.said(RoundStarted)) == 1
        # The same word twice is one word.
        for _ in range(2):
            order_ = ResumeFederation(id=UUID(int=9), at=SystemClock().now(), federation="demo")
            await place.stand.bus.publish(seal(order_, "/test"))
        async with other.listening():
            opened = await other.opened()
        assert (opened.round, opened.base_digest) == (1, paused.base_digest)
        assert hashlib.sha256(await other.pull(opened.base_digest)).hexdigest() == paused.base_digest
        assert [one.round for one in await place.said(FederationResumed, 1)] == [1]
    finally:
        await place.fall()


# --- restarts and broken disks ----------------------------------------------------------------------------------------


async def test_started_again_in_mid_round_it_goes_on(kind: str, tmp_path: Path) -> None:
    place = Place(kind, tmp_path, LONG)
    async with standing(place):
        one, other = await place.join("site-a"), await place.join("site-b")
        await one.push(1, tokens=2)
        data = message(2)
        await refused(other.send(other.manifest(data), data[: 3 * FRAME]))
        (tmp_path / "models" / "contribution-000000-left-9").write_bytes(b"of no use, but of this round")
    await place.rise()
    try:
        assert (await one.progress(0)).accepted
        async with other.listening():
            assert (await other.opened()).round == 0
            assert (await other.resume(data))[1] == len(data) - 3 * FRAME
            opened = await other.opened()
        assert opened.base_digest == digest(stepped([(flat(1), 2), (flat(2), 100)]))
    finally:
        await place.fall()
    # What a crash left behind of rounds that are over is cleared away at the start; what may still come late is not.
    (tmp_path / "models" / "contribution-000000-left-1").write_bytes(b"left")
    (tmp_path / "models" / "incoming-000000-site-c-1").write_bytes(b"half")
    await place.rise()
    try:
        names = {path.name for path in (tmp_path / "models").iterdir()}
        assert names == {
            "base-000000.safetensors",
            "base-000001.safetensors",
            "incoming-000000-site-c-1",
            "outer-000000-0.f32",
            "outer-000001-0.f32",
        }
    finally:
        await place.fall()


async def test_a_disk_that_is_full_while_merging_ends_the_coordinator_and_loses_nothing(
    kind: str, tmp_path: Path
) -> None:
    place = Place(kind, tmp_path, LONG)
    async with standing(place):
        site = await place.join("site-a")
        (tmp_path / "models" / f"base-000001.safetensors{DRAFT}").symlink_to("/dev/full")
        await site.push(1)
        async with asyncio.timeout(SECONDS):
            await place.stand.stopping.wait()
        assert place.stand.mistake is not None
        assert place.stand.mistake.exit_code is ExitCode.DISK_FULL
        assert place.coordinator.state.phase is Phase.MERGING
    async with standing(place):
        (completed,) = await place.said(RoundCompleted, 1)
        assert completed.model_digest == digest(stepped([(flat(1), 1)]))


async def unreadable(place: Place) -> None:
    """Somebody damages the journal's file behind the coordinator's back."""
    with closing(sqlite3.connect(place.folder / "journal.sqlite", isolation_level=None)) as database:
        database.execute("DROP TABLE outbox")


async def test_a_journal_that_breaks_under_a_call_ends_the_coordinator(place: Place) -> None:
    await unreadable(place)
    code, detail = await refused(place.join("site-a"))
    assert (code, str(place.folder) in detail) == (grpc.StatusCode.UNAVAILABLE, False)
    assert not place.coordinator.state.members, "what was not kept was not decided"
    assert place.stand.mistake is not None
    assert place.stand.mistake.exit_code is ExitCode.RESOURCE


async def test_a_journal_that_breaks_under_a_timer_ends_the_coordinator(kind: str, tmp_path: Path) -> None:
    async with standing(Place(kind, tmp_path, LONG, silence=timedelta(seconds=0.1))) as place:
        await place.join("site-a")
        await unreadable(place)
        async with asyncio.timeout(SECONDS):
            await place.stand.stopping.wait()
        assert place.stand.mistake is not None
        assert "site-a" in place.coordinator.state.members


async def test_a_disk_that_breaks_under_a_push_ends_the_coordinator_and_says_no_path(place: Place) -> None:
    site = await place.join("site-a")
    (place.folder / "models" / "incoming-000000-site-a-1").mkdir()
    code, detail = await refused(site.push(1))
    assert (code, str(place.folder) in detail) == (grpc.StatusCode.UNAVAILABLE, False)
    assert place.stand.stopping.is_set()
    assert place.stand.mistake is not None
    assert str(place.folder) in str(place.stand.mistake)
