"""One site's provisioner on virtual time: the bus, the clock and the nodes are doubles, the journal is a real file."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from windfall.contracts.commands import AcquireNode, CordonSite, ReleaseNode, UncordonSite
from windfall.contracts.envelope import seal, unseal
from windfall.contracts.events import (
    NodeFailed,
    NodeReady,
    NodeReleased,
    SiteDrained,
    WindowClosed,
    WindowExpected,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import Message, derived_id
from windfall.contracts.subjects import EVENTS_STREAM, site_streams
from windfall.provisioner.app import Provisioner, attend
from windfall.provisioner.backend import Outage
from windfall.provisioner.holdings import Lease, LeaseState, Node
from windfall.provisioner.memory import KILLED, Life, MemoryBackend
from windfall.provisioner.settings import ProvisionerSettings
from windfall.servicekit.clock import LoopClock
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.journal import Journal
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.service import Stand
from windfall.servicekit.telemetry import outgoing_trace, span
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain
from windfall.servicekit.testing.virtual import run_virtual

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
CLOCK = LoopClock(MIDNIGHT)
GRACE = timedelta(minutes=10)
FIRST, SECOND = UUID(int=1), UUID(int=2)
OURS = (NodeReady, NodeFailed, NodeReleased)


class Site:
    """A site's bus and nodes, which outlive its provisioner."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.settings = ProvisionerSettings.model_validate({"site": "site-a", "state_dir": folder, **settings})
        self.domain = MemoryDomain("site-a")
        self.domain.declare(site_streams("site-a"))
        self.backend = MemoryBackend(self.live)
        self.lives: list[Life] = []
        self.manner = "polite"
        self.stand: Stand

    async def live(self, life: Life) -> int:
        """A node that takes half a minute to come up and a minute to drain."""
        self.lives.append(life)
        manner = self.manner
        if manner == "broken":
            return 7
        if manner != "mute":
            await CLOCK.sleep(timedelta(seconds=30))
            life.ready.set()
        await life.drain.wait()
        await CLOCK.sleep(timedelta(days=1) if manner == "stubborn" else timedelta(minutes=1))
        return 0

    @asynccontextmanager
    async def provisioner(self) -> AsyncIterator[Provisioner]:
        """One life of the provisioner; it ends as a graceful stop does."""
        journal = Journal(self.settings.state_dir / "provisioner.sqlite", "/windfall/provisioner/site-a")
        bus = MemoryBus(self.domain, "provisioner", site_streams("site-a"))
        self.stand = Stand("provisioner", "site-a", CLOCK, journal, bus, Outbox(journal, bus))
        async with AsyncExitStack() as ending:
            ending.push_async_callback(self.stand.lie_down)
            provisioner = await ending.enter_async_context(attend(self.settings, self.stand, self.backend, {"A": "1"}))
            await self.stand.rise()
            yield provisioner

    def say(self, message: Message) -> None:
        self.domain.store(seal(message, "/test", outgoing_trace()))

    def opens(self, window: UUID = FIRST) -> None:
        at = CLOCK.now()
        self.say(
            WindowOpened(
                id=derived_id(window, "opened", "site-a"),
                at=at,
                site="site-a",
                window_id=window,
                intensity_g_per_kwh=20,
                expected_close_at=None,
            )
        )

    def expects(self, window: UUID, in_minutes: float) -> None:
        at = CLOCK.now()
        self.say(
            WindowExpected(
                id=derived_id(window, "expected", "site-a"),
                at=at,
                site="site-a",
                window_id=window,
                opens_at=at + timedelta(minutes=in_minutes),
                expected_close_at=None,
                confidence=0.9,
            )
        )

    def withdraws(self, window: UUID = FIRST) -> None:
        identity = derived_id(window, "withdrawn", "site-a")
        self.say(WindowWithdrawn(id=identity, at=CLOCK.now(), site="site-a", window_id=window))

    def closes(self, window: UUID = FIRST) -> None:
        at = CLOCK.now()
        identity = derived_id(window, "closed", "site-a")
        self.say(WindowClosed(id=identity, at=at, site="site-a", window_id=window, reason="dirty", crossed_at=at))

    def drained(self, token: int, window: UUID = FIRST) -> None:
        self.say(
            SiteDrained(
                id=derived_id(f"{window}/{token}", "drained", "site-a"),
                at=CLOCK.now(),
                site="site-a",
                federation="demo",
                window_id=window,
                lease_token=token,
                delivered=True,
            )
        )

    def said(self) -> list[NodeReady | NodeFailed | NodeReleased]:
        messages = [unseal(letter) for letter in self.domain.letters(EVENTS_STREAM)]
        return [message for message in messages if isinstance(message, OURS)]

    def words(self) -> list[str]:
        words = {NodeReady: "ready", NodeFailed: "failed", NodeReleased: "released"}
        return [
            f"{words[type(event)]}{event.lease_token}"
            + (f":{event.reason}" if isinstance(event, NodeReleased) else "")
            + f"@{(event.at - MIDNIGHT).total_seconds():g}"
            for event in self.said()
        ]

    async def nodes(self) -> tuple[Node, ...]:
        return tuple(await self.backend.adopt())


