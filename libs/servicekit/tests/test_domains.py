"""Hub and sites with stores of their own: what crosses, what does not, and what a cut does to it.

One body over real servers (a hub, a leaf, and a site that never comes) and over the double that ships.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID, uuid4

import nats
import nats.errors
import pytest

from windfall.contracts.commands import ReleaseNode
from windfall.contracts.envelope import seal
from windfall.contracts.events import RoundStarted, WindowOpened
from windfall.contracts.message import Message
from windfall.contracts.subjects import (
    COMMANDS_STREAM,
    EVENTS_STREAM,
    HUB,
    ORDERS_STREAM,
    Source,
    StreamSpec,
    hub_streams,
    site_streams,
)
from windfall.servicekit.bus import Bus
from windfall.servicekit.errors import Transient
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.natsserver import NatsServer, ServerPlan, free_port, render
from windfall.servicekit.sourcing import silent_domains
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain

SITE = "site-a"
ABSENT = "site-b"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PATIENCE_S = 60
HUB_STREAMS = hub_streams((SITE, ABSENT))
SITE_STREAMS = site_streams(SITE)


class World(Protocol):
    """Two domains and how to hurt them."""

    def bus(self, domain: str, service: str, streams: Sequence[StreamSpec]) -> Bus: ...

    async def ids(self, domain: str, stream: str) -> list[UUID]: ...

    async def kill_hub(self) -> None: ...

    async def start_hub(self) -> None: ...


class InMemory:
    def __init__(self) -> None:
        self.domains = {HUB: MemoryDomain(HUB), SITE: MemoryDomain(SITE)}
        self.domains[HUB].join(self.domains[SITE])

    def bus(self, domain: str, service: str, streams: Sequence[StreamSpec]) -> Bus:
        return MemoryBus(self.domains[domain], service, streams)

    async def ids(self, domain: str, stream: str) -> list[UUID]:
        return [UUID(letter.id) for letter in self.domains[domain].letters(stream)]

    async def kill_hub(self) -> None:
        self.domains[HUB].reachable = False

    async def start_hub(self) -> None:
        self.domains[HUB].reachable = True


class OnServers:
    def __init__(self, folder: Path) -> None:
        leaf = free_port()
        plans = (
            ServerPlan(HUB, free_port(), folder / "hub-store", leaf_port=leaf),
            ServerPlan(SITE, free_port(), folder / "site-store", hub_leaf_port=leaf),
        )
        self.servers = {plan.domain: NatsServer(plan, folder / plan.domain) for plan in plans}

    def bus(self, domain: str, service: str, streams: Sequence[StreamSpec]) -> NatsBus:
        return NatsBus(self.servers[domain].url, service, streams, lambda mistake: None)

    async def ids(self, domain: str, stream: str) -> list[UUID]:
        client = await nats.connect(self.servers[domain].url)
        try:
            jetstream = client.jetstream()
            state = (await jetstream.stream_info(stream)).state
            found = [
                await jetstream.get_msg(stream, sequence)
                for sequence in range(state.first_seq, state.last_seq + 1)
                if state.messages
            ]
            return [UUID((message.headers or {})["Nats-Msg-Id"]) for message in found]
        finally:
            await client.close()

    async def kill_hub(self) -> None:
        await self.servers[HUB].kill()

    async def start_hub(self) -> None:
        await self.servers[HUB].start()

    async def wipe(self, domain: str) -> None:
        server = self.servers[domain]
        await server.kill()
        shutil.rmtree(server.plan.store)
        await server.start()


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[OnServers]:
    world = OnServers(folder)
    async with AsyncExitStack() as stopping:
        for server in world.servers.values():
            stopping.push_async_callback(server.stop)
            await server.start()
        yield world


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[OnServers]:
    async with running(tmp_path) as world:
        yield world


@pytest.fixture(params=["memory", "nats"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    if request.param == "memory":
        yield InMemory()
        return
    async with running(tmp_path) as servers:
        yield servers


@pytest.fixture
async def ending() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


class Ear:
    """Remembers what it heard, and lets a test wait for more."""

    def __init__(self) -> None:
        self.heard: list[Message] = []
        self._more = asyncio.Event()

    async def __call__(self, message: Message) -> None:
        self.heard.append(message)
        self._more.set()

    async def until(self, true: Callable[[list[Message]], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not true(self.heard):
                self._more.clear()
                await self._more.wait()

    async def hears(self, *messages: Message) -> None:
        await self.until(lambda heard: len(heard) >= len(messages))
        assert self.heard == list(messages)


def opened(minute: int, site: str = SITE) -> WindowOpened:
    return WindowOpened(
        id=uuid4(),
        at=NOON + timedelta(minutes=minute),
        site=site,
        window_id=uuid4(),
        intensity_g_per_kwh=20,
        expected_close_at=None,
    )


def round_started() -> RoundStarted:
    return RoundStarted(
        id=uuid4(), at=NOON, federation="story", round=0, base_digest="0" * 64, members=(SITE,), ends_at=None
    )


def release(site: str) -> ReleaseNode:
    return ReleaseNode(id=uuid4(), at=NOON, site=site)


async def say(bus: Bus, *messages: Message) -> None:
    """As an outbox does: what a busy server has not acknowledged is said again, and kept once."""
    for message in messages:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await bus.publish(seal(message, "/windfall/test"))
                    break
                except Transient:
                    await asyncio.sleep(0.05)


class Scene:
    """A coordinator at the hub that hears every site's windows, and a provisioner at the site that takes its orders."""

    def __init__(self, world: World) -> None:
        self.hub = world.bus(HUB, "federation-coordinator", HUB_STREAMS)
        self.site = world.bus(SITE, "provisioner", SITE_STREAMS)
        self.at_hub, self.at_site, self.rounds_at_site = Ear(), Ear(), Ear()
        self.hub.hears(WindowOpened, "*", self.at_hub)
        self.site.hears(ReleaseNode, SITE, self.at_site)
        self.site.hears(RoundStarted, "*", self.rounds_at_site)

    async def rise(self, ending: AsyncExitStack) -> None:
        for bus in (self.site, self.hub):
            ending.push_async_callback(bus.stop)
            await bus.start()


