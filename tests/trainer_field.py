"""Trainers at two sites against the real coordinator, on virtual time: what may break there, and what must hold."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID, uuid4

import grpc
import grpc.aio
import torch
from torch import Tensor

from windfall.contracts.envelope import seal, unseal
from windfall.contracts.events import ContributionAccepted, ContributionRefused, RoundCompleted, SiteJoined, SiteLeft
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, HUB, hub_streams, site_streams
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.app import Coordinator, Model
from windfall.federation_coordinator.federation import Federation, Policy
from windfall.federation_coordinator.store import ModelStore
from windfall.federation_coordinator.training import TrainingService
from windfall.federation_coordinator.wire import register
from windfall.lowcomm.layout import Layout, TensorSpec, digest
from windfall.lowcomm.rule import Rule
from windfall.servicekit.clock import LoopClock
from windfall.servicekit.journal import Journal
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.service import Stand
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain
from windfall.servicekit.testing.memory_rpc import MemoryChannel, MemoryServer
from windfall.servicekit.testing.virtual import run_virtual
from windfall.site_trainer.app import Trainer
from windfall.site_trainer.coordinator import CoordinatorLink, Membership
from windfall.site_trainer.engine import Engine
from windfall.site_trainer.terms import Terms
from windfall.site_trainer.toy import ToyEngine, toy_layout

T = TypeVar("T")

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SITES = ("site-a", "site-b")
BY_TIME = Policy(20 * MINUTE, None, 5 * MINUTE, None)
BY_STEPS = Policy(None, 5, 5 * MINUTE, None)
LONG = Policy(timedelta(hours=10), None, 5 * MINUTE, None)
PLAIN = Rule.parse("fp32", "nesterov")
TOPK, INT4 = Rule.parse("topk-ef"), Rule.parse("int4-block")
LARGE = Layout((TensorSpec("point", (4000,)), TensorSpec("seen", (96,), exact=True)))
"""Large enough for the outer log to be much shorter than the model."""
SMALL = Layout((TensorSpec("point", (600,)), TensorSpec("seen", (5,), exact=True)))
"""Just large enough for it to be shorter."""
THREE = Layout((TensorSpec("point", (2 * 4096 + 100,)), TensorSpec("seen", (5,), exact=True)))
"""Large enough for three fragments."""
MICRO_BATCH = 4
TOKENS = 64 * MICRO_BATCH
"""Of a toy engine's step."""
HEARTBEAT = timedelta(seconds=30)
SILENCE = 5 * HEARTBEAT

Make = Callable[[Membership], Engine]


