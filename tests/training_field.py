"""A coordinator that sites talk to over real gRPC or its double, and that can be killed and started again."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import uuid4

import grpc
import grpc.aio
import pytest
import torch
from torch import Tensor

from windfall.contracts.envelope import unseal
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, HUB, hub_streams
from windfall.contracts.v1 import training_pb2 as pb
from windfall.contracts.v1.training_pb2_grpc import TrainingStub
from windfall.federation_coordinator.app import Coordinator, Model
from windfall.federation_coordinator.beginning import Wanted
from windfall.federation_coordinator.federation import Federation, Policy
from windfall.federation_coordinator.store import ModelStore
from windfall.federation_coordinator.training import TrainingService
from windfall.federation_coordinator.wire import PushFrame, register
from windfall.lowcomm.layout import Layout, TensorSpec
from windfall.lowcomm.outer import parse_outer
from windfall.lowcomm.rule import Rule
from windfall.servicekit.clock import SystemClock
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
SECONDS = 60.0
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

    async def Push(self, frames: AsyncIterator[PushFrame], context: Any) -> pb.PushReceipt:  # noqa: N802
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
    again: Callable[[], bool] | None = None
    """Makes the newest checkpoint whole, from the next start on."""
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
            again=self.again,
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


@asynccontextmanager
async def standing(place: Place) -> AsyncIterator[Place]:
    await place.rise()
    try:
        yield place
    finally:
        await place.fall()


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


INVALID, PRECONDITION, NOT_FOUND, UNAVAILABLE = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNAVAILABLE,
)