async def minutes(count: float) -> None:
    await CLOCK.sleep(timedelta(minutes=count))


def told(story: Coroutine[Any, Any, None]) -> None:
    run_virtual(story)


def test_a_window_has_a_node_while_it_is_open(tmp_path: Path) -> None:
    async def story() -> None:
        site = Site(tmp_path)
        async with site.provisioner():
            site.opens()
            await minutes(30)
            assert [node.token for node in await site.nodes()] == [1]
            assert site.lives[0].environment["A"] == "1"
            assert site.lives[0].environment["WINDFALL_LEASE_TOKEN"] == "1"
            site.closes()
            await minutes(30)
            assert not await site.nodes()
            site.opens(SECOND)
            await minutes(1)
            site.drained(1)
            await minutes(30)
            assert [node.token for node in await site.nodes()] == [2]
            site.drained(2, SECOND)
            await minutes(2)
        assert site.words() == [
            "ready1@30",
            "released1:drained@1860",
            "ready2@3630",
            f"released2:drained@{3660 + 1800 + 60}",
        ]

    told(story())


def test_a_node_is_warm_when_its_window_opens(tmp_path: Path) -> None:
    async def story() -> None:
        site = Site(tmp_path)
        async with site.provisioner():
            site.expects(FIRST, in_minutes=5)
            await minutes(1)
            (node,) = await site.nodes()
            await site.backend.kill(node)
            await minutes(1)
            site.opens()
            await minutes(3)
            (node,) = await site.nodes()
            await site.backend.kill(node)
            await minutes(1)
            site.withdraws()
            await minutes(1)
            assert [node.token for node in await site.nodes()] == [1]
            site.closes()
            await minutes(2)
        soon = (MIDNIGHT + timedelta(minutes=5)).isoformat()
        assert [life.environment["WINDFALL_WINDOW_OPENS_AT"] for life in site.lives] == [soon, soon, ""]
        assert site.words() == ["ready1@30", f"released1:drained@{60 * 8}"]

    told(story())


@pytest.mark.parametrize("withdrawn", [True, False], ids=["withdrawn", "the-watcher-died"])
def test_a_window_that_does_not_come_gives_its_node_back(tmp_path: Path, withdrawn: bool) -> None:
    async def story() -> None:
        site = Site(tmp_path, patience="PT15M")
        async with site.provisioner():
            site.expects(FIRST, in_minutes=5)
            await minutes(10)
        async with site.provisioner():
            if withdrawn:
                site.withdraws()
            await minutes(20)
            assert not await site.nodes()
            site.opens()
            await minutes(10)
            assert [node.token for node in await site.nodes()] == ([] if withdrawn else [2])
        gone = 660 if withdrawn else 60 * 21
        late = [] if withdrawn else ["ready2@1830"]
        assert site.words() == ["ready1@30", f"released1:drained@{gone}", *late]
        for node in await site.nodes():
            await site.backend.kill(node)

    told(story())


def test_a_node_that_stays_is_killed_when_the_grace_is_over(tmp_path: Path) -> None:
    async def story() -> None:
        site = Site(tmp_path)
        site.manner = "stubborn"
        async with site.provisioner() as provisioner:
            site.opens()
            await minutes(1)
            site.closes()
            await minutes(30)
            assert not await site.nodes()
            (lease,) = provisioner.holdings.leases
            assert lease.state is LeaseState.RELEASED
        assert site.words() == ["ready1@30", f"released1:grace@{60 + GRACE.total_seconds():g}"]

    told(story())


def test_the_next_provisioner_takes_over(tmp_path: Path) -> None:
    async def story() -> None:
        site = Site(tmp_path)
        async with site.provisioner():
            site.opens()
            await minutes(5)
        site.closes()
        await minutes(5)
        assert len(await site.nodes()) == 1, "nodes outlive a provisioner"
        async with site.provisioner():
            await minutes(5)
            assert not await site.nodes()
        assert len(site.lives) == 1
        assert site.words() == ["ready1@30", "released1:drained@660"]

    told(story())


