"""A trainer against the real coordinator on virtual time: cuts, kills and takeovers, and what its work counts for."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from math import nan
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import UUID, uuid4

import grpc
import grpc.aio
import pytest
import torch
from torch import Tensor

from windfall.contracts.commands import StopTraining
from windfall.contracts.envelope import seal, unseal
from windfall.contracts.events import (
    AdviceGiven,
    ContributionAccepted,
    ContributionRefused,
    NodeProfiled,
    RoundCompleted,
    RoundStarted,
    SiteDrained,
    SiteJoined,
    SiteLeft,
    TaskLearnt,
    TrainingStarted,
    WindowClosed,
    WindowClosing,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, HUB, hub_streams, site_streams
from windfall.contracts.v1 import training_pb2 as pb
from windfall.contracts.v1.training_pb2_grpc import TrainingStub
from windfall.federation_coordinator.app import Coordinator, Model
from windfall.federation_coordinator.choosing import ForSite
from windfall.federation_coordinator.federation import Federation, Phase, Policy
from windfall.federation_coordinator.outer_step import Stretch
from windfall.federation_coordinator.store import ModelStore
from windfall.federation_coordinator.training import TrainingService
from windfall.federation_coordinator.wire import register
from windfall.lowcomm.layout import Layout, TensorSpec, digest, flatten, layout_of_model
from windfall.lowcomm.rule import Rule
from windfall.lowcomm.wire import HEADER_BYTES
from windfall.servicekit.clock import LoopClock
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.journal import Journal
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.service import Stand
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain
from windfall.servicekit.testing.memory_rpc import MemoryChannel, MemoryServer
from windfall.servicekit.testing.virtual import run_virtual
from windfall.site_trainer.app import Trainer
from windfall.site_trainer.coordinator import CoordinatorLink, Membership
from windfall.site_trainer.engine import Engine, Skip, StepReport
from windfall.site_trainer.terms import Terms
from windfall.site_trainer.torch_engine import TorchEngine
from windfall.site_trainer.toy import ToyEngine, toy_layout
from windfall.site_trainer.tuning import Owner
from windfall.tasks.registry import load_task

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


# --- with what it trains ----------------------------------------------------------------------------------------------


class Tuned(Watched):
    """Keeps how it was tuned."""

    tunings: tuple[tuple[int, str], ...] = ()

    def tune(self, accumulation: int, precision: str) -> None:
        self.tunings = (*self.tunings, (accumulation, precision))


def test_each_site_trains_with_what_its_profile_recommends_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    """One operator's word and one owner's; the other values are as advised, and it is said whose word each is."""
    engines: dict[str, Tuned] = {}

    def make(site: str) -> Make:
        def made(membership: Membership) -> Engine:
            engines[site] = Tuned(membership.layout.elements, SITES.index(site) + 1, [])
            return engines[site]

        return made

    async def story(field: Field) -> None:
        for site in ("site-a", "site-b"):
            await field.tell(HUB, profiled(site))
        await field.sleep(MINUTE)
        nodes = [
            await field.start("site-a", make=make("site-a")),
            await field.start("site-b", make=make("site-b"), owner=Owner(accumulation=1)),
        ]
        await field.until(RoundCompleted, 2)
        assert engines["site-a"].tunings == ((4, "fp32"),)
        assert engines["site-b"].tunings == ((1, "bf16"),)
        tokens = {one.site: one.tokens // one.steps for one in field.events(ContributionAccepted)}
        assert tokens == {"site-a": 64 * 32, "site-b": 64 * 32}
        advice = field.events(AdviceGiven)[-1]
        values = {one.site: one.values["precision"] for one in advice.sites}
        assert (values["site-a"].used, values["site-a"].by, values["site-a"].advised) == ("fp32", "operator", "bf16")
        assert (values["site-b"].used, values["site-b"].by) == ("bf16", "advice")
        learnt = {(one.site, one.task) for one in field.events(TaskLearnt)}
        assert learnt == {("site-a", "toy"), ("site-b", "toy")}
        await field.drain(*nodes)

    play(story, Field(tmp_path, replace(BY_STEPS, sites={"site-a": ForSite(precision="fp32")})))


def profiled(site: str) -> NodeProfiled:
    return NodeProfiled.model_validate(
        {
            **{"id": uuid4(), "at": NOON, "site": site, "window_id": UUID(int=1), "lease_token": 1, "node": "n"},
            "measured": {"fingerprint": "f", "cpu_model": "m", "cpu_cores": 1, "memory_bytes": 1},
            "recommendation": {
                **{"micro_batch": 8, "gradient_accumulation": 4, "precision": "bf16", "local_steps": 9},
                "because": "it fits",
            },
        }
    )


# --- the coordinator is away ------------------------------------------------------------------------------------------


def test_it_joins_when_the_coordinator_comes(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        await field.kill_coordinator()
        node = await field.start()
        await field.sleep(10 * MINUTE)
        assert node.trainer.session.attempt is None
        await field.start_coordinator()
        await field.until(TrainingStarted)
        assert field.clock.now() < NOON + 13 * MINUTE
        await field.drain(node)
        field.check_each_step_counted_once()

    play(story, Field(tmp_path))


def test_told_to_stop_before_it_was_ever_admitted_it_has_nothing_to_lose(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        await field.kill_coordinator()
        node = await field.start()
        await field.sleep(MINUTE)
        await field.drain(node)
        (drained,) = field.events(SiteDrained)
        assert drained.delivered

    play(story, Field(tmp_path))


def test_the_coordinator_starts_again_in_mid_round_and_the_round_goes_on(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        await field.sleep(5 * MINUTE)
        await field.kill_coordinator()
        await field.sleep(2 * MINUTE)
        await field.start_coordinator()
        await field.until(RoundCompleted)
        await field.drain(node)
        assert (len(field.events(SiteJoined)), field.events(SiteLeft)[0].reason) == (1, "drained")
        assert [one.round for one in field.events(RoundStarted)] == [0, 1]
        assert field.events(ContributionAccepted)[0].tokens > 15 * TOKENS
        field.check_each_step_counted_once()

    play(story, Field(tmp_path, BY_TIME))


# --- the link is cut --------------------------------------------------------------------------------------------------


def test_a_push_that_is_cut_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("windfall.site_trainer.bulk.CHUNK_BYTES", 64)  # of the toy's 256

    async def story(field: Field) -> None:
        node = await field.start()
        field.cut_once(node, "write")
        await field.until(ContributionAccepted)
        assert field.written == HEADER_BYTES + field.layout.nbytes, "what had arrived was not sent again"
        assert node.link.calls["Push"] == 2
        await field.drain(node)
        field.check_each_step_counted_once()
        assert field.events(SiteDrained)[0].delivered

    play(story, Field(tmp_path, BY_STEPS))


@pytest.mark.parametrize("work", ["incoming", "seal", "merge"])
def test_a_cut_in_the_last_moment_neither_loses_nor_doubles(work: str, tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        field.cut_once(node, work)
        await field.until(RoundCompleted, 3)
        await field.drain(node)
        field.check_each_step_counted_once()
        assert field.events(SiteDrained)[0].delivered

    play(story, Field(tmp_path, BY_STEPS))


def test_the_receipt_is_lost_and_the_next_round_opens_meanwhile(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        node.link.receipts_to_lose = 1
        await field.until(RoundCompleted, 2)
        await field.drain(node)
        field.check_each_step_counted_once()
        assert field.events(SiteDrained)[0].delivered

    play(story, Field(tmp_path, BY_STEPS))


def test_the_receipt_is_lost_and_so_is_the_membership(tmp_path: Path) -> None:
    """The same work under a new attempt would count twice: it is not sent again, and the round still moves on."""

    async def story(field: Field) -> None:
        stay = await field.stay("site-b")
        node = await field.start()
        node.link.receipts_to_lose = 1
        await field.until(ContributionAccepted)
        node.link.cut()
        await field.until(SiteLeft)
        node.link.blocked = {"Progress", "Push"}
        node.link.heal()
        # It is a member again before it can ask what became of its contribution.
        await field.until(SiteJoined, 3)
        node.link.blocked = set()
        await field.until(ContributionAccepted, 2)
        assert [(one.attempt, one.tokens) for one in field.events(ContributionAccepted)] == [
            (1, 5 * TOKENS),
            (2, 5 * TOKENS),
        ]
        stay.cancel()
        await field.until(RoundCompleted)
        await field.drain(node)
        field.check_each_step_counted_once()
        assert field.events(SiteDrained)[0].delivered

    play(story, Field(tmp_path, BY_STEPS))


def test_dropped_as_silent_it_joins_again_and_its_work_counts(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        await field.sleep(5 * MINUTE)
        node.link.cut()
        await field.sleep(10 * MINUTE)
        (left,) = field.events(SiteLeft)
        assert left.reason == "silent"
        node.link.heal()
        await field.until(ContributionAccepted)
        (accepted,) = field.events(ContributionAccepted)
        assert (accepted.attempt, accepted.tokens) == (2, node.steps * TOKENS)
        await field.drain(node)
        field.check_each_step_counted_once()
        assert field.events(SiteDrained)[0].delivered

    play(story, Field(tmp_path, BY_TIME))


def test_dropped_without_hearing_it_its_push_says_so_and_counts_under_the_next_attempt(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        await field.sleep(MINUTE)
        node.link.blocked = {"Heartbeat"}
        node.link.cut()
        await field.until(SiteLeft)
        node.link.heal()
        await field.until(ContributionAccepted)
        node.link.blocked = set()
        (accepted,) = field.events(ContributionAccepted)
        assert (accepted.attempt, accepted.tokens) == (2, 5 * TOKENS)
        assert [(one.attempt, one.reason) for one in field.events(ContributionRefused)] == [(1, "member")]
        await field.drain(node)
        assert field.counted == node.steps * TOKENS
        assert field.events(SiteDrained)[0].delivered

    play(story, Field(tmp_path, BY_STEPS))


def test_cut_off_while_it_drains_it_waits_for_the_link_and_delivers(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        await field.sleep(5 * MINUTE)
        node.link.cut()
        node.trainer.stop("asked to")
        await field.sleep(10 * MINUTE)
        assert not node.trainer.finished.is_set()
        node.link.heal()
        await field.drain(node)
        field.check_each_step_counted_once()
        assert field.events(SiteDrained)[0].delivered

    play(story, Field(tmp_path))


def test_a_coordinator_that_is_away_is_asked_less_and_less_often_and_met_at_once(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        await field.sleep(5 * MINUTE)
        node.link.cut()
        node.trainer.stop("asked to")
        before = sum(node.link.calls[name] for name in ("Push", "Progress"))
        await field.sleep(10 * MINUTE)
        assert sum(node.link.calls[name] for name in ("Push", "Progress")) - before < 310
        healed = field.clock.now()
        node.link.heal()
        (accepted,) = await field.until(ContributionAccepted)
        assert accepted.at - healed < timedelta(milliseconds=300)
        await field.drain(node)
        field.check_each_step_counted_once()

    play(story, Field(tmp_path))


# --- leases -----------------------------------------------------------------------------------------------------------


def test_a_fenced_lease_drains_in_peace(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        newer = await field.start(token=2)
        await field.until(SiteJoined)
        older = await field.start(token=1, checkpoint=None)
        await older.ended()
        assert older.stand.mistake is None
        await field.sleep(MINUTE)
        (drained,) = field.events(SiteDrained)
        assert (drained.lease_token, drained.delivered) == (1, True)
        await field.drain(newer)
        assert len(field.events(SiteJoined)) == 1
        field.check_each_step_counted_once()

    play(story, Field(tmp_path))


def test_the_newer_lease_takes_over_and_the_older_one_says_that_work_was_lost(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        older = await field.start(token=1, checkpoint=None)
        await field.sleep(5 * MINUTE)
        newer = await field.start(token=2, checkpoint=None)
        await older.ended()
        await field.sleep(3 * MINUTE)
        (drained,) = field.events(SiteDrained)
        assert (drained.lease_token, drained.delivered) == (1, False)
        await field.drain(newer)
        assert field.counted == newer.steps * TOKENS
        assert [left.reason for left in field.events(SiteLeft)] == ["replaced", "drained"]

    play(story, Field(tmp_path))


def test_an_order_for_an_older_lease_is_not_for_this_trainer(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start(token=3)
        await field.sleep(2 * MINUTE)
        for token in (2, 3):
            assert not node.trainer.session.stopping
            order = StopTraining(id=uuid4(), at=field.clock.now(), site="site-a", lease_token=token, reason="asked to")
            await field.tell("site-a", order)
            await field.sleep(timedelta(seconds=1))
        assert node.trainer.session.stopping
        await node.ended()

    play(story, Field(tmp_path))


# --- before the window opens ------------------------------------------------------------------------------------------

SOON = NOON + 5 * MINUTE


def opens(token: int = 1) -> WindowOpened:
    window = UUID(int=token)
    return WindowOpened(
        id=uuid4(), at=NOON, site="site-a", window_id=window, intensity_g_per_kwh=20, expected_close_at=None
    )


def withdraws(token: int = 1) -> WindowWithdrawn:
    return WindowWithdrawn(id=uuid4(), at=NOON, site="site-a", window_id=UUID(int=token))


def closes(token: int = 1) -> WindowClosed:
    return WindowClosed(id=uuid4(), at=NOON, site="site-a", window_id=UUID(int=token), reason="dirty", crossed_at=NOON)


def still(node: Node) -> bool:
    """Nothing was asked of the coordinator and nothing trained."""
    return not node.link.calls and not node.steps


def test_it_keeps_warm_until_its_window_is_said_to_be_open(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start(opens_at=SOON)
        await field.tell("site-a", opens(7))
        await field.tell("site-a", withdraws(7))
        await field.sleep(30 * MINUTE)
        assert node.trainer.session.warm
        assert still(node), "late is no reason: only the word is"
        await field.tell("site-a", opens())
        await field.until(TrainingStarted)
        assert field.clock.now() < NOON + 32 * MINUTE
        await field.drain(node)
        field.check_each_step_counted_once()

    play(story, Field(tmp_path))


def test_the_word_was_said_before_it_listened(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        field.domains["site-a"].declare(site_streams("site-a"))
        await field.tell("site-a", opens())
        node = await field.start(opens_at=SOON)
        await field.until(TrainingStarted)
        await field.drain(node)

    play(story, Field(tmp_path))


def test_the_word_was_heard_by_another_trainer_of_the_site(tmp_path: Path) -> None:
    """The one of the window before drains still; and one of our own lease died with the word in its hands."""

    async def story(field: Field) -> None:
        older = await field.start(token=1)
        await field.until(TrainingStarted)
        older.link.blocked = {"Push"}
        older.trainer.stop("its window closed")
        await field.sleep(MINUTE)
        warm = await field.start(token=2, opens_at=SOON)
        await field.sleep(MINUTE)
        assert still(warm)
        await field.tell("site-a", opens(2))
        await field.until(SiteJoined, 2)
        await warm.kill()
        again = await field.start(token=2, opens_at=SOON)
        await field.until(SiteJoined, 3)
        older.link.blocked = set()
        await field.drain(again)

    play(story, Field(tmp_path))


@pytest.mark.parametrize("word", [withdraws, closes, None], ids=["withdrawn", "closed", "told-to-stop"])
def test_a_window_that_does_not_come_ends_it_in_order(word: Callable[[], Message] | None, tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start(opens_at=SOON)
        await field.sleep(MINUTE)
        if word is None:
            node.trainer.stop("asked to end")
        else:
            await field.tell("site-a", word())
        await node.ended()
        (drained,) = await field.until(SiteDrained)
        assert drained.delivered
        assert still(node)
        assert not field.events(SiteJoined)
        assert node.stand.mistake is None

    play(story, Field(tmp_path))


def test_its_engine_is_there_before_the_window_opens_once_the_site_has_been_a_member(tmp_path: Path) -> None:
    made: list[tuple[int, int]] = []

    def counted(node: int, make: Make) -> Make:
        def count(membership: Membership) -> Engine:
            made.append((node, membership.layout.elements))
            return make(membership)

        return count

    async def story(field: Field) -> None:
        make = field.watched("site-a")
        for token in (1, 2):
            node = await field.start(token=token, make=counted(token, make), opens_at=SOON)
            await field.sleep(MINUTE)
            assert made == [(1, 64), (2, 64)][: 2 * token - 2]
            await field.tell("site-a", opens(token))
            await field.until(TrainingStarted, token)
            await field.drain(node)
        assert made == [(1, 64), (2, 64)]
        await field.kill_coordinator()
        field.layout, field.folder = toy_layout(32), tmp_path / "another"
        field.journals.pop(HUB)
        await field.start_coordinator()
        node = await field.start(token=3, make=counted(3, make), opens_at=SOON)
        await field.sleep(MINUTE)
        await field.tell("site-a", opens(3))
        await field.until(TrainingStarted, 3)
        assert made[2:] == [(3, 64), (3, 32)], "what is trained has changed since"
        await field.drain(node)

    play(story, Field(tmp_path))


def test_what_cannot_be_loaded_ahead_is_tried_again_by_who_joins(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        first = await field.start()
        await field.until(TrainingStarted)
        await field.drain(first)
        broken = [True]

        def make(membership: Membership) -> Engine:
            if broken.pop():
                raise Mistake("the data are not there yet", "Wait")
            return field.watched("site-a")(membership)

        broken.insert(0, False)
        node = await field.start(token=2, make=make, opens_at=SOON)
        await field.sleep(MINUTE)
        assert still(node)
        await field.tell("site-a", opens(2))
        await field.until(TrainingStarted, 2)
        await field.drain(node)

    play(story, Field(tmp_path))


# --- the window ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [timedelta(seconds=10), MINUTE, 7 * MINUTE], ids=["short", "a minute", "long"])
def test_its_last_contribution_is_there_before_the_window_closes(step: timedelta, tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        await field.sleep(31 * MINUTE)
        closes_at = field.clock.now() + 40 * MINUTE
        for window, at in ((UUID(int=9), NOON), (UUID(int=1), closes_at), (UUID(int=1), closes_at + MINUTE)):
            said = WindowClosing(id=uuid4(), at=field.clock.now(), site="site-a", window_id=window, closes_at=at)
            await field.tell("site-a", said)
        await node.ended()
        await field.sleep(MINUTE)
        (accepted,) = field.events(ContributionAccepted)
        assert accepted.partial
        assert accepted.at <= closes_at
        assert accepted.at > closes_at - 2 * MINUTE - 2.2 * step, "it trains as long as it can"
        field.check_each_step_counted_once()

    play(story, Field(tmp_path, step=step))


def test_a_window_that_closes_at_once_still_gets_its_work_out(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        await field.sleep(5 * MINUTE)
        at = field.clock.now()
        closed = WindowClosed(
            id=uuid4(), at=at, site="site-a", window_id=UUID(int=1), reason="stale", crossed_at=at - MINUTE
        )
        await field.tell("site-a", closed)
        await node.ended()
        await field.sleep(MINUTE)
        field.check_each_step_counted_once()
        assert [left.reason for left in field.events(SiteLeft)] == ["drained"]

    play(story, Field(tmp_path))


# --- killed, and started again from its checkpoint --------------------------------------------------------------------


def test_killed_with_work_that_was_not_sent_the_next_one_sends_it(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        first = await field.start(token=1)
        await field.sleep(6 * MINUTE)
        await first.kill()
        assert first.steps >= 4
        second = await field.start(token=2)
        await field.sleep(3 * MINUTE)
        await field.drain(second)
        (accepted,) = field.events(ContributionAccepted)
        assert accepted.tokens == (first.steps + second.steps) * TOKENS
        field.check_each_step_counted_once()

    play(story, Field(tmp_path))


def test_killed_while_it_could_not_push_the_next_one_asks_first_and_then_sends_it(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        first = await field.start(token=1)
        first.link.blocked = {"Push"}
        await field.sleep(10 * MINUTE)
        await first.kill()
        second = await field.start(token=2)
        # The question whether its work counts already does not get through at first.
        second.link.blocked = {"Progress"}
        await field.sleep(MINUTE)
        second.link.blocked = set()
        (accepted,) = await field.until(ContributionAccepted)
        assert (accepted.attempt, accepted.tokens, second.steps) == (2, 5 * TOKENS, 0)
        await field.drain(second)
        field.check_each_step_counted_once()

    play(story, Field(tmp_path, BY_STEPS))


@pytest.mark.parametrize("receipt", ["came", "was lost"])
def test_killed_after_its_work_was_accepted_the_next_one_begins_afresh(receipt: str, tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        # Another member keeps the round open.
        await field.stay("site-b")
        first = await field.start(token=1)
        first.link.receipts_to_lose = 1000 if receipt == "was lost" else 0
        await field.until(ContributionAccepted)
        await first.kill()
        second = await field.start(token=2)
        await field.until(ContributionAccepted, 2)
        assert [one.tokens for one in field.events(ContributionAccepted)] == [5 * TOKENS, 5 * TOKENS]
        assert {one.round for one in field.events(ContributionAccepted)} == {0}
        await field.drain(second)
        field.check_each_step_counted_once()

    play(story, Field(tmp_path, BY_STEPS))


def test_a_checkpoint_of_an_earlier_round_is_not_sent_as_this_ones(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        first = await field.start(token=1)
        await field.until(RoundCompleted, 2)
        await first.kill()
        second = await field.start(token=2)
        await field.sleep(10 * MINUTE)
        await field.drain(second)
        rounds = field.events(RoundCompleted)
        accepted = field.events(ContributionAccepted)
        assert sum(one.tokens for one in rounds) == sum(one.tokens for one in accepted) <= field.steps * TOKENS
        assert not field.events(ContributionRefused)

    play(story, Field(tmp_path, BY_STEPS))


def test_optimizer_and_cursor_outlive_a_lease_that_ended_between_rounds(tmp_path: Path) -> None:
    saved: list[str] = []

    class Saving(Watched):
        def save(self, path: Path) -> None:
            saved.append(path.name)
            super().save(path)

    async def story(field: Field) -> None:
        node = await field.start(make=field.watched("site-a", Saving), checkpoint_every=timedelta(days=1))
        await field.until(RoundCompleted)
        # The next round is open, and nothing is loaded of it yet.
        await field.drain(node)
        assert saved == ["checkpoint"]

    play(story, Field(tmp_path, BY_STEPS))


# --- the way down -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["topk-ef", "int4-block", "q2-ef", "dct-momentum"])
def test_sites_that_hold_a_base_download_what_the_others_said_and_no_more_models(codec: str, tmp_path: Path) -> None:
    rule, elements = Rule.parse(codec), LARGE.split
    full = LARGE.nbytes + 4 * sum(rule.outer.sizes(elements.trained))
    noise = torch.randn(4096, generator=torch.Generator().manual_seed(1))
    message = len(rule.encode(rule.codec.init(4000), noise, elements, base=0, tokens=1, steps=1)[1])

    async def story(field: Field) -> None:
        stays, leaves = [await field.start(site) for site in SITES]
        await field.until(RoundCompleted, 4)
        await field.drain(leaves)
        await field.until(RoundCompleted, 6)
        # What it held when its window closed lies on its disk: it takes the rounds that it has missed from there.
        again = await field.start("site-b", token=2)
        await field.until(RoundCompleted, 10)
        await field.drain(stays, again)
        field.check_replicas()
        field.check_each_step_counted_once()
        assert [node.link.models for node in (stays, leaves, again)] == [1, 1, 0]
        assert stays.link.logs >= 9
        assert again.link.logs >= 3
        # A site's own message does not come back to it.
        assert stays.link.bytes_down <= full + stays.link.logs * (message + 300)
        assert again.link.bytes_down <= 3 * (message + 300) + again.link.logs * (message + 300)

    play(story, Field(tmp_path, BY_STEPS, LARGE, rule))


def test_killed_with_a_base_of_long_ago_on_its_disk_it_goes_on_from_there(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        await field.drain(first := await field.start())
        assert first.link.models == 0, "there was nothing to train for yet"
        first = await field.start(token=2)
        await field.until(RoundCompleted, 2)
        await field.drain(first)
        second = await field.start(token=3)
        await field.until(RoundCompleted, 5)
        await second.kill()
        third = await field.start(token=4)
        await field.until(RoundCompleted, 7)
        await field.drain(third)
        assert [node.link.models for node in (first, second, third)] == [1, 0, 0]
        assert third.link.logs >= 2
        field.check_replicas()

    play(story, Field(tmp_path, BY_STEPS, LARGE, TOPK))


@pytest.mark.parametrize("spoil", ["a bit", "shortened", "of another rule"])
def test_a_base_on_its_disk_that_is_not_what_it_was_is_left_aside(spoil: str, tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        first = await field.start()
        await field.until(RoundCompleted, 2)
        await field.drain(first)
        held = tmp_path / "site-a" / "base.safetensors"
        data = bytearray(held.read_bytes())
        data[-40] ^= 1
        held.write_bytes(bytes(data) if spoil == "a bit" else bytes(data[:-50]))
        if spoil == "of another rule":
            field.rule = Rule.parse("topk-ef:keep=32")
            await field.kill_coordinator()
            await field.start_coordinator()
        second = await field.start(token=2)
        await field.until(RoundCompleted, 4)
        await field.drain(second)
        assert second.link.models == 1
        field.check_replicas()

    play(story, Field(tmp_path, BY_STEPS, LARGE, TOPK))


LIES: dict[str, Callable[[bytes], bytes]] = {
    "a bit of a message": lambda log: log[:-20] + bytes([log[-20] ^ 1]) + log[-19:],
    "a bit of the list": lambda log: log[:100] + bytes([log[100] ^ 1]) + log[101:],
    "cut short": lambda log: log[:-1],
    "nothing": lambda log: b"",
    "twice the same round": lambda log: log + log,
    "zeros": lambda log: bytes(len(log)),
}


def _bytes(stretch: Stretch) -> bytes:
    if isinstance(stretch, bytes):
        return stretch
    return stretch.path.read_bytes()[stretch.data_start : stretch.data_start + stretch.nbytes]


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_log_that_lies_leads_to_a_model_in_full_and_never_to_a_wrong_one(
    lie: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    class Lying(TrainingService):
        async def _log(self, *arguments: Any) -> list[Stretch] | None:
            log = await super()._log(*arguments)
            return None if log is None else [lie(b"".join(map(_bytes, log)))]

    async def story(field: Field) -> None:
        nodes = [await field.start(site) for site in SITES]
        await field.until(RoundCompleted, 3)
        await field.drain(*nodes)
        # From its disk as well: once, not for ever.
        again = await field.start(token=2)
        await field.until(RoundCompleted, 6)
        await field.drain(again)
        field.check_replicas()
        assert all(node.link.models >= node.link.logs > 0 for node in (*nodes, again))
        assert not field.events(ContributionRefused)

    play(story, Field(tmp_path, BY_STEPS, LARGE, TOPK, service=Lying))


@pytest.mark.parametrize("rule", [TOPK, INT4], ids=lambda rule: rule.codec.name)
def test_a_download_that_is_cut_goes_on_where_it_stopped(
    rule: Rule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windfall.federation_coordinator.wire.CHUNK_BYTES", 1024)
    full = LARGE.nbytes * (1 if rule is TOPK else 2) - 4 * 96 * (rule is INT4)

    async def story(field: Field) -> None:
        node = await field.start()
        node.link.cut_at = {5 * 1024, LARGE.nbytes + 2048}
        await field.until(RoundCompleted)
        await field.drain(node)
        assert node.link.models == 1
        assert node.link.calls["Pull"] >= 2
        assert node.link.bytes_down - full < 4 * 1024, "what had arrived did not come again"
        field.check_replicas()

    play(story, Field(tmp_path, BY_STEPS, LARGE, rule))


# --- what waits to be said --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["topk-ef", "q2-ef", "dct-momentum"])
def test_what_was_left_unsaid_is_said_later_but_not_under_a_new_membership(codec: str, tmp_path: Path) -> None:
    rule, elements = Rule.parse(codec), LARGE.split
    engines: list[Watched] = []

    async def story(field: Field) -> None:
        def make(membership: Membership) -> Engine:
            engines.append(cast(Watched, field.watched("site-a")(membership)))
            return engines[-1]

        node = await field.start(make=make)
        await field.until(RoundCompleted, 3)
        # It keeps its work over the cut, and says it under its next attempt.
        node.link.cut()
        await field.until(SiteLeft)
        node.link.heal()
        await field.until(RoundCompleted, 6)
        await field.drain(node)
        wire = b"".join(node.link.sent)
        (engine,) = engines
        accepted = field.events(ContributionAccepted)
        assert {one.attempt for one in accepted} == {1, 2}
        assert len(accepted) == len(engine.gradients) >= 6
        state, attempt, kept = rule.codec.init(elements.trained), 1, 0
        for one, gradient in zip(accepted, engine.gradients, strict=True):
            afresh = rule.codec.init(elements.trained)
            state, attempt = (state, attempt) if one.attempt == attempt else (afresh, one.attempt)
            _, forgetful = rule.encode(afresh, gradient, elements, base=one.round, tokens=one.tokens, steps=one.steps)
            state, said = rule.encode(state, gradient, elements, base=one.round, tokens=one.tokens, steps=one.steps)
            assert said in wire
            kept += said != forgetful
        assert kept == len(accepted) - 2, "in each membership but its first contribution"

    play(story, Field(tmp_path, BY_STEPS, LARGE, rule))


# --- the operator changes the rule ------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[Rule, Rule]] = {
    "fp32 to topk-ef": (Rule.parse("fp32", "average"), TOPK),
    "topk-ef to fp32": (TOPK, Rule.parse("fp32", "average")),
    "int4-block to topk-ef": (INT4, TOPK),
    "topk-ef to int4-block": (TOPK, Rule.parse("int4-block", "average")),
    "topk-ef keeps less": (TOPK, Rule.parse("topk-ef:keep=32")),
    "a smaller outer step": (TOPK, Rule.parse("topk-ef", "average:lr=0.5")),
}


@pytest.mark.parametrize("moment", ["Pull", "Push", ""], ids=["before it pulls", "before it pushes", "while it trains"])
@pytest.mark.parametrize(("before", "after"), CHANGES.values(), ids=CHANGES)
def test_a_rule_that_changed_between_two_lives_of_the_coordinator_is_learnt_by_joining_again(
    before: Rule, after: Rule, moment: str, tmp_path: Path
) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        await field.until(RoundCompleted, 2)
        node.link.blocked = {moment}
        await field.sleep(7 * MINUTE if moment else 2 * MINUTE)
        await field.kill_coordinator()
        field.rule = after
        await field.start_coordinator()
        node.link.blocked = set()
        done = len(field.events(RoundCompleted))
        await field.until(RoundCompleted, done + 4)
        await field.drain(node)
        field.check_replicas()
        assert {one.reason for one in field.events(ContributionRefused)} <= {"codec", "member"}
        # Even another setting of the same codec ends a membership: replicas never follow two rules.
        assert [one.attempt for one in field.events(SiteJoined)] == [1, 2]
        rounds = field.events(RoundCompleted)
        assert [one.round for one in rounds] == list(range(len(rounds)))

    play(story, Field(tmp_path, BY_STEPS, LARGE, before))


# --- everything at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", [PLAIN, TOPK, INT4], ids=lambda rule: rule.codec.name)
@pytest.mark.parametrize("policy", [BY_TIME, BY_STEPS], ids=["by time", "by steps"])
@pytest.mark.parametrize(
    ("seed", "overlap", "fragments"),
    [
        *((n, False, 1) for n in range(3)),
        *((n, True, 1) for n in range(4, 6)),
        (6, False, 3),
        (7, True, 3),
    ],
    ids=str,
)
def test_whatever_breaks_no_step_counts_twice_and_rounds_go_on(
    seed: int, overlap: bool, fragments: int, policy: Policy, rule: Rule, tmp_path: Path
) -> None:
    dice = random.Random(seed)
    known: dict[int, frozenset[int]] = {0: frozenset()}
    """The steps behind a sum of tokens: each step has a number of tokens of its own."""

    class Traced(Watched):
        def step(self, micro_batch: int) -> StepReport:
            self._tokens_per_sample = dice.getrandbits(28)
            before = known[self.progress.tokens]
            report = super().step(micro_batch)
            known[self.progress.tokens] = before | {report.tokens}
            return report

        def tell(self, part: slice | None = None) -> None:
            self.away = known[self.progress.tokens]
            super().tell(part)

        def rebase(self, base: Tensor, counted: bool, tokens: int = 0, sites: int = 1) -> None:
            since = known[self.progress.tokens]
            super().rebase(base, counted, tokens, sites)
            known[self.progress.tokens] = since if counted else self.away | since

        def snapshot(self) -> Callable[[Path], None]:
            if self._told.tokens:
                known[self._told.tokens + self.progress.tokens] = self.away | known[self.progress.tokens]
            return super().snapshot()

    async def story(field: Field) -> None:
        tokens = Counter(SITES)
        alive = {site: await field.start(site, 1, field.watched(site, Traced)) for site in SITES}

        async def trouble(site: str) -> None:
            node = alive[site]
            if overlap or fragments > 1:
                node.link.lag = dice.uniform(0, 10) * MINUTE
            match dice.choice(["cut", "receipts", "kill", "takeover", "coordinator", "disk"]):
                case "cut":
                    node.link.cut()
                    await field.sleep(dice.uniform(0, 6) * MINUTE)
                    node.link.heal()
                case "receipts":
                    node.link.receipts_to_lose = dice.randint(1, 3)
                case "kill":
                    await node.kill()
                    tokens[site] += 1
                    alive[site] = await field.start(site, tokens[site], field.watched(site, Traced))
                case "takeover":
                    tokens[site] += 1
                    alive[site] = await field.start(site, tokens[site], field.watched(site, Traced))
                    await node.ended()
                case "coordinator":
                    await field.kill_coordinator()
                    await field.sleep(dice.uniform(0, 3) * MINUTE)
                    await field.start_coordinator()
                case "disk":
                    field.cut_once(node, dice.choice(["incoming", "write", "seal", "merge", "prune"]))

        for _ in range(20):
            await field.sleep(dice.expovariate(1 / 600) * timedelta(seconds=1))
            await trouble(dice.choice(SITES))
        before = len(field.events(RoundCompleted))
        await field.until(RoundCompleted, before + 3)
        await field.drain(*alive.values())
        check_the_whole(field)
        field.check_replicas()
        counted = [known[one.tokens] for one in field.events(ContributionAccepted)]
        assert sum(map(len, counted)) == len(frozenset().union(*counted)), "a step counts twice"

    layout = toy_layout(64) if rule is PLAIN else SMALL
    layout = THREE if fragments > 1 else layout
    play(story, Field(tmp_path, policy, layout, rule, overlap=overlap, fragments=fragments))


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


# --- what cannot go on ------------------------------------------------------------------------------------------------


class Boasting(ToyEngine):
    """Says of its first round that it trained more than anybody can."""

    boasted = False

    def load(self, base: Tensor, tokens: int = 0, sites: int = 1) -> None:
        self._tokens_per_sample, self.boasted = (64 if self.boasted else 2**50), True
        super().load(base, tokens, sites)


@pytest.mark.parametrize("overlap", [False, True], ids=["waits", "overlaps"])
@pytest.mark.parametrize("policy", [BY_TIME, BY_STEPS], ids=["by time", "by steps"])
def test_what_is_refused_is_lost_and_the_next_one_counts(policy: Policy, overlap: bool, tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start(make=lambda membership: Boasting(membership.layout.elements, seed=1), checkpoint=None)
        await field.until(RoundCompleted, 2)
        await field.drain(node)
        (refused,) = field.events(ContributionRefused)
        assert (refused.reason, refused.round) == ("tokens", 0)
        assert not field.events(SiteDrained)[0].delivered
        assert [one.round for one in field.events(RoundCompleted)][:2] == [0, 1]

    play(story, Field(tmp_path, policy, overlap=overlap))


class Spoiled(Watched):
    """Its first pseudo-gradient is not a number."""

    spoiled = False

    def pseudo_gradient(self) -> Tensor:
        gradient = super().pseudo_gradient()
        if not self.spoiled:
            self.spoiled = True
            gradient[3] = nan
        return gradient


@pytest.mark.parametrize("overlap", [False, True], ids=["waits", "overlaps"])
@pytest.mark.parametrize("rule", [PLAIN, TOPK, INT4], ids=lambda rule: rule.codec.name)
@pytest.mark.parametrize("policy", [BY_TIME, BY_STEPS], ids=["by time", "by steps"])
def test_what_is_not_a_number_is_not_sent_and_nobody_waits_for_it(
    policy: Policy, rule: Rule, overlap: bool, tmp_path: Path
) -> None:
    async def story(field: Field) -> None:
        node = await field.start(make=field.watched("site-a", Spoiled))
        other = await field.start("site-b")
        await field.until(RoundCompleted, 3)
        await field.drain(node, other)
        assert not field.events(ContributionRefused)
        assert [one.attempt for one in field.events(SiteJoined) if one.site == "site-a"] == [1, 2]
        # Nobody had to find out by its silence.
        assert {left.reason for left in field.events(SiteLeft)} == {"drained"}
        attempts = {one.attempt for one in field.events(ContributionAccepted) if one.site == "site-a"}
        assert attempts == {2}, "a new membership begins from a base that was loaded anew"
        delivered = {one.site: one.delivered for one in field.events(SiteDrained)}
        assert delivered["site-a"] is False
        assert delivered["site-b"] or overlap, "what it trained meanwhile may be lost"
        rounds = field.events(RoundCompleted)
        assert [one.round for one in rounds] == list(range(len(rounds)))
        assert rounds[0].at < NOON + 30 * MINUTE
        assert torch.isfinite(field.coordinator.store.load(field.coordinator.state.round)).all()
        field.check_replicas()

    play(story, Field(tmp_path, policy, LARGE, rule, overlap=overlap))


def test_alone_and_not_a_number_it_begins_afresh(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start(make=field.watched("site-a", Spoiled))
        await field.until(RoundCompleted, 2)
        await field.drain(node)
        assert not field.events(ContributionRefused)
        assert [one.round for one in field.events(RoundStarted)][:2] == [0, 0]
        assert field.counted == (node.steps - 5) * TOKENS

    play(story, Field(tmp_path, BY_STEPS))


class Troubled(Watched):
    """Every third step is a spike, and once memory was refused."""

    def step(self, micro_batch: int) -> StepReport:
        report = super().step(micro_batch)
        if self.progress.steps % 3 == 2:
            self._progress = self._progress.after(StepReport(0, 99.0, Skip.SPIKE, refused=1))
        return report


def test_spikes_and_refused_passes_are_said_with_the_contribution(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start(make=field.watched("site-a", Troubled))
        await field.until(RoundCompleted)
        await field.drain(node)
        first = field.events(ContributionAccepted)[0]
        assert (first.steps, first.spikes, first.refused_passes, first.skipped) == (5, 2, 2, 0)

    play(story, Field(tmp_path, BY_STEPS))


class Broken(ToyEngine):
    """Cannot do what it is named after."""

    def step(self, micro_batch: int) -> StepReport:
        raise MemoryError


class Diverging(ToyEngine):
    def step(self, micro_batch: int) -> StepReport:
        return StepReport(0, nan, Skip.NOT_FINITE)


def no_engine(membership: Membership) -> Engine:
    raise Mistake("there is no *.txt file in the data folder", "Put text to train on there")


@pytest.mark.parametrize(
    ("make", "cause", "code"),
    [
        (lambda membership: Broken(membership.layout.elements, seed=1), "memory", ExitCode.RESOURCE),
        (lambda membership: Diverging(membership.layout.elements, seed=1), "diverges", ExitCode.FAILED),
        (no_engine, "no [*].txt", ExitCode.USAGE),
    ],
    ids=["no memory", "a model that diverges", "no data"],
)
def test_a_trainer_that_cannot_go_on_leaves_and_does_not_say_drained(
    make: Make, cause: str, code: ExitCode, tmp_path: Path
) -> None:
    async def story(field: Field) -> None:
        node = await field.start(make=make)
        await node.ended()
        assert node.stand.mistake is not None
        assert node.stand.mistake.exit_code is code
        with pytest.raises(Mistake, match=cause):
            raise node.stand.mistake
        assert node.stand.stopping.is_set()
        await field.sleep(timedelta(seconds=1))
        # Nobody has to find out by its silence, and the provisioner sees a process that died.
        assert [left.reason for left in field.events(SiteLeft)] == ["drained"]
        assert field.coordinator.state.phase is Phase.DARK
        assert not field.events(SiteDrained)

    play(story, Field(tmp_path))


def test_a_site_that_is_not_of_the_federation_is_a_mistake(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start("site-b")
        await node.ended()
        assert node.stand.mistake is not None
        assert node.stand.mistake.exit_code is ExitCode.SERVER
        assert "site-b" in node.stand.mistake.cause

    class OnlyA(TrainingService):
        def __init__(
            self, coordinator: Coordinator, sites: tuple[str, ...], heartbeat: timedelta, overlap: bool
        ) -> None:
            super().__init__(coordinator, ("site-a",), heartbeat)

    play(story, Field(tmp_path, service=OnlyA))


def test_a_membership_that_never_holds_is_not_asked_for_in_a_hot_loop(tmp_path: Path) -> None:
    class Deaf(TrainingService):
        async def Heartbeat(self, beats: AsyncIterator[pb.Beat], context: Any) -> AsyncIterator[pb.Directive]:  # noqa: N802
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "no heartbeat here")
            yield pb.Directive()

    async def story(field: Field) -> None:
        node = await field.start()
        await field.sleep(10 * MINUTE)
        assert 10 < node.link.calls["Join"] < 130
        assert node.link.calls["Heartbeat"] == node.link.calls["Join"]
        await field.drain(node)
        assert field.events(SiteDrained)[0].delivered

    play(story, Field(tmp_path, service=Deaf))


def test_without_room_for_a_checkpoint_it_trains_on_and_delivers(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start(checkpoint=tmp_path / "no such folder" / "checkpoint")
        await field.sleep(5 * MINUTE)
        await field.drain(node)
        field.check_each_step_counted_once()
        assert field.events(SiteDrained)[0].delivered

    play(story, Field(tmp_path))


# --- what leaves the site ---------------------------------------------------------------------------------------------

DIARY = "Tuesday. Mrs Wren saw the heron again; it stood where the mill race bends & would not be counted. " * 30


def test_no_data_no_file_name_and_no_path_leaves_the_site(tmp_path: Path) -> None:
    settings = '{"width": 16, "layers": 1, "heads": 2, "context": 8, "rotary_pct": 0.5, "learning_rate": 0.003}'
    task = load_task("gpt-neox", settings)
    model = task.model(seed=0)
    layout = layout_of_model(model)
    first = flatten(model.state_dict(), layout)
    data_dir = tmp_path / "sovereign-archive" / "heronry"
    data_dir.mkdir(parents=True)
    (data_dir / "field-notebook.txt").write_text(DIARY)

    async def story(field: Field) -> None:
        node = await field.start(make=lambda membership: TorchEngine(task, membership.layout, data_dir, seed=3))
        await field.until(RoundCompleted, 2)
        await field.drain(node)
        broken = await field.start("site-b", make=no_engine_there)
        await broken.ended()
        await field.sleep(MINUTE)
        sent = [*node.link.sent, *broken.link.sent]
        said = [
            repr((letter.subject, letter.headers)).encode() + letter.body
            for site in SITES
            for letter in field.domains[site].letters(EVENTS_STREAM)
        ]
        assert len(sent) > 20
        # Both learnt what is trained, and one of them trained it.
        assert len(said) == 4
        wire = b"\0".join([*sent, *said])
        assert len(wire) > 2 * layout.nbytes
        for word in (*data_dir.parts[1:], "field-notebook", *tmp_path.parts[1:]):
            assert word.encode() not in wire, word
        text = DIARY.encode()
        for start in range(0, len(text) // 30 + 1):
            assert text[start : start + 8] not in wire

    def no_engine_there(membership: Membership) -> Engine:
        try:
            return TorchEngine(task, membership.layout, data_dir / "nothing", seed=3)
        except ValueError as error:
            raise Mistake(f"cannot train: {error}", "Mend the site's data") from error

    play(story, Field(tmp_path, BY_STEPS, layout, first=first, model=Model("gpt-neox", settings, layout)))


def test_a_site_that_comes_back_goes_on_at_its_cursor(tmp_path: Path) -> None:
    """Its data is its own: the coordinator hears how far it came, and only the site knows in what."""
    settings = '{"width": 16, "layers": 1, "heads": 2, "context": 8, "rotary_pct": 0.5, "learning_rate": 0.003}'
    task = load_task("gpt-neox", settings)
    model = task.model(seed=0)
    layout = layout_of_model(model)
    first = flatten(model.state_dict(), layout)
    (tmp_path / "notes.txt").write_text(DIARY)

    def make(membership: Membership) -> Engine:
        return TorchEngine(task, membership.layout, tmp_path, seed=3)

    async def story(field: Field) -> None:
        node = await field.start(make=make)
        await field.until(RoundCompleted, 2)
        await field.drain(node)
        before = field.events(ContributionAccepted)
        assert [one.cursor for one in before[:2]] == [5 * MICRO_BATCH, 10 * MICRO_BATCH]
        again = await field.start(token=2, make=make)
        await field.until(RoundCompleted, len(before) + 1)
        await field.drain(again)
        after = field.events(ContributionAccepted)[len(before) :]
        drawn = [one.steps * MICRO_BATCH for one in (before[-1], *after)]
        cursors = [one.cursor for one in (before[-1], *after)]
        assert [b - a for a, b in pairwise(cursors)] == drawn[1:], "no sample twice, and none left out"

    play(story, Field(tmp_path, BY_STEPS, layout, first=first, model=Model("gpt-neox", settings, layout)))


# --- a fragment a round -----------------------------------------------------------------------------------------------

AVERAGE = Rule.parse("fp32", "average")


@pytest.mark.parametrize("overlap", [False, True], ids=["waits", "overlaps"])
def test_what_other_fragments_have_learnt_goes_on_from_base_to_base_and_is_told_in_its_turn(
    overlap: bool, tmp_path: Path
) -> None:
    """Alone, by plain averaging: each fragment of the base is the local one as it was told last."""
    told: list[Tensor] = []

    class Telling(Watched):
        def tell(self, part: slice | None = None) -> None:
            told.append(self._local.clone())
            super().tell(part)

    async def story(field: Field) -> None:
        node = await field.start(make=field.watched("site-a", Telling))
        node.link.lag = MINUTE
        await field.until(RoundCompleted, 7)
        assert node.trainer.session.waits is not overlap
        turns, store = field.coordinator.store.fragments, field.coordinator.store
        before, after, part = store.load(6), store.load(7), turns.part(6)
        rest = torch.ones(len(before), dtype=torch.bool)
        rest[part] = False
        assert torch.equal(before[rest], after[rest])
        for number in (4, 5, 6):
            assert torch.allclose(after[turns.part(number)], told[number][turns.part(number)], atol=1e-6)
        # Nothing that was learnt is undone by a base that does not know it yet.
        away = [float((one - node_target(node)).square().mean()) for one in told]
        assert all(later < earlier for earlier, later in pairwise(away))
        await field.drain(node)
        check_the_whole(field)
        field.check_replicas()
        assert field.counted == node.steps * TOKENS or overlap
        assert field.steps * field.step > 0.9 * (field.clock.now() - NOON) or not overlap

    play(story, Field(tmp_path, BY_STEPS, THREE, AVERAGE, overlap=overlap, fragments=3))


def node_target(node: Node) -> Tensor:
    engine = node.trainer._engine
    assert isinstance(engine, ToyEngine)
    return engine._target


@pytest.mark.parametrize("rule", [PLAIN, TOPK, INT4], ids=lambda rule: rule.codec.name)
def test_a_round_moves_as_many_bytes_less_as_there_are_fragments(rule: Rule, tmp_path: Path) -> None:
    layout = Layout((TensorSpec("point", (60 * 4096,)),))

    def moved(count: int) -> tuple[float, float]:
        found: list[RoundCompleted] = []

        async def story(field: Field) -> None:
            nodes = [await field.start(site, checkpoint=None) for site in SITES]
            await field.until(RoundCompleted, 9)
            await field.drain(*nodes)
            field.check_replicas()
            # The first bases are models.
            found.extend(field.events(RoundCompleted)[1:9])

        play(story, Field(tmp_path / str(count), BY_STEPS, layout, rule, fragments=count))
        return sum(one.bytes_up for one in found) / 8, sum(one.bytes_down for one in found) / 8

    (up, down), (up_of_four, down_of_four) = moved(1), moved(4)
    assert 3.5 < up / up_of_four < 4.1
    # What is dense and whole is a model per site, and of a fragment what the other said of it.
    assert 3.2 < down / down_of_four < (8.1 if rule is PLAIN else 4.1)


def test_an_engine_that_cannot_train_on_is_refused_in_one_line(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start("site-a", make=field.watched("site-a", Waits))
        await node.ended()
        mistake = node.stand.mistake
        assert mistake is not None
        assert "cannot synchronise the 3 fragments of a model in turn" in str(mistake)
        assert "WINDFALL_PROCESSES=1" in mistake.cure
        assert {left.reason for left in field.events(SiteLeft)} == {"drained"}

    play(story, Field(tmp_path, BY_STEPS, THREE, TOPK, fragments=3))


def test_a_trainer_that_knows_of_no_fragments_is_not_admitted(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        stub = cast(Any, TrainingStub)(Link(field.server))
        asked = pb.JoinRequest(federation="demo", site="site-a", window_id=str(uuid4()), lease_token=1, protocol=1)
        with pytest.raises(grpc.aio.AioRpcError, match="synchronises 3 fragments in turn, which this trainer cannot"):
            await stub.Join(asked)
        asked.fragments = True
        assert (await stub.Join(asked)).fragments == 3

    play(story, Field(tmp_path, BY_STEPS, THREE, TOPK, fragments=3))


# --- training goes on while it synchronises ---------------------------------------------------------------------------


def share_in_steps(tmp_path: Path, rule: Rule, lag: timedelta, overlap: bool) -> float:
    """Of two sites' time on a slow link, as measured over four hours."""

    async def story(field: Field) -> None:
        nodes = [await field.start(site) for site in SITES]
        for node in nodes:
            node.link.lag = lag
        await field.sleep(timedelta(hours=4))
        shares.append(field.steps * field.step / (2 * timedelta(hours=4)))
        await field.drain(*nodes)
        check_the_whole(field)
        field.check_replicas()
        assert not field.events(ContributionRefused)
        assert field.counted <= field.steps * TOKENS

    shares: list[float] = []
    play(story, Field(tmp_path, BY_STEPS, SMALL, rule, overlap=overlap))
    return shares[0]