async def test_facts_go_up_and_orders_go_down_once(world: World, ending: AsyncExitStack) -> None:
    scene = Scene(world)
    await scene.rise(ending)
    facts = [opened(minute) for minute in range(5)]
    await say(scene.site, *facts)
    await scene.at_hub.hears(*facts)
    orders = [release(SITE), release(ABSENT), release(SITE)]
    of_the_hub = round_started()
    await say(scene.hub, of_the_hub, *orders)
    await scene.at_site.hears(orders[0], orders[2])
    # One more of each: had anything of the above crossed that should not, it would have come before.
    last_fact, last_order = opened(6), release(SITE)
    await say(scene.site, last_fact)
    await say(scene.hub, last_order)
    await scene.at_hub.hears(*facts, last_fact)
    await scene.at_site.hears(orders[0], orders[2], last_order)
    told = [fact.id for fact in (*facts, last_fact)]
    assert await world.ids(SITE, EVENTS_STREAM) == told
    assert sorted(await world.ids(HUB, EVENTS_STREAM)) == sorted([*told, of_the_hub.id])
    assert await world.ids(HUB, ORDERS_STREAM) == [order.id for order in (*orders, last_order)]
    assert scene.rounds_at_site.heard == []


async def test_a_site_goes_on_without_its_hub_and_reconciles(world: World, ending: AsyncExitStack) -> None:
    scene = Scene(world)
    await scene.rise(ending)
    facts = [opened(minute) for minute in range(3)]
    await say(scene.site, *facts)
    await scene.at_hub.hears(*facts)
    await world.kill_hub()
    alone = [opened(10 + minute) for minute in range(5)]
    # Each is acknowledged by the site's own store, or this would not return.
    await say(scene.site, *alone)
    assert await world.ids(SITE, EVENTS_STREAM) == [fact.id for fact in (*facts, *alone)]
    await world.start_hub()
    again = [opened(20 + minute) for minute in range(2)]
    await say(scene.site, *again)
    everything = [*facts, *alone, *again]
    await scene.at_hub.until(lambda heard: bool(heard) and heard[-1] == again[-1])
    # The bus may repeat the delivery whose acknowledgement the crash took; the store may not, and order holds.
    assert list(dict.fromkeys(scene.at_hub.heard)) == everything
    assert await world.ids(HUB, EVENTS_STREAM) == [fact.id for fact in everything]
    order = release(SITE)
    await eventually(lambda: _ready(scene.hub))
    await say(scene.hub, order)
    await scene.at_site.hears(order)


