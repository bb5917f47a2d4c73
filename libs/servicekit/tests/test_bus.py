"""What every bus promises, held by the real one and by the double that ships."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import nats
import pytest

from windfall.contracts.commands import ReleaseNode
from windfall.contracts.envelope import Letter, seal
from windfall.contracts.events import SignalRecovered, WindowClosed, WindowOpened
from windfall.contracts.message import Message
from windfall.contracts.subjects import DEAD_STREAM, site_streams
from windfall.servicekit.bus import DEAD_REASON, DELIVERIES, Bus
from windfall.servicekit.errors import ExitCode, Mistake, Poison, Transient
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.testing.fixtures import started_server
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain

SITE = "site-a"
STREAMS = site_streams(SITE)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass
class Place:
    """A domain to connect to, real or in memory."""

    bus: Callable[[str], Bus]
    dead: Callable[[], Awaitable[list[Letter]]]
    mistakes: list[Mistake] = field(default_factory=list)


@pytest.fixture(params=["memory", "nats"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    mistakes: list[Mistake] = []
    if request.param == "memory":
        domain = MemoryDomain(SITE)

        async def buried() -> list[Letter]:
            return domain.letters(DEAD_STREAM)

        yield Place(lambda service: MemoryBus(domain, service, STREAMS, mistakes.append), buried, mistakes)
        return
    async with started_server(tmp_path) as server:

        async def dead() -> list[Letter]:
            client = await nats.connect(server.url)
            jetstream = client.jetstream()
            info = await jetstream.stream_info(DEAD_STREAM)
            found = [await jetstream.get_msg(DEAD_STREAM, seq) for seq in range(1, info.state.messages + 1)]
            await client.close()
            return [Letter(raw.subject or "", raw.headers or {}, raw.data or b"") for raw in found]

        yield Place(lambda service: NatsBus(server.url, service, STREAMS, mistakes.append), dead, mistakes)


def opened(minute: int = 0, window: UUID | None = None) -> WindowOpened:
    at = NOON + timedelta(minutes=minute)
    return WindowOpened(
        id=uuid4(), at=at, site=SITE, window_id=window or uuid4(), intensity_g_per_kwh=20, expected_close_at=None
    )


def closed(window: UUID) -> WindowClosed:
    return WindowClosed(id=uuid4(), at=NOON, site=SITE, window_id=window, reason="dirty", crossed_at=NOON)


class Ear:
    """Hears, remembers, and can be told to fail."""

    def __init__(self, until: int) -> None:
        self.heard: list[Message] = []
        self.failures: list[Exception] = []
        self.enough = asyncio.Event()
        self._until = until

    async def __call__(self, message: Message) -> None:
        self.heard.append(message)
        if len(self.heard) >= self._until:
            self.enough.set()
        if self.failures:
            raise self.failures.pop(0)

    async def wait(self) -> list[Message]:
        async with asyncio.timeout(60):
            await self.enough.wait()
        return self.heard


async def say(bus: Bus, *messages: Message) -> None:
    """As an outbox does: what a busy server has not acknowledged is said again, and kept once."""
    for message in messages:
        async with asyncio.timeout(60):
            while True:
                try:
                    await bus.publish(seal(message, "/windfall/test"))
                    break
                except Transient:
                    await asyncio.sleep(0.05)


async def test_what_is_said_is_heard_in_order_across_kinds(place: Place) -> None:
    speaker, listener, ear = place.bus("energy-watcher"), place.bus("provisioner"), Ear(until=4)
    listener.hears(WindowOpened, SITE, ear)
    listener.hears(WindowClosed, SITE, ear)
    await speaker.start()
    await listener.start()
    first, second = uuid4(), uuid4()
    said = [opened(0, first), closed(first), opened(1, second), closed(second)]
    await say(speaker, *said)
    assert await ear.wait() == said
    await listener.stop()
    await speaker.stop()


async def test_a_sentence_said_twice_is_kept_once(place: Place) -> None:
    bus, ear = place.bus("provisioner"), Ear(until=2)
    bus.hears(WindowOpened, SITE, ear)
    await bus.start()
    once, last = opened(), opened(1)
    await say(bus, once, once, last)
    assert await ear.wait() == [once, last]
    await bus.stop()


async def test_much_is_said_at_once_in_its_order_and_kept_once(place: Place) -> None:
    bus, ear, orders = place.bus("provisioner"), Ear(until=6), Ear(until=2)
    bus.hears(WindowOpened, SITE, ear)
    bus.hears(ReleaseNode, SITE, orders)
    await bus.start()
    windows = [opened(minute) for minute in range(6)]
    first, second = (ReleaseNode(id=uuid4(), at=NOON, site=SITE) for _ in range(2))
    # Facts and orders go into two streams; what is in one of them already makes no difference.
    for said in (windows[:2], [*windows[:3], first, *windows[3:5], second], [windows[5]]):
        await bus.publish_all([seal(message, "/windfall/test") for message in said])
    assert (await ear.wait(), await orders.wait()) == (windows, [first, second])
    with pytest.raises(Poison):
        await bus.publish_all([seal(windows[0], "/windfall/test"), replace(seal(opened(9), "/"), body=b" " * 300_000)])
    await bus.stop()


async def test_a_service_hears_after_its_restart_what_was_said_meanwhile(place: Place) -> None:
    speaker, ear = place.bus("energy-watcher"), Ear(until=1)
    await speaker.start()
    before = place.bus("provisioner")
    before.hears(WindowOpened, SITE, ear)
    await before.start()
    first, meanwhile = opened(), opened(1)
    await say(speaker, first)
    await ear.wait()
    await before.stop()
    await say(speaker, meanwhile)
    after, later = place.bus("provisioner"), Ear(until=1)
    after.hears(WindowOpened, SITE, later)
    await after.start()
    assert await later.wait() == [meanwhile]
    await after.stop()
    await speaker.stop()


async def test_who_follows_begins_with_the_newest_of_each_kind_whoever_heard_it_before(place: Place) -> None:
    speaker, over, now = place.bus("energy-watcher"), uuid4(), uuid4()
    await speaker.start()
    said = [opened(0, over), closed(over), opened(1, now)]
    await say(speaker, *said)
    followers = [(place.bus("site-trainer"), Ear(until=2)) for _ in range(2)]
    for bus, ear in followers:
        bus.follows(WindowOpened, SITE, ear)
        bus.follows(WindowClosed, SITE, ear)
        await bus.start()
    for bus, ear in followers:
        assert await ear.wait() == said[1:]
        await bus.stop()
    meanwhile, later = [closed(now), opened(2)], opened(3)
    await say(speaker, *meanwhile)
    again, ear = place.bus("site-trainer"), Ear(until=3)
    again.follows(WindowOpened, SITE, ear)
    again.follows(WindowClosed, SITE, ear)
    await again.start()
    await say(speaker, later)
    assert await ear.wait() == [*meanwhile, later]
    await again.stop()
    await speaker.stop()


async def test_transient_comes_back_and_the_next_waits(place: Place) -> None:
    bus, ear = place.bus("provisioner"), Ear(until=3)
    ear.failures = [Transient("not yet", timedelta(milliseconds=50))]
    bus.hears(WindowOpened, SITE, ear)
    await bus.start()
    first, second = opened(), opened(1)
    await say(bus, first, second)
    assert await ear.wait() == [first, first, second]
    await bus.stop()


async def test_poison_is_buried_with_its_reason_and_the_next_goes_on(place: Place) -> None:
    bus, ear = place.bus("provisioner"), Ear(until=2)
    ear.failures = [Poison("it never works")]
    bus.hears(WindowOpened, SITE, ear)
    await bus.start()
    bad, good = opened(), opened(1)
    await say(bus, bad, good)
    assert await ear.wait() == [bad, good]
    (letter,) = await place.dead()
    assert letter.subject == f"windfall.dead.provisioner.windfall.v1.window.opened.{SITE}"
    assert letter.headers[DEAD_REASON] == "it never works"
    assert letter.body == bad.model_dump_json().encode()
    await bus.stop()


@pytest.mark.parametrize(
    ("break_it", "because"),
    [
        (lambda letter: replace(letter, body=b"{"), "window.opened"),
        (lambda letter: replace(letter, body=b"\xff\xfe"), "window.opened"),
        (lambda letter: replace(letter, headers={}), "specversion"),
        (lambda letter: replace(letter, headers={**letter.headers, "ce-type": "windfall.v1.what.is"}), "unknown"),
        (lambda letter: replace(letter, body=letter.body.replace(b"site-a", b"site-b")), "but says"),
    ],
    ids=["cut", "not-text", "bare", "unknown", "forged-site"],
)
async def test_what_is_no_sentence_is_buried(place: Place, break_it: Callable[[Letter], Letter], because: str) -> None:
    bus, ear = place.bus("provisioner"), Ear(until=1)
    bus.hears(WindowOpened, SITE, ear)
    await bus.start()
    good = opened(1)
    await bus.publish(break_it(seal(opened(), "/windfall/test")))
    await say(bus, good)
    assert await ear.wait() == [good]
    (letter,) = await place.dead()
    assert because in letter.headers[DEAD_REASON]
    await bus.stop()


async def test_commands_are_a_work_queue(place: Place) -> None:
    bus, ear = place.bus("provisioner"), Ear(until=1)
    bus.hears(ReleaseNode, SITE, ear)
    await bus.start()
    order = ReleaseNode(id=uuid4(), at=NOON, site=SITE)
    await say(bus, order)
    assert await ear.wait() == [order]
    await bus.stop()


async def test_an_oversized_sentence_is_poison_to_its_speaker(place: Place) -> None:
    bus = place.bus("provisioner")
    await bus.start()
    with pytest.raises(Poison, match="over the limit"):
        await bus.publish(Letter(f"windfall.v1.window.opened.{SITE}", {}, b"x" * 300_000))
    await bus.stop()


async def test_a_mistake_in_a_handler_is_told_to_the_service(place: Place) -> None:
    bus, ear = place.bus("provisioner"), Ear(until=1)
    ear.failures = [Mistake("the disk is full", "Free space")]
    bus.hears(SignalRecovered, SITE, ear)
    await bus.start()
    await say(bus, SignalRecovered(id=uuid4(), at=NOON, site=SITE, point_time=NOON))
    await ear.wait()
    await bus.stop()
    assert [mistake.cause for mistake in place.mistakes] == ["the disk is full"]


async def test_what_fails_for_ever_is_buried_in_the_end(place: Place) -> None:
    bus, ear = place.bus("provisioner"), Ear(until=DELIVERIES + 1)
    ear.failures = [Transient("not yet", timedelta()) for _ in range(DELIVERIES)]
    bus.hears(WindowOpened, SITE, ear)
    await bus.start()
    hopeless, good = opened(), opened(1)
    await say(bus, hopeless, good)
    assert await ear.wait() == [*[hopeless] * DELIVERIES, good]
    (letter,) = await place.dead()
    assert letter.headers[DEAD_REASON] == f"delivered {DELIVERIES} times and never handled"
    await bus.stop()


async def test_a_reason_fits_into_a_header(place: Place) -> None:
    bus, ear = place.bus("provisioner"), Ear(until=2)
    ear.failures = [Poison('two\nlines and a "quote" – ' + "x" * 1000)]
    bus.hears(WindowOpened, SITE, ear)
    await bus.start()
    await say(bus, opened(), opened(1))
    await ear.wait()
    (letter,) = await place.dead()
    reason = letter.headers[DEAD_REASON]
    assert reason.startswith("two\\nlines")
    assert reason.isascii()
    assert len(reason) == 500
    await bus.stop()


async def test_an_error_that_no_handler_should_raise_ends_the_service_and_keeps_the_message(place: Place) -> None:
    bus, ear = place.bus("provisioner"), Ear(until=1)
    ear.failures = [TimeoutError("a timeout of the handler's own, not of an acknowledgement")]
    bus.hears(WindowOpened, SITE, ear)
    await bus.start()
    window = opened()
    await say(bus, window)
    await ear.wait()
    await bus.stop()
    (mistake,) = place.mistakes
    assert mistake.exit_code is ExitCode.FAILED
    assert "TimeoutError" in mistake.cause
    assert await place.dead() == []


async def test_a_bus_is_ready_between_start_and_stop(place: Place) -> None:
    bus = place.bus("provisioner")
    assert not bus.ready
    await bus.start()
    assert bus.ready
    await bus.stop()
    assert not bus.ready


async def test_a_subject_that_no_stream_takes_is_transient(place: Place) -> None:
    bus = place.bus("provisioner")
    await bus.start()
    with pytest.raises(Transient):
        await bus.publish(Letter("nobody.takes.this", {}, b"{}"))
    await bus.stop()


async def test_a_store_has_one_name_for_every_service(place: Place) -> None:
    first, second = place.bus("provisioner"), place.bus("energy-watcher")
    await first.start()
    await second.start()
    assert await first.store_identity() == await second.store_identity() != ""
    await first.stop()
    await second.stop()


async def test_a_killed_memory_server_comes_back_with_its_store() -> None:
    domain = MemoryDomain(SITE)
    bus, ear = MemoryBus(domain, "provisioner", STREAMS), Ear(until=2)
    bus.hears(WindowOpened, SITE, ear)
    await bus.start()
    first, second = opened(), opened(1)
    await say(bus, first)
    domain.reachable = False
    assert not bus.ready
    with pytest.raises(Transient, match="away"):
        await bus.publish(seal(second, "/windfall/test"))
    domain.reachable = True
    assert bus.ready
    await say(bus, second)
    assert await ear.wait() == [first, second]
    await bus.stop()


async def test_a_speaker_that_hears_nothing_is_told_that_the_store_was_lost() -> None:
    domain, lost = MemoryDomain(SITE), asyncio.Event()
    bus = MemoryBus(domain, "energy-watcher", STREAMS, on_store_lost=lost.set)
    await bus.start()
    before = await bus.store_identity()
    domain.wipe()
    assert lost.is_set()
    assert await bus.store_identity() != before
    await bus.stop()


def test_one_handler_per_kind() -> None:
    bus = MemoryBus(MemoryDomain(SITE), "provisioner", STREAMS)
    bus.hears(WindowOpened, SITE, Ear(1))
    with pytest.raises(ValueError, match="heard already"):
        bus.hears(WindowOpened, "*", Ear(1))


def test_a_command_is_not_followed() -> None:
    with pytest.raises(ValueError, match="is a command"):
        MemoryBus(MemoryDomain(SITE), "provisioner", STREAMS).follows(ReleaseNode, SITE, Ear(1))
