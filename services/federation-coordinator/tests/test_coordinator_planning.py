"""The plan in the live fleet, on virtual time, with a real journal, real model files and the bus in memory."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import pytest
import torch

from windfall.contracts.commands import FollowPlan, StopFederation
from windfall.contracts.envelope import seal, unseal
from windfall.contracts.events import FederationFinished, PlanMade, SignalForecast, SignalStale
from windfall.contracts.message import Message, derived_id
from windfall.contracts.subjects import EVENTS_STREAM, HUB, ORDERS_STREAM, hub_streams
from windfall.contracts.v1 import training_pb2 as pb
from windfall.energy.fleet import Told
from windfall.energy.goal import Goal
from windfall.energy.heed import heed
from windfall.federation_coordinator.app import Coordinator, Model
from windfall.federation_coordinator.federation import Federation, Phase, Policy
from windfall.federation_coordinator.planning import Planning
from windfall.federation_coordinator.settings import CoordinatorSettings
from windfall.federation_coordinator.store import ModelStore
from windfall.lowcomm.layout import Layout, TensorSpec
from windfall.lowcomm.rule import Rule
from windfall.servicekit.clock import LoopClock
from windfall.servicekit.errors import Mistake
from windfall.servicekit.journal import Journal
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.service import Stand
from windfall.servicekit.settings import load
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain
from windfall.servicekit.testing.virtual import run_virtual

T = TypeVar("T")
M = TypeVar("M", bound=Message)

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
SITES = ("site-a", "site-b")
LAYOUT = Layout((TensorSpec("embed", (4, 4)),))
RULE = Rule.parse("fp32", "average")
ROUNDS = Policy(HOUR, None, MINUTE, None)
EVERY = 15 * MINUTE
GOAL = Goal(
    "demo",
    "carbon",
    work_tokens=400,
    deadline=NOON + 8 * HOUR,
    tokens_per_hour=100.0,
    told={site: Told(start_up_s=0.0) for site in SITES},
)


async def in_place(work: Callable[..., T], /, *arguments: object) -> T:
    """Blocking work takes a moment of virtual time."""
    await asyncio.sleep(0.1)
    return work(*arguments)


async def whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


@dataclass
class Hub:
    """A coordinator that plans, and can fall and rise again."""

    folder: Path
    goal: Goal = GOAL
    domain: MemoryDomain = field(default_factory=lambda: MemoryDomain(HUB))

    @asynccontextmanager
    async def standing(self) -> AsyncIterator["Hub"]:
        journal = Journal(self.folder / "journal.sqlite", "/test")
        bus = MemoryBus(self.domain, "federation-coordinator", hub_streams(SITES))
        self.clock = LoopClock(NOON)
        stand = Stand("federation-coordinator", "demo", self.clock, journal, bus, Outbox(journal, bus))
        store = ModelStore(self.folder / "models", LAYOUT, RULE)
        journaled = journal.load("federation", Federation)
        digest = journaled.base_digest if journaled else store.initialise(torch.zeros(LAYOUT.elements))
        planning = Planning(stand, self.goal, SITES, EVERY, in_place)
        model = Model("toy", "{}", LAYOUT)
        self.coordinator = Coordinator(
            stand, "demo", model, ROUNDS, store, digest, timedelta(days=9), in_place, planning=planning
        )
        self.coordinator.attend()
        await stand.rise()
        try:
            yield self
        finally:
            self.coordinator.rest()
            await stand.lie_down()
            assert stand.mistake is None

    def tell(self, *messages: Message) -> None:
        for message in messages:
            self.domain.store(seal(message, "/test"))

    async def until(self, hours: float) -> None:
        await self.clock.sleep_until(NOON + hours * HOUR)

    def heard(self, kind: type[M]) -> list[M]:
        letters = self.domain.letters(EVENTS_STREAM) + self.domain.letters(ORDERS_STREAM)
        return [message for letter in letters if isinstance(message := unseal(letter), kind)]

    def orders(self, site: str) -> list[FollowPlan]:
        return [order for order in self.heard(FollowPlan) if order.site == site]

    async def trains(self, site: str, hours: float, tokens: int) -> None:
        """Join, and after so long bring so much."""
        attempt = self.coordinator.join(site, UUID(int=1), 1)
        await self.clock.sleep(hours * HOUR)
        await self.brings(site, attempt, tokens)

    async def brings(self, site: str, attempt: int, tokens: int) -> None:
        state = self.coordinator.state
        # Nobody says what was said before.
        gradient = torch.full((LAYOUT.elements,), 1.0 + state.round + sorted(state.members).index(site) / 8)
        start = RULE.codec.init(LAYOUT.elements)
        data = RULE.encode(start, gradient, LAYOUT.split, base=state.round, tokens=tokens, steps=1)[1]
        manifest = pb.Manifest(
            key=pb.ContributionKey(federation="demo", site=site, round=state.round, attempt=attempt),
            lease_token=1,
            base_digest=state.base_digest,
            codec=RULE.codec.name,
            tokens=tokens,
            steps=1,
            loss=2.5,
            total_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            tensors=[pb.Tensor(name=spec.name, shape=spec.shape, dtype="float32") for spec in LAYOUT.tensors],
        )
        await self.coordinator.receive(manifest, whole(data))


def forecast(site: str, values: Sequence[float], hours: float = 0.0) -> SignalForecast:
    return SignalForecast(
        id=derived_id(f"{hours}/{values}", SignalForecast.topic, site),
        at=NOON + hours * HOUR,
        site=site,
        kind="marginal",
        issued_at=NOON + hours * HOUR,
        step_s=3600.0,
        values=tuple(values),
    )


CLEAN_FIRST = forecast("site-a", [20.0] * 3 + [400.0] * 9)
CLEAN_LATER = forecast("site-b", [500.0] * 5 + [30.0] * 3 + [500.0] * 4)


def shown(order: FollowPlan) -> list[str]:
    return [f"{span.start:%H:%M}-{span.end:%H:%M}" for span in order.spans]


def hub_day(folder: Path, day: Callable[[Hub], Coroutine[Any, Any, None]], goal: Goal = GOAL) -> Hub:
    async def lived() -> Hub:
        async with Hub(folder, goal).standing() as hub:
            await day(hub)
        return hub

    return run_virtual(lived())


def test_forecasts_become_a_plan_and_orders_that_are_renewed(tmp_path: Path) -> None:
    async def day(hub: Hub) -> None:
        hub.tell(CLEAN_FIRST, CLEAN_LATER)
        await hub.until(0.1)
        (made,) = hub.heard(PlanMade)
        assert (made.objective, made.deadline, made.remaining_site_hours) == ("carbon", GOAL.deadline, 4.0)
        # Soon after the forecasts, and once for both.
        assert NOON < made.at <= NOON + 2 * MINUTE
        (first,), (second,) = hub.orders("site-a"), hub.orders("site-b")
        assert (shown(first), shown(second)) == (["12:01-15:00"], ["18:00-20:00"])
        assert first.valid_until == made.at + 2 * EVERY
        assert second.because == "off until 18:00 UTC: other hours or sites suffice"
        await hub.until(1.0)
        assert [plan.at - made.at for plan in hub.heard(PlanMade)] == [n * EVERY for n in range(4)]
        assert len(hub.orders("site-b")) == 4

    hub_day(tmp_path, day)


def test_a_forecast_that_says_something_else_is_planned_for_at_once(tmp_path: Path) -> None:
    async def day(hub: Hub) -> None:
        hub.tell(CLEAN_FIRST, CLEAN_LATER)
        await hub.until(0.1)
        hub.tell(forecast("site-a", [21.0] * 3 + [400.0] * 9, hours=0.1))
        await hub.until(0.15)
        assert len(hub.heard(PlanMade)) == 1
        hub.tell(forecast("site-b", [5.0] * 12, hours=0.15))
        await hub.until(0.2)
        assert len(hub.heard(PlanMade)) == 2
        assert shown(hub.orders("site-b")[-1]) == ["15:00-20:00"]

    hub_day(tmp_path, day)


def test_a_site_that_falls_silent_gets_no_more_orders(tmp_path: Path) -> None:
    async def day(hub: Hub) -> None:
        hub.tell(CLEAN_FIRST, CLEAN_LATER)
        await hub.until(0.1)
        stale = derived_id("stale", SignalStale.topic, "site-b")
        hub.tell(SignalStale(id=stale, at=NOON + HOUR / 10, site="site-b", last_point_time=NOON, limit_s=900.0))
        await hub.until(2.0)
        assert len(hub.orders("site-a")) > 5 and len(hub.orders("site-b")) == 1
        assert hub.heard(PlanMade)[-1].because.endswith("site-b is not counted on: its signal is silent")

    hub_day(tmp_path, day)


def test_nothing_is_said_before_anybody_is_known_or_measured(tmp_path: Path) -> None:
    async def day(hub: Hub) -> None:
        await hub.until(1.0)
        hub.tell(CLEAN_FIRST)
        await hub.until(2.0)
        assert not hub.heard(PlanMade) and not hub.heard(FollowPlan)
        await hub.trains("site-a", 0.5, 40)
        await hub.until(2.6)
        (made,) = hub.heard(PlanMade)
        assert made.remaining_site_hours == pytest.approx(360 / 80, rel=1e-3)

    hub_day(tmp_path, day, replace(GOAL, tokens_per_hour=None))


def test_the_work_is_done_in_time_by_sites_that_do_as_they_are_ordered(tmp_path: Path) -> None:
    async def site(hub: Hub, name: str) -> None:
        """Trains 8 tokens in 5 minutes, a little less than is told, whenever it is in a span."""
        attempt = None
        while not hub.heard(FederationFinished):
            orders = hub.orders(name)
            heeded = heed(orders[-1] if orders else None, hub.clock.now())
            runs = heeded is not None and heeded.runs
            if runs and attempt is None:
                attempt = hub.coordinator.join(name, UUID(int=1), 1)
            await hub.clock.sleep(5 * MINUTE)
            if attempt is None or hub.coordinator.state.phase is not Phase.RUNNING:
                continue
            await hub.brings(name, attempt, 8)
            if not runs:
                hub.coordinator.leave(name, attempt)
                attempt = None

    async def day(hub: Hub) -> None:
        hub.tell(CLEAN_FIRST, CLEAN_LATER)
        async with asyncio.TaskGroup() as group:
            for name in SITES:
                group.create_task(site(hub, name))
        (finished,) = hub.heard(FederationFinished)
        assert finished.at <= NOON + 8 * HOUR
        assert 400 <= finished.tokens_total <= 416
        last = hub.heard(PlanMade)[-1]
        assert "everything runs" not in last.because and last.emissions_kg < 0.2

    hub_day(tmp_path, day)


def test_at_its_goal_the_federation_finishes_and_gives_its_sites_back(tmp_path: Path) -> None:
    async def day(hub: Hub) -> None:
        hub.tell(CLEAN_FIRST, CLEAN_LATER)
        await hub.until(0.1)
        await hub.trains("site-a", 0.5, 399)
        await hub.until(1.0)
        assert not hub.heard(FederationFinished)
        await hub.brings("site-a", 1, 1)
        await hub.until(1.1)
        (finished,) = hub.heard(FederationFinished)
        assert finished.tokens_total == 400
        for name in SITES:
            last = hub.orders(name)[-1]
            assert (last.spans, last.valid_until, last.because) == ((), GOAL.deadline, "the work is done")
        said = len(hub.heard(Message))
        await hub.until(5.0)
        assert len(hub.heard(Message)) == said

    hub_day(tmp_path, day)


def test_who_is_told_to_stop_gives_its_sites_back_too(tmp_path: Path) -> None:
    async def day(hub: Hub) -> None:
        hub.tell(CLEAN_FIRST)
        await hub.until(0.1)
        hub.tell(StopFederation(id=UUID(int=3), at=NOON, federation="demo"))
        await hub.until(0.2)
        assert hub.heard(FederationFinished)
        assert hub.orders("site-a")[-1].because == "the federation was stopped"

    hub_day(tmp_path, day)


def test_a_restart_says_nothing_twice_and_forgets_nothing(tmp_path: Path) -> None:
    async def two_lives() -> None:
        async with AsyncExitStack() as life:
            hub = await life.enter_async_context(Hub(tmp_path).standing())
            hub.tell(CLEAN_FIRST, CLEAN_LATER)
            await hub.until(0.1)
            await hub.trains("site-a", 0.25, 50)
            await hub.until(0.4)
            before = hub.heard(Message)
        async with hub.standing():
            await hub.until(0.5)
            assert hub.heard(Message) == before
            await hub.until(0.65)
            made = hub.heard(PlanMade)[-1]
            # Nobody had to tell the forecasts, or the site's speed, again.
            assert made.at - hub.heard(PlanMade)[-2].at == EVERY
            assert made.remaining_site_hours == pytest.approx(350 / 200, rel=1e-3)
            assert set(made.site_hours) == set(SITES)
        ids = [message.id for message in hub.heard(Message)]
        assert len(ids) == len(set(ids))

    run_virtual(two_lives())


def test_a_finished_federation_says_its_last_orders_once(tmp_path: Path) -> None:
    async def two_lives() -> None:
        async with Hub(tmp_path).standing() as hub:
            hub.tell(CLEAN_FIRST)
            await hub.trains("site-a", 0.5, 500)
            await hub.until(0.6)
            said = len(hub.heard(Message))
        async with hub.standing():
            await hub.until(3.0)
            assert len(hub.heard(Message)) == said

    run_virtual(two_lives())


# --- settings ---------------------------------------------------------------------------------------------------------

PLANNED = {
    "WINDFALL_OBJECTIVE": "carbon",
    "WINDFALL_SITES": "site-a,site-b",
    "WINDFALL_WORK_TOKENS": "1000000",
    "WINDFALL_DEADLINE": "2026-01-12T10:30:00+00:00",
}


def told(tmp_path: Path, **changes: str) -> CoordinatorSettings:
    given = {"WINDFALL_STATE_DIR": str(tmp_path), **PLANNED}
    return load(CoordinatorSettings, {**given, **{f"WINDFALL_{name}": value for name, value in changes.items()}})


def test_what_is_told_becomes_a_goal(tmp_path: Path) -> None:
    power = '{"site-a": {"training_kw": 2.0, "idle_kw": 0.4, "start_up_s": 240, "speed": 1.5}}'
    goal = told(tmp_path, SITE_POWER=power).goal
    assert goal is not None
    assert (goal.objective, goal.work_tokens, goal.valid) == ("carbon", 1_000_000, timedelta(minutes=30))
    assert goal.deadline == datetime(2026, 1, 12, 10, 30, tzinfo=UTC)
    assert goal.of("site-a") == Told(training_kw=2.0, idle_kw=0.4, start_up_s=240, speed=1.5)
    assert goal.of("site-b") == Told()
    nothing = load(CoordinatorSettings, {"WINDFALL_STATE_DIR": str(tmp_path)})
    assert nothing.goal is None


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"OBJECTIVE": "fast"}, "WINDFALL_WORK_TOKENS, WINDFALL_DEADLINE without a plan; set WINDFALL_OBJECTIVE"),
        ({"OBJECTIVE": "budget"}, "WINDFALL_OBJECTIVE is budget and needs WINDFALL_BUDGET_KG"),
        ({"DEADLINE": ""}, "WINDFALL_OBJECTIVE is carbon and needs WINDFALL_DEADLINE"),
        ({"DEADLINE": "2026-01-12T10:30"}, "WINDFALL_DEADLINE: input should have timezone info"),
        ({"PLAN_VALID": "PT5M"}, "WINDFALL_PLAN_VALID must be longer than WINDFALL_REPLAN"),
        ({"SITE_POWER": '{"site-z": {}}'}, "WINDFALL_SITE_POWER names site-z, which WINDFALL_SITES does not"),
        ({"SITE_POWER": '{"site-a": {"kw": 2}}'}, r"WINDFALL_SITE_POWER \(site-a.kw\): extra inputs"),
        ({"SITE_POWER": "2 kW"}, "WINDFALL_SITE_POWER: not JSON"),
    ],
)
def test_what_is_told_wrongly_is_one_clear_line(tmp_path: Path, changes: dict[str, str], why: str) -> None:
    with pytest.raises(Mistake, match=why) as mistake:
        told(tmp_path, **changes)
    assert "\n" not in str(mistake.value)
