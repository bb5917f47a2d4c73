"""A trainer against the real coordinator on virtual time: cuts, kills and takeovers, and what its work counts for."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
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
    ContributionAccepted,
    ContributionRefused,
    RoundCompleted,
    RoundStarted,
    SiteDrained,
    SiteJoined,
    SiteLeft,
    TrainingStarted,
    WindowClosed,
    WindowClosing,
)
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, HUB, hub_streams, site_streams
from windfall.contracts.v1 import training_pb2 as pb
from windfall.contracts.v1.training_pb2_grpc import add_TrainingServicer_to_server
from windfall.federation_coordinator.app import Coordinator, Model
from windfall.federation_coordinator.rounds import Federation, Phase, Policy
from windfall.federation_coordinator.store import ModelStore
from windfall.federation_coordinator.training import TrainingService
from windfall.lowcomm.layout import Layout, flatten, layout_of
from windfall.lowcomm.outer import parse_outer
from windfall.servicekit.clock import LoopClock
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.journal import Journal
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.service import Stand
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain
from windfall.servicekit.testing.memory_rpc import MemoryChannel, MemoryServer
from windfall.servicekit.testing.virtual import run_virtual
from windfall.site_trainer.app import Terms, Trainer
from windfall.site_trainer.coordinator import CoordinatorLink, Membership
from windfall.site_trainer.engine import Engine, StepReport
from windfall.site_trainer.torch_engine import TorchEngine
from windfall.site_trainer.toy import ToyEngine, toy_layout
from windfall.tasks.registry import load_task

T = TypeVar("T")

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SITES = ("site-a", "site-b")
BY_TIME = Policy(20 * MINUTE, None, 5 * MINUTE, None)
BY_STEPS = Policy(None, 5, 5 * MINUTE, None)
LONG = Policy(timedelta(hours=10), None, 5 * MINUTE, None)
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
        self.blocked: set[str] = set()
        """Methods that do not get through."""

    def unary_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        return self._watched(method, super().unary_unary(method, self._kept(request_serializer), response_deserializer))

    def unary_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        return self._watched(
            method, super().unary_stream(method, self._kept(request_serializer), response_deserializer)
        )

    def stream_stream(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        call = super().stream_stream(method, self._kept(request_serializer), response_deserializer)
        return self._watched(method, call)

    def stream_unary(self, method: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        call = super().stream_unary(method, self._kept(request_serializer), response_deserializer)
        watched = self._watched(method, call)

        async def lossy(requests: Any, **given: Any) -> Any:
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

    def __post_init__(self) -> None:
        self.clock = LoopClock(NOON)
        self.domains = {name: MemoryDomain(name) for name in (HUB, *SITES)}
        self.journals: dict[str, Journal] = {}
        for site in SITES:
            self.domains[HUB].join(self.domains[site])

    # --- the hub ------------------------------------------------------------------------------------------------------

    async def start_coordinator(self) -> None:
        self.hub, self.hub_bus = self.stand("federation-coordinator", HUB)
        store = ModelStore(self.folder / "models", self.layout, parse_outer("nesterov"), "fp32")
        journaled = self.hub.journal.load("federation", Federation)
        first = torch.zeros(self.layout.elements) if self.first is None else self.first
        digest = journaled.base_digest if journaled else store.initialise(first)
        model = self.model or Model("toy", "{}", self.layout, "fp32")
        self.coordinator = Coordinator(self.hub, "demo", model, self.policy, store, digest, SILENCE, self.disk)
        self.server.down = False
        service = self.service(self.coordinator, SITES, HEARTBEAT)
        add_TrainingServicer_to_server(service, cast(Any, self.server))
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
        self.written += len(cast(bytes, arguments[0])) if name == "write" else 0
        self.on_disk(name)
        return result

    # --- the sites ----------------------------------------------------------------------------------------------------

    async def start(self, site: str = "site-a", token: int = 1, make: Make | None = None, **terms: Any) -> Node:
        stand, bus = self.stand("site-trainer", site)
        link = Link(self.server)
        values: dict[str, Any] = {
            "site": site,
            "federation": "demo",
            "window_id": UUID(int=token),
            "lease_token": token,
            "micro_batch": MICRO_BATCH,
            "drain_time": 2 * MINUTE,
            "checkpoint_every": timedelta(0),
            "checkpoint": self.folder / f"checkpoint-{site}",
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
            make or (lambda membership: ToyEngine(membership.layout.elements, seed=1)),
            in_place,
        )
        node = Node(trainer, stand, bus, link)
        self.nodes.append(node)
        trainer.attend()
        await stand.rise()
        return node

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
                    self.coordinator.beat(site, attempt)
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
    monkeypatch.setattr("windfall.site_trainer.coordinator.CHUNK_BYTES", 64)  # of the toy's 256

    async def story(field: Field) -> None:
        node = await field.start()
        field.cut_once(node, "write")
        await field.until(ContributionAccepted)
        assert field.written == field.layout.nbytes, "what had arrived was not sent again"
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

    class Saving(ToyEngine):
        def save(self, path: Path) -> None:
            saved.append(path.name)
            super().save(path)

    async def story(field: Field) -> None:
        node = await field.start(
            make=lambda membership: Saving(membership.layout.elements, seed=1), checkpoint_every=timedelta(days=1)
        )
        await field.until(RoundCompleted)
        # The next round is open, and nothing is loaded of it yet.
        await field.drain(node)
        assert saved == ["checkpoint-site-a"]

    play(story, Field(tmp_path, BY_STEPS))


# --- everything at once -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [BY_TIME, BY_STEPS], ids=["by time", "by steps"])
@pytest.mark.parametrize("seed", range(4))
def test_whatever_breaks_no_step_counts_twice_and_rounds_go_on(seed: int, policy: Policy, tmp_path: Path) -> None:
    dice = random.Random(seed)
    known: dict[int, frozenset[int]] = {0: frozenset()}
    """The steps behind a sum of tokens: each step has a number of tokens of its own."""

    class Traced(ToyEngine):
        def step(self, micro_batch: int) -> StepReport:
            self._tokens_per_sample = dice.getrandbits(28)
            before = known[self.progress.tokens]
            report = super().step(micro_batch)
            known[self.progress.tokens] = before | {report.tokens}
            return report

    def make(membership: Membership) -> Engine:
        return Traced(membership.layout.elements, seed=1)

    async def story(field: Field) -> None:
        tokens = Counter(SITES)
        alive = {site: await field.start(site, 1, make) for site in SITES}

        async def trouble(site: str) -> None:
            node = alive[site]
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
                    alive[site] = await field.start(site, tokens[site], make)
                case "takeover":
                    tokens[site] += 1
                    alive[site] = await field.start(site, tokens[site], make)
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
        counted = [known[one.tokens] for one in field.events(ContributionAccepted)]
        assert sum(map(len, counted)) == len(frozenset().union(*counted)), "a step counts twice"

    play(story, Field(tmp_path, policy))


def check_the_whole(field: Field) -> None:
    accepted = field.events(ContributionAccepted)
    rounds = field.events(RoundCompleted)
    assert max(Counter((one.site, one.attempt, one.round) for one in accepted).values()) == 1
    assert [one.round for one in rounds] == list(range(len(rounds)))
    in_the_model = [one for one in accepted if one.round < len(rounds)]
    assert rounds[-1].tokens_total == sum(one.tokens for one in in_the_model)
    assert not [one for one in field.events(ContributionRefused) if one.reason not in ("round", "lease", "member")]
    joined = {(one.site, one.attempt) for one in field.events(SiteJoined)}
    assert {(one.site, one.attempt) for one in field.events(SiteLeft)} <= joined


# --- what cannot go on ------------------------------------------------------------------------------------------------


class Spoiled(ToyEngine):
    """Its first pseudo-gradient is not a number."""

    spoiled = False

    def pseudo_gradient(self) -> Tensor:
        gradient = super().pseudo_gradient()
        if not self.spoiled:
            self.spoiled = True
            gradient[3] = nan
        return gradient


@pytest.mark.parametrize("policy", [BY_TIME, BY_STEPS], ids=["by time", "by steps"])
def test_what_is_refused_is_lost_and_the_next_one_counts(policy: Policy, tmp_path: Path) -> None:
    async def story(field: Field) -> None:
        node = await field.start(make=lambda membership: Spoiled(membership.layout.elements, seed=1))
        await field.until(RoundCompleted, 2)
        await field.drain(node)
        (refused,) = field.events(ContributionRefused)
        assert (refused.reason, refused.round) == ("not-finite", 0)
        assert not field.events(SiteDrained)[0].delivered
        assert [one.round for one in field.events(RoundCompleted)][:2] == [0, 1]

    play(story, Field(tmp_path, policy))


class Broken(ToyEngine):
    """Cannot do what it is named after."""

    def step(self, micro_batch: int) -> StepReport:
        raise MemoryError


class Diverging(ToyEngine):
    def step(self, micro_batch: int) -> StepReport:
        return StepReport(0, nan, skipped=True)


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
        def __init__(self, coordinator: Coordinator, sites: tuple[str, ...], heartbeat: timedelta) -> None:
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
    state = task.model(seed=0).state_dict()
    layout = layout_of(state)
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
        assert len(said) == 2
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

    play(story, Field(tmp_path, BY_STEPS, layout, flatten(state, layout), Model("gpt-neox", settings, layout, "fp32")))