def test_a_grace_goes_on_across_a_restart(tmp_path: Path) -> None:
    async def story() -> None:
        site = Site(tmp_path)
        site.manner = "stubborn"
        async with site.provisioner():
            site.opens()
            await minutes(1)
            site.closes()
            await minutes(5)
        await minutes(3)
        async with site.provisioner():
            await minutes(10)
        assert site.words() == ["ready1@30", f"released1:grace@{60 + GRACE.total_seconds():g}"]

    told(story())


def test_a_node_that_died_unseen_is_replaced(tmp_path: Path) -> None:
    async def story() -> None:
        site = Site(tmp_path)
        async with site.provisioner():
            site.opens()
            await minutes(5)
        (node,) = await site.nodes()
        await site.backend.kill(node)
        assert await site.backend.wait(node) == KILLED
        async with site.provisioner():
            await minutes(5)
            assert [node.token for node in await site.nodes()] == [1]
        assert len(site.lives) == 2
        assert site.words() == ["ready1@30"]
        await site.backend.kill(node)

    told(story())


def test_a_node_under_no_lease_is_killed(tmp_path: Path) -> None:
    async def story() -> None:
        site = Site(tmp_path / "a")
        async with site.provisioner():
            site.opens()
            await minutes(5)
        stranger = Site(tmp_path / "b")
        stranger.backend = site.backend
        async with stranger.provisioner():
            await minutes(1)
            assert not await site.nodes()
        assert stranger.words() == []

    told(story())


def test_a_node_of_a_younger_journal_is_left_alone(tmp_path: Path) -> None:
    async def story() -> None:
        old, young = Site(tmp_path / "old"), Site(tmp_path / "young")
        young.backend = old.backend
        for site, windows in ((old, (FIRST,)), (young, (FIRST, SECOND))):
            async with site.provisioner():
                for window in windows:
                    site.opens(window)
                    await minutes(1)
                    if window is not SECOND:
                        site.closes(window)
                        await minutes(2)
        async with old.provisioner():
            await minutes(1)
            assert [node.token for node in await young.nodes()] == [2]
        for node in await young.nodes():
            await young.backend.kill(node)

    told(story())


def test_a_node_that_never_comes_up_fails_with_its_reason(tmp_path: Path) -> None:
    async def story() -> None:
        site = Site(tmp_path)
        site.manner = "broken"
        async with site.provisioner():
            site.opens()
            await minutes(5)
        assert len(site.lives) == 3
        (failed,) = site.said()
        assert isinstance(failed, NodeFailed)
        assert failed.reason == "the node died with exit code 7 (attempt 3 of 3)"

    told(story())


def test_a_node_that_is_not_ready_in_time_is_tried_again(tmp_path: Path) -> None:
    async def story() -> None:
        site = Site(tmp_path, ready_timeout="PT1M", attempts=2)
        site.manner = "mute"
        async with site.provisioner():
            site.opens()
            await minutes(5)
            assert not await site.nodes()
        (failed,) = site.said()
        assert isinstance(failed, NodeFailed)
        assert failed.reason == "the node did not become ready in time (attempt 2 of 2)"

    told(story())


def test_an_order_counts_once(tmp_path: Path) -> None:
    async def story() -> None:
        site = Site(tmp_path)
        order = ReleaseNode(id=UUID(int=77), at=MIDNIGHT, site="site-a")
        async with site.provisioner() as provisioner:
            site.say(AcquireNode(id=UUID(int=76), at=CLOCK.now(), site="site-a", window_id=FIRST))
            await minutes(1)
            site.say(order)
            await minutes(2)
            assert not await site.nodes()
            site.opens(SECOND)
            await minutes(1)
            await provisioner.release(order)
            await minutes(2)
            assert [node.token for node in await site.nodes()] == [2], "heard before the second window was there"
        assert site.words() == ["ready1@30", "released1:drained@120", "ready2@210"]

    told(story())


@pytest.mark.parametrize(("manner", "end"), [("polite", "drained@120"), ("stubborn", "grace@660")])
def test_stopping_releases_when_asked_to(tmp_path: Path, manner: str, end: str) -> None:
    async def story() -> None:
        site = Site(tmp_path, on_stop="release")
        site.manner = manner
        async with site.provisioner():
            site.opens()
            await minutes(1)
        assert not await site.nodes()
        assert site.words() == ["ready1@30", f"released1:{end}"]
        async with site.provisioner():
            await minutes(1)
            assert [node.token for node in await site.nodes()] == [2], "its window is still open"
            site.closes()
            await minutes(12)
        assert [word.partition("@")[0].partition(":")[0] for word in site.words()[2:]] == ["ready2", "released2"]

    told(story())


