"""What a real NATS server does to us when it dies, forgets, is late or is old."""

import asyncio
import json
import selectors
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import nats
import pytest
from nats.js import JetStreamContext
from pydantic import BaseModel, ConfigDict

from windfall.contracts.commands import ReleaseNode
from windfall.contracts.envelope import seal
from windfall.contracts.events import NodeReady, WindowOpened
from windfall.contracts.message import Message, derived_id
from windfall.contracts.subjects import COMMANDS_STREAM, EVENTS_STREAM, site_streams
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.journal import Journal
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.natsserver import NatsServer, ServerPlan, free_port
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.testing.kube_played.persistence import persist

SITE = "site-a"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PATIENCE_S = 60


class Tally(BaseModel):
    """What a service has acted on, in order: its journaled effect."""

    model_config = ConfigDict(frozen=True)

    ids: tuple[UUID, ...] = ()


class Service:
    """Journal, outbox and bus as a service has them, with handlers that count their effects."""

    def __init__(self, name: str, url: str, folder: Path) -> None:
        self.journal = Journal(folder / f"{name}.sqlite", f"/windfall/{name}/{SITE}")
        self.mistakes: list[Mistake] = []
        self.bus = NatsBus(url, name, site_streams(SITE), self.mistakes.append, self._store_lost)
        self.outbox = Outbox(self.journal, self.bus)
        self.deliveries: list[UUID] = []
        self._moved = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    def acts_on(self, kind: type[Message], answer: Callable[[Any], Message] | None = None) -> None:
        async def act(message: Message) -> None:
            self.deliveries.append(message.id)
            if not self.journal.heard(message.id):
                tally = Tally(ids=(*self.acted, message.id))
                say = () if answer is None else (answer(message),)
                self.journal.commit(state={"tally": tally}, say=say, heard=message.id)
                self.outbox.wake()
            self._moved.set()

        self.bus.hears(kind, SITE, act)

    @property
    def acted(self) -> tuple[UUID, ...]:
        tally = self.journal.load("tally", Tally)
        return tally.ids if tally else ()

    def say(self, *messages: Message) -> None:
        self.journal.commit(say=messages)
        self.outbox.wake()

    async def rise(self) -> None:
        await self.bus.start()
        self._pump = asyncio.create_task(self.outbox.run())

    async def lie_down(self) -> None:
        await self.bus.stop()
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        self.journal.close()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not true():
                self._moved.clear()
                await self._moved.wait()

    def _store_lost(self) -> None:
        self.outbox.recheck()


def opened(minute: int = 0) -> WindowOpened:
    return WindowOpened(
        id=uuid4(),
        at=NOON + timedelta(minutes=minute),
        site=SITE,
        window_id=uuid4(),
        intensity_g_per_kwh=20,
        expected_close_at=None,
    )


def ready(window: WindowOpened) -> NodeReady:
    return NodeReady(
        id=derived_id(window.id, NodeReady.topic, SITE),
        at=window.at,
        site=SITE,
        window_id=window.window_id,
        lease_id=uuid4(),
        lease_token=1,
        node="node-1",
        backend="process",
    )


def ids(messages: list[Any]) -> tuple[UUID, ...]:
    return tuple(message.id for message in messages)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    found = NatsServer(ServerPlan(SITE, free_port(), tmp_path / "store"), tmp_path / "nats")
    await found.start()
    yield found
    await found.stop()