class Link(MemoryChannel):
    """A site's way to the coordinator: counts what goes over it, keeps it, and loses receipts when told to."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)
        self.calls: Counter[str] = Counter()
        self.sent: list[bytes] = []
        self.receipts_to_lose = 0
        self.bytes_down = 0
        self.logs = 0
        self.models = 0
        self.cut_at: set[int] = set()
        """Bytes down at which the link is cut for a moment."""
        self.blocked: set[str] = set()
        """Methods that do not get through."""
        self.lag = timedelta(0)
        """That every download and every upload takes longer."""

    def unary_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        return self._watched(method, super().unary_unary(method, self._kept(request_serializer), response_deserializer))

    def unary_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        call = super().unary_stream(method, self._kept(request_serializer), self._counted(response_deserializer))
        watched = self._watched(method, call)

        async def slow(request: Any, **given: Any) -> AsyncIterator[Any]:
            await asyncio.sleep(self.lag.total_seconds())
            async for frame in watched(request, **given):
                yield frame

        return slow

    def stream_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        call = super().stream_stream(method, self._kept(request_serializer), response_deserializer)
        return self._watched(method, call)

    def stream_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        call = super().stream_unary(method, self._kept(request_serializer), response_deserializer)
        watched = self._watched(method, call)

        async def lossy(requests: Any, **given: Any) -> Any:
            await asyncio.sleep(self.lag.total_seconds())
            reply = await watched(requests, **given)
            if self.receipts_to_lose:
                self.receipts_to_lose -= 1
                raise away("the receipt is lost")
            return reply

        return lossy

    def _kept(self, write: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
        def kept(message: Any) -> bytes:
            data = write(message)
            self.sent.append(data)
            return data

        return kept

    def _counted(self, read: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        def counted(data: bytes) -> Any:
            frame = pb.PullFrame.FromString(data)
            self.bytes_down += len(frame.data)
            if frame.data and self.bytes_down in self.cut_at:
                self.cut()
                self.heal()
            if frame.WhichOneof("kind") == "head":
                self.logs += frame.head.log
                self.models += not frame.head.log
            return read(data)

        return counted

    def _watched(self, method: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(request: Any, **given: Any) -> Any:
            name = method.rpartition("/")[2]
            self.calls[name] += 1
            if name in self.blocked:
                raise away(f"{name} does not get through")
            self.sent.append(repr(given.get("metadata")).encode())
            return call(request, **given)

        return watched


def away(detail: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), detail)


class Watched(ToyEngine):
    """Keeps the digest of every base that it was given, and every pseudo-gradient that it gave."""

    def __init__(self, elements: int, seed: int, bases: list[str]) -> None:
        super().__init__(elements, seed)
        self.bases = bases
        self.gradients: list[Tensor] = []

    def load(self, base: Tensor, tokens: int = 0, sites: int = 1) -> None:
        super().load(base, tokens, sites)
        self.bases.append(digest(base))

    def rebase(self, base: Tensor, counted: bool, tokens: int = 0, sites: int = 1) -> None:
        super().rebase(base, counted, tokens, sites)
        self.bases.append(digest(base))

    def pseudo_gradient(self) -> Tensor:
        self.gradients.append(super().pseudo_gradient())
        return self.gradients[-1]


@dataclass
class Node:
    """One trainer process."""

    trainer: Trainer
    stand: Stand
    bus: MemoryBus
    link: Link
    steps: int = 0

    async def kill(self) -> None:
        """As -9 does: nothing is finished."""
        self.link.cut()
        await self.bus.stop()
        await self.stand.cut()

    async def ended(self) -> None:
        """It has drained or failed, and said what it had to."""
        await self.trainer.finished.wait()
        await self.stand.outbox.emptied()
        await self.bus.stop()
        await self.stand.cut()


@dataclass
class Field:
    """A hub with the real coordinator, and sites on which trainers can be started."""

    folder: Path
    policy: Policy = LONG
    layout: Layout = field(default_factory=lambda: toy_layout(64))
    rule: Rule = PLAIN
    first: Tensor | None = None
    model: Model | None = None
    step: timedelta = MINUTE
    server: MemoryServer = field(default_factory=MemoryServer)
    nodes: list[Node] = field(default_factory=list)
    on_disk: Callable[[str], None] = lambda work: None
    """Called with the name of each piece of disk work that the coordinator has done."""
    written: int = 0
    dice: random.Random = field(default_factory=lambda: random.Random(5))
    service: type[TrainingService] = TrainingService
    overlap: bool = False
    fragments: int = 1

    def __post_init__(self) -> None:
        self.clock = LoopClock(NOON)
        self.domains = {name: MemoryDomain(name) for name in (HUB, *SITES)}
        self.journals: dict[str, Journal] = {}
        self.bases: dict[str, list[str]] = {site: [] for site in SITES}
        """Digests of what each site's engine was given to start from."""
        for site in SITES:
            self.domains[HUB].join(self.domains[site])

    # --- the hub ------------------------------------------------------------------------------------------------------

    async def start_coordinator(self) -> None:
        self.hub, self.hub_bus = self.stand("federation-coordinator", HUB)
        store = ModelStore(self.folder / "models", self.layout, self.rule, fragments=self.fragments)
        journaled = self.hub.journal.load("federation", Federation)
        first = torch.zeros(self.layout.elements) if self.first is None else self.first
        digest = journaled.base_digest if journaled else store.initialise(first)
        model = self.model or Model("toy", "{}", self.layout)
        self.coordinator = Coordinator(self.hub, "demo", model, self.policy, store, digest, SILENCE, self.disk)
        self.server.down = False
        service = self.service(self.coordinator, SITES, HEARTBEAT, overlap=self.overlap)
        register(service, self.server)
        self.coordinator.attend()
        await self.hub.rise()

    async def kill_coordinator(self) -> None:
        await self.server.kill()
        self.coordinator.rest()
        await self.hub_bus.stop()
        await self.hub.cut()

    async def disk(self, work: Callable[..., T], /, *arguments: object) -> T:
        result = work(*arguments)
        name = getattr(work, "__name__", "")
        self.written += sum(map(len, cast(Sequence[bytes], arguments[0]))) if name == "write" else 0
        self.on_disk(name)
        return result

    # --- the sites ----------------------------------------------------------------------------------------------------

    async def start(self, site: str = "site-a", token: int = 1, make: Make | None = None, **terms: Any) -> Node:
        stand, bus = self.stand("site-trainer", site)
        link = Link(self.server)
        folder = self.folder / site
        folder.mkdir(parents=True, exist_ok=True)
        values: dict[str, Any] = {
            "site": site,
            "federation": "demo",
            "window_id": UUID(int=token),
            "lease_token": token,
            "micro_batch": MICRO_BATCH,
            "drain_time": 2 * MINUTE,
            "checkpoint_every": timedelta(0),
            "checkpoint": folder / "checkpoint",
        }
        node: Node

        async def in_place(work: Callable[..., T], /, *arguments: object) -> T:
            if getattr(work, "__name__", "") == "step":
                await asyncio.sleep(self.step.total_seconds() * self.dice.uniform(0.9, 1.1))
                node.steps += 1
            return work(*arguments)

        trainer = Trainer(
            stand,
            Terms(**(values | terms)),
            CoordinatorLink(cast(Any, link), "demo", site),
            make or self.watched(site),
            in_place,
        )
        node = Node(trainer, stand, bus, link)
        self.nodes.append(node)
        trainer.attend()
        await stand.rise()
        return node

    def watched(self, site: str, kind: type[Watched] = Watched) -> Make:
        seed = SITES.index(site) + 1
        return lambda membership: kind(membership.layout.elements, seed, self.bases[site])

    def stand(self, service: str, whom: str) -> tuple[Stand, MemoryBus]:
        journal = self.journals.setdefault(whom, Journal(None, f"/windfall/{service}/{whom}"))
        streams = hub_streams(SITES) if whom == HUB else site_streams(whom)
        bus = MemoryBus(self.domains[whom], service, streams)
        return Stand(service, whom, self.clock, journal, bus, Outbox(journal, bus)), bus

    async def stay(self, site: str) -> asyncio.Task[None]:
        """A member that only keeps the round open."""
        attempt = self.coordinator.join(site, uuid4(), 1)

        async def live() -> None:
            try:
                while True:
                    self.coordinator.beat(pb.Beat(federation="demo", site=site, attempt=attempt))
                    await self.sleep(HEARTBEAT)
            finally:
                self.coordinator.leave(site, attempt)

        return self.hub.spawn(live(), "stay")

    def cut_once(self, node: Node, work: str) -> None:
        """Cut a site's link for a minute when the coordinator has next done this with its disk."""

        def cut(done: str) -> None:
            if done == work:
                self.on_disk = lambda work: None
                node.link.cut()
                asyncio.get_running_loop().call_later(60, node.link.heal)

        self.on_disk = cut

    async def tell(self, site: str, message: Message) -> None:
        self.domains[site].store(seal(message, "/test"))

    async def drain(self, *nodes: Node) -> None:
        for node in nodes:
            node.trainer.stop("asked to")
        for node in nodes:
            await node.ended()
        # What the last one said is on its way to the hub.
        await self.sleep(timedelta(seconds=1))

    # --- what happened ------------------------------------------------------------------------------------------------

    async def sleep(self, duration: timedelta) -> None:
        await self.clock.sleep(duration)

    def events(self, kind: type[T]) -> list[T]:
        letters = (unseal(letter) for letter in self.domains[HUB].letters(EVENTS_STREAM))
        return [event for event in letters if isinstance(event, kind)]

    async def until(self, kind: type[T], count: int = 1) -> list[T]:
        """Events of a kind on the hub, once there are so many."""
        async with asyncio.timeout(timedelta(days=2).total_seconds()):
            while True:
                stream = self.domains[HUB].stream(EVENTS_STREAM)
                assert stream is not None
                arrived = stream.arrived
                if len(found := self.events(kind)) >= count:
                    return found
                await arrived.wait()

    @property
    def steps(self) -> int:
        return sum(node.steps for node in self.nodes)

    @property
    def counted(self) -> int:
        return sum(event.tokens for event in self.events(ContributionAccepted))

    def check_each_step_counted_once(self) -> None:
        assert self.counted == self.steps * TOKENS
        keys = Counter((one.site, one.attempt, one.round) for one in self.events(ContributionAccepted))
        assert max(keys.values()) == 1
        assert not self.events(ContributionRefused)

    def check_replicas(self) -> None:
        """Whatever an engine trained from was a base of the coordinator's, to the bit; and in a round, that round's."""
        first = torch.zeros(self.layout.elements) if self.first is None else self.first
        rounds = self.events(RoundCompleted)
        for site, bases in self.bases.items():
            assert set(bases) <= {digest(first), *(one.model_digest for one in rounds)}
            for one in rounds:
                assert site not in one.contributors or one.base_digest in bases, (site, one.round)


@asynccontextmanager
async def standing(field: Field) -> AsyncIterator[Field]:
    await field.start_coordinator()
    try:
        yield field
    finally:
        for node in field.nodes:
            await node.kill()
        await field.kill_coordinator()


def play(story: Callable[[Field], Coroutine[Any, Any, None]], field: Field) -> None:
    async def live() -> None:
        async with standing(field):
            await story(field)

    run_virtual(live())


def check_the_whole(field: Field) -> None:
    accepted = field.events(ContributionAccepted)
    rounds = field.events(RoundCompleted)
    assert max(Counter((one.site, one.attempt, one.round - one.rounds_late) for one in accepted).values()) == 1
    assert [one.round for one in rounds] == list(range(len(rounds)))
    in_the_model = [one for one in accepted if one.round < len(rounds)]
    assert rounds[-1].tokens_total == sum(one.tokens for one in in_the_model)
    assert not [one for one in field.events(ContributionRefused) if one.reason not in ("round", "lease", "member")]
    joined = {(one.site, one.attempt) for one in field.events(SiteJoined)}
    assert {(one.site, one.attempt) for one in field.events(SiteLeft)} <= joined


class Waits(Watched):
    """An engine that cannot train on."""

    tell = None  # type: ignore[assignment]