async def test_orders_are_taken_from_the_queue(servers: OnServers, ending: AsyncExitStack) -> None:
    scene = Scene(servers)
    await scene.rise(ending)
    orders = [release(SITE) for _ in range(3)]
    await say(scene.hub, *orders)
    await scene.at_site.hears(*orders)
    await eventually(lambda: _is_empty(servers, SITE, COMMANDS_STREAM))


async def test_a_site_that_comes_late_is_heard(tmp_path: Path, ending: AsyncExitStack) -> None:
    world = OnServers(tmp_path)
    for server in world.servers.values():
        ending.push_async_callback(server.stop)
    hub = world.bus(HUB, "federation-coordinator", HUB_STREAMS)
    ear = Ear()
    hub.hears(WindowOpened, "*", ear)
    await world.servers[HUB].start()
    ending.push_async_callback(hub.stop)
    await hub.start()
    await world.servers[SITE].start()
    site = world.bus(SITE, "energy-watcher", SITE_STREAMS)
    ending.push_async_callback(site.stop)
    await site.start()
    fact = opened(0)
    await say(site, fact)
    await ear.hears(fact)


@pytest.mark.slow
async def test_a_site_that_lost_its_store_is_heard_again(servers: OnServers, ending: AsyncExitStack) -> None:
    scene = Scene(servers)
    await scene.rise(ending)
    before = [opened(minute) for minute in range(8)]
    await say(scene.site, *before)
    await scene.at_hub.hears(*before)
    await servers.wipe(SITE)
    # The site's journal still has some of it and says it again; then life goes on, with fewer messages than there were.
    await eventually(lambda: _is_empty(servers, SITE, EVENTS_STREAM))
    after = [opened(20), opened(21)]
    await say(scene.site, *before[-2:], *after)
    await scene.at_hub.until(lambda heard: bool(heard) and heard[-1] == after[-1])
    assert list(dict.fromkeys(scene.at_hub.heard)) == [*before, *after]
    assert await servers.ids(HUB, EVENTS_STREAM) == [fact.id for fact in (*before, *after)]


@pytest.mark.slow
async def test_a_hub_that_lost_its_store_takes_everything_from_its_sites(
    servers: OnServers, ending: AsyncExitStack
) -> None:
    scene = Scene(servers)
    await scene.rise(ending)
    facts = [opened(minute) for minute in range(5)]
    await say(scene.site, *facts)
    await scene.at_hub.hears(*facts)
    await servers.wipe(HUB)
    last = opened(10)
    await say(scene.site, last)
    await scene.at_hub.until(lambda heard: bool(heard) and heard[-1] == last)
    assert list(dict.fromkeys(scene.at_hub.heard)) == [*facts, last]
    assert await servers.ids(HUB, EVENTS_STREAM) == [fact.id for fact in (*facts, last)]
    order = release(SITE)
    await say(scene.hub, order)
    await scene.at_site.until(lambda heard: order in heard)