def test_a_mistake_that_ends_the_service_leaves_nothing_running(tmp_path: Path) -> None:
    async def story() -> None:
        site = Site(tmp_path, on_stop="release")
        async with site.provisioner():
            site.opens()
            await minutes(1)
            site.stand.fail(Mistake("the disk is full", "Free space", ExitCode.DISK_FULL))
        assert not await site.nodes()

    told(story())


def test_nothing_starts_once_it_stops(tmp_path: Path) -> None:
    async def story() -> None:
        site = Site(tmp_path)
        async with site.provisioner() as provisioner:
            await provisioner.end()
            with pytest.raises(Transient, match="stopping"):
                provisioner.acquire(FIRST)
        async with site.provisioner():
            site.opens()
            await minutes(1)
        assert site.words() == ["ready1@30"]

    told(story())


def test_one_trace_from_the_window_to_the_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider())

    async def story() -> None:
        site = Site(tmp_path)
        async with site.provisioner():
            with span("energy-watcher", root=True) as watcher:
                site.opens()
            await minutes(5)
        async with site.provisioner():
            site.closes()
            await minutes(5)
        window = f"{watcher.get_span_context().trace_id:032x}"
        assert site.lives[0].environment["TRACEPARENT"].split("-")[1] == window
        ours = [letter for letter in site.domain.letters(EVENTS_STREAM) if ".node." in letter.subject]
        assert [letter.headers["traceparent"].split("-")[1] for letter in ours] == [window, window]

    told(story())


@pytest.mark.parametrize("seed", range(6))
def test_a_day_of_crashes(tmp_path: Path, seed: int) -> None:
    """The provisioner falls again and again, at any moment: every lease still ends once, and no node stays."""

    async def story() -> None:
        chance = random.Random(seed)
        site = Site(tmp_path, attempts=50)
        windows = [UUID(int=number) for number in range(1, 25)]

        async def wind() -> None:
            for window in windows:
                site.manner = chance.choice(["polite", "polite", "stubborn"])
                site.opens(window)
                await minutes(chance.uniform(0, 40))
                site.closes(window)
                await minutes(chance.uniform(0, 20))

        async def chaos() -> None:
            while True:
                async with site.provisioner():
                    await minutes(chance.expovariate(1 / 8))
                    await site.stand.cut()
                await minutes(chance.uniform(0, 2))

        falling = asyncio.create_task(chaos())
        await wind()
        falling.cancel()
        await asyncio.wait([falling])
        async with site.provisioner() as last:
            await minutes(60)
            assert not last.holdings.live
        assert not await site.nodes()
        ends = [event.window_id for event in site.said() if not isinstance(event, NodeReady)]
        assert len(ends) == len(set(ends))
        readies = [event.lease_token for event in site.said() if isinstance(event, NodeReady)]
        assert len(readies) == len(set(readies))
        assert {lease.window_id for lease in last.holdings.leases} == set(ends)
        assert ends

    told(story())


class Ailing(MemoryBackend):
    """Nodes as before, behind a server that is slow, away, or deaf to kills."""

    def __init__(self, site: Site) -> None:
        super().__init__(site.live)
        self.away = False
        self.hangs = False
        self.deaf = False
        self.kills = 0

    async def start(self, lease: Lease, environment: Mapping[str, str]) -> Node:
        if self.away:
            raise Outage("nobody answers")
        if self.hangs:
            await CLOCK.sleep(timedelta(days=1))
        return await super().start(lease, environment)

    async def adopt(self) -> Sequence[Node]:
        if self.away:
            raise Outage("nobody answers", timedelta(seconds=5))
        return await super().adopt()

    async def drain(self, node: Node) -> None:
        if self.hangs:
            await CLOCK.sleep(timedelta(days=1))
        await super().drain(node)

    async def kill(self, node: Node) -> None:
        self.kills += 1
        if not self.deaf:
            await super().kill(node)


def ailing(folder: Path) -> tuple[Site, Ailing]:
    site = Site(folder)
    backend = Ailing(site)
    site.backend = backend
    return site, backend