@pytest.fixture
async def ending() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@asynccontextmanager
async def jetstream_of(server: NatsServer) -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(server.url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def say(bus: NatsBus, message: Message) -> None:
    """As an outbox does: until the server has acknowledged it."""
    await persist(lambda: bus.publish(seal(message, "/windfall/test")))


async def wiped(server: NatsServer) -> None:
    await server.kill()
    shutil.rmtree(server.plan.store)
    await server.start()


async def stands(bus: NatsBus) -> None:
    await eventually(lambda: bus.ready)


async def eventually(true: Callable[[], bool]) -> None:
    """For what only the server's socket can tell: looked at often, given up late."""
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def ids_in(server: NatsServer, stream: str) -> list[str]:
    async with jetstream_of(server) as jetstream:
        state = (await jetstream.stream_info(stream)).state
        found = [await jetstream.get_msg(stream, seq) for seq in range(state.first_seq or 1, state.last_seq + 1)]
        return [(message.headers or {})["Nats-Msg-Id"] for message in found]


async def test_a_killed_server_loses_nothing_and_repeats_nothing(
    server: NatsServer, tmp_path: Path, ending: AsyncExitStack
) -> None:
    watcher = Service("energy-watcher", server.url, tmp_path)
    provisioner = Service("provisioner", server.url, tmp_path)
    profiler = Service("profiler", server.url, tmp_path)
    provisioner.acts_on(WindowOpened, ready)
    profiler.acts_on(NodeReady)
    for service in (watcher, provisioner, profiler):
        ending.push_async_callback(service.lie_down)
        await service.rise()
    said: list[WindowOpened] = []

    def speak(count: int) -> None:
        for _ in range(count):
            said.append(opened(len(said)))
            watcher.say(said[-1])

    for fault in range(2):
        speak(10)
        # In the middle of the conversation: some of it is said, some heard, some answered.
        await provisioner.until(lambda fault=fault: len(provisioner.acted) >= 20 * fault + 3)
        await server.kill()
        speak(10)
        await server.start()
    await provisioner.until(lambda: len(provisioner.acted) >= len(said))
    await profiler.until(lambda: len(profiler.acted) >= len(said))
    assert provisioner.acted == ids(said)
    assert profiler.acted == tuple(derived_id(window.id, NodeReady.topic, SITE) for window in said)
    kept = await ids_in(server, EVENTS_STREAM)
    assert sorted(kept) == sorted(str(key) for key in (*provisioner.acted, *profiler.acted))
    assert not (watcher.mistakes or provisioner.mistakes or profiler.mistakes)


async def test_an_acknowledgement_lost_in_a_restart_does_not_hold_up_the_next(
    server: NatsServer, tmp_path: Path, ending: AsyncExitStack
) -> None:
    watcher, provisioner = (
        Service("energy-watcher", server.url, tmp_path),
        NatsBus(server.url, "provisioner", site_streams(SITE), lambda mistake: None, ack_wait=timedelta(hours=1)),
    )
    entered, leave, heard = asyncio.Event(), asyncio.Event(), asyncio.Queue[UUID]()

    async def slow(message: Message) -> None:
        entered.set()
        await leave.wait()
        heard.put_nowait(message.id)

    provisioner.hears(WindowOpened, SITE, slow)
    ending.push_async_callback(watcher.lie_down)
    ending.push_async_callback(provisioner.stop)
    await watcher.rise()
    await provisioner.start()
    first, second = opened(), opened(1)
    watcher.say(first)
    await entered.wait()
    await server.kill()
    leave.set()
    assert await heard.get() == first.id
    watcher.say(second)
    await server.start()
    # Sooner than the server would give up on the first by itself: the acknowledgement was said again.
    async with asyncio.timeout(PATIENCE_S):
        while await heard.get() != second.id:
            pass


@pytest.mark.parametrize("stream", [EVENTS_STREAM, COMMANDS_STREAM])
async def test_a_deleted_consumer_is_declared_again(
    server: NatsServer, tmp_path: Path, ending: AsyncExitStack, stream: str
) -> None:
    service = Service("provisioner", server.url, tmp_path)
    service.acts_on(WindowOpened)
    service.acts_on(ReleaseNode)
    ending.push_async_callback(service.lie_down)
    await service.rise()
    before, window = opened(), opened(1)
    service.say(before)
    await service.until(lambda: service.acted == (before.id,))
    async with jetstream_of(server) as jetstream:
        await jetstream.delete_consumer(stream, "provisioner")
    order = ReleaseNode(id=uuid4(), at=NOON, site=SITE)
    service.say(window, order)
    await service.until(lambda: len(service.acted) == 3)
    assert set(service.acted) == {before.id, window.id, order.id}
    assert not service.mistakes


async def test_a_process_whose_own_consumer_is_deleted_hears_the_newest_again(
    server: NatsServer, ending: AsyncExitStack
) -> None:
    heard: asyncio.Queue[Message] = asyncio.Queue()
    speaker, follower = (
        NatsBus(server.url, name, site_streams(SITE), lambda mistake: None)
        for name in ("energy-watcher", "site-trainer")
    )
    follower.follows(WindowOpened, SITE, heard.put)
    for bus in (speaker, follower):
        await bus.start()
        ending.push_async_callback(bus.stop)
    first, second = opened(), opened(1)
    await say(speaker, first)
    assert await heard.get() == first
    async with jetstream_of(server) as jetstream:
        (own,) = await jetstream.consumers_info(EVENTS_STREAM)
        await jetstream.delete_consumer(EVENTS_STREAM, own.name)
    async with asyncio.timeout(PATIENCE_S):
        assert await heard.get() == first
        await say(speaker, second)
        assert await heard.get() == second


async def deleted(server: NatsServer) -> None:
    async with jetstream_of(server) as jetstream:
        await jetstream.delete_stream(EVENTS_STREAM)


@pytest.mark.parametrize("lose", [deleted, wiped], ids=["stream-deleted", "store-wiped"])
async def test_a_lost_store_is_told_everything_again(
    server: NatsServer, tmp_path: Path, ending: AsyncExitStack, lose: Callable[[NatsServer], Awaitable[None]]
) -> None:
    watcher = Service("energy-watcher", server.url, tmp_path)
    provisioner = Service("provisioner", server.url, tmp_path)
    provisioner.acts_on(WindowOpened, ready)
    for service in (watcher, provisioner):
        ending.push_async_callback(service.lie_down)
        await service.rise()
    said = [opened(minute) for minute in range(5)]
    watcher.say(*said)
    await provisioner.until(lambda: len(provisioner.acted) == 5)
    await lose(server)
    said.append(opened(5))
    watcher.say(said[-1])
    # The new store gives them all again, and the inbox lets only the new one through.
    await provisioner.until(lambda: len(provisioner.deliveries) >= 11 and len(provisioner.acted) >= 6)
    assert provisioner.acted == ids(said)
    await asyncio.wait_for(provisioner.outbox.emptied(), PATIENCE_S)
    answers = [str(derived_id(window.id, NodeReady.topic, SITE)) for window in said]
    assert sorted(await ids_in(server, EVENTS_STREAM)) == sorted([*(str(window.id) for window in said), *answers])


async def test_orders_lost_with_their_stream_alone_are_said_again(
    server: NatsServer, tmp_path: Path, ending: AsyncExitStack
) -> None:
    speaker = Service("energy-watcher", server.url, tmp_path)
    ending.push_async_callback(speaker.lie_down)
    await speaker.rise()
    order = ReleaseNode(id=uuid4(), at=NOON, site=SITE)
    speaker.say(order)
    await asyncio.wait_for(speaker.outbox.emptied(), PATIENCE_S)
    async with jetstream_of(server) as jetstream:
        await jetstream.delete_stream(COMMANDS_STREAM)
    provisioner = Service("provisioner", server.url, tmp_path)
    provisioner.acts_on(ReleaseNode)
    ending.push_async_callback(provisioner.lie_down)
    await provisioner.rise()
    await provisioner.until(lambda: provisioner.acted == (order.id,))


async def test_a_service_that_was_down_while_the_store_was_lost_says_everything_again(
    server: NatsServer, tmp_path: Path, ending: AsyncExitStack
) -> None:
    before = Service("energy-watcher", server.url, tmp_path)
    await before.rise()
    said = [opened(minute) for minute in range(3)]
    before.say(*said)
    await asyncio.wait_for(before.outbox.emptied(), PATIENCE_S)
    await before.lie_down()
    await wiped(server)
    after = Service("energy-watcher", server.url, tmp_path)
    ending.push_async_callback(after.lie_down)
    await after.rise()
    await asyncio.wait_for(after.outbox.emptied(), PATIENCE_S)
    assert await ids_in(server, EVENTS_STREAM) == [str(window.id) for window in said]


async def test_a_server_that_comes_late_is_waited_for(tmp_path: Path, ending: AsyncExitStack) -> None:
    server = NatsServer(ServerPlan(SITE, free_port(), tmp_path / "store"), tmp_path / "nats")
    service = Service("provisioner", server.url, tmp_path)
    service.acts_on(WindowOpened)
    window = opened()
    service.say(window)
    ending.push_async_callback(server.stop)
    ending.push_async_callback(service.lie_down)
    rising = asyncio.create_task(service.rise())
    await asyncio.wait([rising], timeout=0.2)
    assert not rising.done()
    assert not service.bus.ready
    await server.start()
    await asyncio.wait_for(rising, PATIENCE_S)
    await service.until(lambda: service.acted == (window.id,))
    assert service.bus.ready


async def test_a_service_may_be_stopped_while_it_waits_for_its_first_server(tmp_path: Path) -> None:
    bus = NatsBus(f"nats://127.0.0.1:{free_port()}", "provisioner", site_streams(SITE), lambda mistake: None)
    rising = asyncio.create_task(bus.start())
    await asyncio.wait([rising], timeout=0.1)
    rising.cancel()
    await asyncio.wait([rising])
    await asyncio.wait_for(bus.stop(), PATIENCE_S)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_service_may_be_stopped_while_its_server_is_away(server: NatsServer) -> None:
    bus = NatsBus(server.url, "provisioner", site_streams(SITE), lambda mistake: None)
    bus.hears(WindowOpened, SITE, lambda message: asyncio.sleep(0))
    await bus.start()
    assert bus.ready
    await server.kill()
    await eventually(lambda: not bus.ready)
    await asyncio.wait_for(bus.stop(), PATIENCE_S)
    await eventually(lambda: asyncio.all_tasks() == {asyncio.current_task()})


async def test_what_cannot_be_said_now_is_not_kept_by_the_client(server: NatsServer, ending: AsyncExitStack) -> None:
    bus = NatsBus(server.url, "provisioner", site_streams(SITE), lambda mistake: None)
    ending.push_async_callback(bus.stop)
    await bus.start()
    await server.kill()
    await eventually(lambda: not bus.ready)
    with pytest.raises(Transient, match="away"):
        await bus.publish(seal(opened(), "/windfall/test"))
    with pytest.raises(Transient):
        await bus.store_identity()
    await server.start()
    await stands(bus)
    kept = opened(1)
    await say(bus, kept)
    assert await ids_in(server, EVENTS_STREAM) == [str(kept.id)]


async def test_a_flood_of_orders_is_pushed_back_and_holds_up_no_fact(
    server: NatsServer, ending: AsyncExitStack
) -> None:
    room = 32 * 1024
    bus = NatsBus(
        server.url,
        "provisioner",
        tuple(replace(spec, max_bytes=room) for spec in site_streams(SITE)),
        lambda mistake: None,
    )
    ending.push_async_callback(bus.stop)
    await bus.start()

    def order() -> Message:
        return ReleaseNode(id=uuid4(), at=NOON, site=SITE, reason="x" * 400)

    # Nobody takes them: whoever says more is told so, and what was taken before stays.
    with pytest.raises(Transient, match="maximum bytes exceeded"):
        for _ in range(room // 400):
            await bus.publish(seal(order(), "/windfall/test"))
    first, *_ = await ids_in(server, COMMANDS_STREAM)
    with pytest.raises(Transient, match="maximum bytes exceeded"):
        await bus.publish(seal(order(), "/windfall/test"))
    assert (await ids_in(server, COMMANDS_STREAM))[0] == first
    # Facts have room of their own, in which the newest count.
    said = [opened(minute) for minute in range(room // 400)]
    for message in said:
        await say(bus, message)
    kept = await ids_in(server, EVENTS_STREAM)
    assert 0 < len(kept) < len(said)
    assert kept == [str(message.id) for message in said[-len(kept) :]]


class CountingSelector(selectors.DefaultSelector):
    """Counts the turns of an event loop."""

    turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        return super().select(timeout)


def test_a_loop_does_not_spin_while_its_server_is_away(tmp_path: Path) -> None:
    selector = CountingSelector()

    async def scene() -> int:
        server = NatsServer(ServerPlan(SITE, free_port(), tmp_path / "store"), tmp_path / "nats")
        await server.start()
        service = Service("provisioner", server.url, tmp_path)
        service.acts_on(WindowOpened)
        service.acts_on(ReleaseNode)
        await service.rise()
        await server.kill()
        await eventually(lambda: not service.bus.ready)
        service.say(opened())
        before = selector.turns
        # Long enough for two attempts to reconnect and two of the outbox: a spinning loop makes ten thousand turns.
        await asyncio.sleep(1.2)
        turns = selector.turns - before
        await service.lie_down()
        return turns

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        assert 0 < runner.run(scene()) < 300


async def test_long_work_is_not_delivered_twice(server: NatsServer, ending: AsyncExitStack) -> None:
    patience = timedelta(seconds=3)
    bus = NatsBus(server.url, "provisioner", site_streams(SITE), lambda mistake: None, ack_wait=patience)
    heard: list[UUID] = []
    done = asyncio.Event()
    first, second = opened(), opened(1)

    async def work(message: Message) -> None:
        heard.append(message.id)
        if message.id == first.id:
            # Twice as long as the server waits for a sign of life.
            await asyncio.sleep(6)
        else:
            done.set()

    bus.hears(WindowOpened, SITE, work)
    ending.push_async_callback(bus.stop)
    await bus.start()
    for window in (first, second):
        await say(bus, window)
    await asyncio.wait_for(done.wait(), PATIENCE_S)
    assert heard == [first.id, second.id]
    async with jetstream_of(server) as jetstream:
        assert (await jetstream.consumer_info(EVENTS_STREAM, "provisioner")).config.ack_wait == 3


async def test_a_delivery_in_hand_is_finished_and_acknowledged_at_stop(server: NatsServer) -> None:
    def bus_with(handler: Any) -> NatsBus:
        bus = NatsBus(server.url, "provisioner", site_streams(SITE), lambda mistake: None)
        bus.hears(WindowOpened, SITE, handler)
        return bus

    entered, leave, left, heard = asyncio.Event(), asyncio.Event(), asyncio.Event(), asyncio.Queue[UUID]()

    async def slow(message: Message) -> None:
        entered.set()
        await leave.wait()
        left.set()

    async def listen(message: Message) -> None:
        heard.put_nowait(message.id)

    before = bus_with(slow)
    await before.start()
    first, second = opened(), opened(1)
    for window in (first, second):
        await say(before, window)
    await asyncio.wait_for(entered.wait(), PATIENCE_S)
    stopping = asyncio.create_task(before.stop())
    await asyncio.wait([stopping], timeout=0.05)
    assert not stopping.done()
    leave.set()
    await asyncio.wait_for(stopping, PATIENCE_S)
    assert left.is_set()
    after = bus_with(listen)
    await after.start()
    assert await asyncio.wait_for(heard.get(), PATIENCE_S) == second.id
    await after.stop()


async def pretend(version: str) -> asyncio.Server:
    """Enough of a NATS server to say how old it is."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("sockname")[1]
        info = {
            "server_id": "OLD",
            "version": version,
            "go": "go1.19",
            "host": "127.0.0.1",
            "port": port,
            "headers": True,
            "max_payload": 1048576,
            "proto": 1,
            "jetstream": True,
        }
        writer.write(f"INFO {json.dumps(info)}\r\n".encode())
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    return await asyncio.start_server(talk, "127.0.0.1", 0)


@pytest.mark.parametrize("version", ["2.9.10", "2.9.25", "1.4.1"])
async def test_an_old_server_is_refused_in_one_line(version: str) -> None:
    old = await pretend(version)
    bus = NatsBus(f"nats://127.0.0.1:{old.sockets[0].getsockname()[1]}", "provisioner", (), lambda mistake: None)
    with pytest.raises(Mistake) as mistake:
        await asyncio.wait_for(bus.start(), PATIENCE_S)
    assert mistake.value.exit_code is ExitCode.SERVER
    assert version in mistake.value.cause
    assert "2.10.0" in mistake.value.cure
    assert "\n" not in str(mistake.value)
    old.close()
    await old.wait_closed()


async def test_a_server_without_jetstream_is_refused_or_waited_for_but_never_believed(
    tmp_path: Path, ending: AsyncExitStack
) -> None:
    port = free_port()
    config = tmp_path / "plain.conf"
    config.write_text(f"listen: 127.0.0.1:{port}\n")
    from windfall.servicekit.natsserver import find_binary

    process = await asyncio.create_subprocess_exec(
        find_binary(), "-c", config, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    bus = NatsBus(f"nats://127.0.0.1:{port}", "provisioner", site_streams(SITE), lambda mistake: None)
    rising = asyncio.create_task(bus.start())
    await asyncio.wait([rising], timeout=0.5)
    assert not bus.ready
    rising.cancel()
    await asyncio.wait([rising])
    await bus.stop()
    process.terminate()
    await process.wait()


async def test_a_port_held_by_another_server_is_a_mistake(server: NatsServer, tmp_path: Path) -> None:
    second = NatsServer(ServerPlan("site-b", server.plan.port, tmp_path / "second"), tmp_path / "second")
    with pytest.raises(Mistake, match=f"port {server.plan.port}") as mistake:
        await second.start()
    assert mistake.value.exit_code is ExitCode.RESOURCE
    assert second.pid is None