async def eventually(true: Callable[[], Awaitable[bool]]) -> None:
    """For what only a server can tell: asked often, given up late."""
    async with asyncio.timeout(PATIENCE_S):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def _ready(bus: Bus) -> bool:
    return bus.ready


async def _is_empty(servers: OnServers, domain: str, stream: str) -> bool:
    try:
        return not await servers.ids(domain, stream)
    except nats.errors.Error:
        return False


async def test_a_cut_link_is_healed_in_order() -> None:
    world = InMemory()
    async with AsyncExitStack() as ending:
        scene = Scene(world)
        await scene.rise(ending)
        first = opened(0)
        await say(scene.site, first)
        await scene.at_hub.hears(first)
        world.domains[HUB].cut(SITE)
        alone = [opened(minute) for minute in range(1, 4)]
        order = release(SITE)
        await say(scene.site, *alone)
        await say(scene.hub, order)
        # As long as anything that flows would take.
        await asyncio.sleep(0.05)
        assert scene.at_hub.heard == [first]
        assert scene.at_site.heard == []
        world.domains[SITE].heal(HUB)
        await scene.at_hub.hears(first, *alone)
        await scene.at_site.hears(order)
        assert await world.ids(HUB, EVENTS_STREAM) == [fact.id for fact in (first, *alone)]


async def test_a_domain_may_be_joined_after_its_streams_were_declared() -> None:
    hub, site = MemoryDomain(HUB), MemoryDomain(SITE)
    hub.declare(HUB_STREAMS)
    site.declare(SITE_STREAMS)
    fact = seal(opened(0), "/windfall/test")
    site.store(fact)
    hub.join(site)
    await asyncio.sleep(0.05)
    assert hub.letters(EVENTS_STREAM) == [fact]


async def test_a_memory_hub_that_lost_its_store_takes_everything_from_its_sites() -> None:
    world = InMemory()
    async with AsyncExitStack() as ending:
        scene = Scene(world)
        await scene.rise(ending)
        facts = [opened(minute) for minute in range(3)]
        await say(scene.site, *facts)
        await scene.at_hub.hears(*facts)
        world.domains[HUB].wipe()
        await scene.at_hub.hears(*facts, *facts)
        assert await world.ids(HUB, EVENTS_STREAM) == [fact.id for fact in facts]


def described(*sources: tuple[str, int]) -> dict[str, Any]:
    return {"sources": [{"name": "EVENTS", "external": {"api": f"$JS.{d}.API"}, "active": a} for d, a in sources]}


SECOND_NS = 1_000_000_000
SOURCED = StreamSpec(
    "EVENTS",
    ("a.>",),
    HUB_STREAMS[0].retention,
    1,
    timedelta(1),
    discard_new=False,
    sources=(Source("EVENTS", "a", "from.a"), Source("EVENTS", "b", "from.b")),
)


@pytest.mark.parametrize(
    ("info", "silent"),
    [
        (described(("a", 10), ("b", SECOND_NS)), []),
        (described(("b", 10), ("a", SECOND_NS)), []),
        (described(("a", 10), ("b", 4 * SECOND_NS)), ["b"]),
        (described(("a", -1), ("b", 10)), ["a"]),
        (described(("b", 10)), ["a"]),
        ({}, ["a", "b"]),
        ({"sources": None}, ["a", "b"]),
    ],
    ids=["both-heard", "in-any-order", "silent", "never-heard", "taken-out", "bare", "null"],
)
def test_silence(info: dict[str, Any], silent: list[str]) -> None:
    assert silent_domains(SOURCED, info) == silent


def test_a_leaf_denies_our_subjects_and_acknowledgements_both_ways(tmp_path: Path) -> None:
    text = render(ServerPlan(SITE, 1, tmp_path, hub_leaf_port=2))
    assert 'deny_imports: ["windfall.>", "$JS.ACK.>", "$SYS.>",' in text
    assert 'deny_exports: ["windfall.>", "$JS.ACK.>"]' in text
    assert "sync_interval: always" in text