def test_a_start_that_hangs_is_given_up_and_the_lease_ends(tmp_path: Path) -> None:
    async def story() -> None:
        site, backend = ailing(tmp_path)
        backend.hangs = True
        async with site.provisioner() as provisioner:
            site.opens()
            await minutes(7)
            (failed,) = site.said()
            assert isinstance(failed, NodeFailed)
            assert failed.reason == "no node came to be in time (attempt 3 of 3)"
            assert not provisioner.holdings.live

    told(story())


def test_a_slow_call_for_one_lease_holds_up_no_other(tmp_path: Path) -> None:
    async def story() -> None:
        site, backend = ailing(tmp_path)
        async with site.provisioner():
            site.opens()
            await minutes(1)
            backend.hangs = True
            site.closes()
            await minutes(1)
            backend.hangs = False
            site.opens(SECOND)
            await minutes(1)
            assert site.words() == ["ready1@30", "ready2@150"], "the first one's drain is still on its way"
            await minutes(12)
        assert site.words()[2:] == ["released1:grace@660"]
        for node in await site.nodes():
            await site.backend.kill(node)

    told(story())


def test_an_outage_costs_no_attempts(tmp_path: Path) -> None:
    async def story() -> None:
        site, backend = ailing(tmp_path)
        async with site.provisioner() as provisioner:
            await minutes(1)
            backend.away = True
            site.opens()
            await minutes(59)
            assert provisioner.holdings.leases[0].why == "nobody answers"
            backend.away = False
            await minutes(6)
            assert [node.token for node in await site.nodes()] == [1]
            assert provisioner.holdings.leases[0].attempts == 1
            site.closes()
            await minutes(2)

    told(story())


def test_nobody_can_say_what_runs_and_graces_end_all_the_same(tmp_path: Path) -> None:
    async def story() -> None:
        site, backend = ailing(tmp_path)
        async with site.provisioner():
            site.opens()
            await minutes(1)
        backend.away = True
        async with site.provisioner():
            site.closes()
            await minutes(15)
            assert site.words() == ["ready1@30", "released1:grace@663"]
            backend.away = False
            await minutes(1)
            assert not await site.nodes(), "what no lease holds is ended as soon as it can be"

    told(story())


def test_a_node_that_nobody_can_kill_is_given_back_and_killed_on(tmp_path: Path) -> None:
    async def story() -> None:
        site, backend = ailing(tmp_path)
        site.manner = "stubborn"
        backend.deaf = True
        async with site.provisioner():
            site.opens()
            await minutes(1)
            site.closes()
            await minutes(11)
            assert site.words() == ["ready1@30", f"released1:grace@{60 + GRACE.total_seconds() + 3:g}"]
            assert len(await site.nodes()) == 1
        backend.deaf = False
        async with site.provisioner():
            await minutes(1)
            assert not await site.nodes()

    told(story())


def test_a_cordon_outlives_the_provisioner(tmp_path: Path) -> None:
    async def story() -> None:
        site = Site(tmp_path)
        async with site.provisioner():
            site.say(CordonSite(id=UUID(int=80), at=CLOCK.now(), site="site-a", reason="the cooling is repaired"))
            await minutes(1)
        async with site.provisioner() as provisioner:
            site.opens()
            await minutes(5)
            assert not await site.nodes()
            assert provisioner.holdings.cordon == "the cooling is repaired"
            site.say(UncordonSite(id=UUID(int=81), at=CLOCK.now(), site="site-a"))
            await minutes(1)
            assert [node.token for node in await site.nodes()] == [1]
            site.closes()
            await minutes(2)

    told(story())


class Unanswered(MemoryBackend):
    """The first kill is done, and its answer is lost."""

    def __init__(self, live: Callable[[Life], Awaitable[int]]) -> None:
        super().__init__(live)
        self.kills = 0

    async def kill(self, node: Node) -> None:
        self.kills += 1
        await super().kill(node)
        if self.kills == 1:
            raise Transient("no answer", timedelta(seconds=50))


def test_a_kill_that_is_asked_for_again_does_not_reach_the_next_attempt(tmp_path: Path) -> None:
    async def story() -> None:
        site = Site(tmp_path, ready_timeout="PT1M")
        backend = site.backend = Unanswered(site.live)
        site.manner = "mute"
        async with site.provisioner():
            site.opens()
            await CLOCK.sleep(timedelta(seconds=50))
            # What comes after it is well.
            site.manner = "polite"
            await minutes(5)
            assert backend.kills == 1
            assert len(site.lives) == 2
            assert site.words()[-1].startswith("ready1")

    told(story())