@pytest.mark.parametrize("minutes", range(0, 16, 2))
def test_who_drains_gives_what_it_trained_meanwhile_to_the_next_round_or_says_that_it_is_lost(
    minutes: int, tmp_path: Path
) -> None:
    async def story(field: Field) -> None:
        nodes = [await field.start(site) for site in SITES]
        for node in nodes:
            node.link.lag = 1.5 * MINUTE
        await field.until(RoundCompleted, 2)
        await field.sleep(minutes * MINUTE)
        await field.drain(nodes[0])
        counted = sum(one.steps for one in field.events(ContributionAccepted) if one.site == "site-a")
        assert field.events(SiteDrained)[0].delivered == (counted == nodes[0].steps)
        assert counted <= nodes[0].steps
        await field.until(RoundCompleted, len(field.events(RoundCompleted)) + 2)
        check_the_whole(field)
        field.check_replicas()

    play(story, Field(tmp_path, BY_STEPS, SMALL, TOPK, overlap=True))


class Waits(Watched):
    """An engine that cannot train on."""

    tell = None  # type: ignore[assignment]


def test_a_site_whose_engine_cannot_train_on_waits_beside_those_that_can(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        nodes = [await field.start("site-a", make=field.watched("site-a", Waits)), await field.start("site-b")]
        await field.until(RoundCompleted, 4)
        assert [node.trainer.session.overlap for node in nodes] == [False, True]
        await field.drain(*nodes)
        check_the_whole(field)
        field.check_replicas()

    play(story, Field(tmp_path, BY_STEPS, SMALL, TOPK, overlap=True))


def test_alone_it_trains_on_as_well(tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start()
        node.link.lag = 3 * MINUTE
        await field.until(RoundCompleted, 4)
        assert node.steps * field.step > 0.95 * (field.clock.now() - NOON - 3 * MINUTE)
        assert any(b"int8-block" in message for message in node.link.sent)
        await field.drain(node)
        check_the_whole(field)
        field.check_replicas()

    alone = Policy(20 * MINUTE, None, 5 * MINUTE, None, alone=30 * MINUTE, alone_codec="int8-block")
    play(story, Field(tmp_path, alone, SMALL, TOPK, overlap=True))


@pytest.mark.parametrize("rule", [PLAIN, TOPK], ids=lambda rule: rule.codec.name)
def test_a_slow_link_does_not_stop_training_where_synchronising_overlaps_with_it(tmp_path: Path, rule: Rule) -> None:
    waits, trains = (share_in_steps(tmp_path / str(overlap), rule, 3 * MINUTE, overlap) for overlap in (False, True))
    assert waits < 0.5
    assert trains > 0.95
    print(f"{rule.codec.name}: {waits:.3f} of the time in steps, {trains:.3f} with overlap")
