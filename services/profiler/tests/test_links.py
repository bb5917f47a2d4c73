"""A site's links: looked at while a window is open, for a bounded number of bytes, and whenever somebody asks."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.commands import ProbeLink
from windfall.contracts.envelope import seal
from windfall.contracts.events import LinkDegraded, LinkMeasured, LinkRecovered, WindowClosed, WindowOpened
from windfall.contracts.message import Message
from windfall.contracts.subjects import HUB, site_streams
from windfall.contracts.v1.link_probe_pb2_grpc import add_LinkProbeServicer_to_server
from windfall.profiler import app, watching
from windfall.profiler.fixed import FixedProbe
from windfall.profiler.link import GrpcLink
from windfall.profiler.links import Cadence
from windfall.profiler.probe import LinkProbe, Probes
from windfall.profiler.profile import Link
from windfall.profiler.recommendation import Goals
from windfall.profiler.watching import Watch
from windfall.servicekit import rpc
from windfall.servicekit.clock import LoopClock
from windfall.servicekit.journal import Journal
from windfall.servicekit.link_probe import LinkProbeServicer
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.service import Stand
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain
from windfall.servicekit.testing.proxy import Proxy

SITE = "site-a"
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
STREAMS = site_streams(SITE)
WINDOW = UUID(int=7)
OFTEN = Cadence(timedelta(milliseconds=5), timedelta(hours=2))
MIB = 2**20


def opened() -> WindowOpened:
    return WindowOpened(
        id=uuid4(), at=NOON, site=SITE, window_id=WINDOW, intensity_g_per_kwh=20.0, expected_close_at=None
    )


def closed(window: UUID = WINDOW) -> WindowClosed:
    return WindowClosed(id=uuid4(), at=NOON, site=SITE, window_id=window, reason="ended", crossed_at=NOON)


def test_what_is_said_again_of_an_earlier_window_opens_none() -> None:
    later = NOON + timedelta(minutes=1)
    watch = watching.closed(watching.opened(Watch(), WINDOW, NOON), WINDOW, later)
    assert watching.opened(watch, WINDOW, NOON).window_id is None
    # Backwards, the end comes first.
    watch = watching.closed(Watch(), WINDOW, later)
    assert watching.opened(watch, WINDOW, NOON).window_id is None
    next_one = UUID(int=8)
    assert watching.opened(watch, next_one, later).window_id == next_one


@dataclass
class Played:
    """A link that is as far away as it is told, one look after the other; the last value stays."""

    rtt_ms: list[float]
    looks: list[str] = field(default_factory=list)
    looked: asyncio.Event = field(default_factory=asyncio.Event)
    moves: int = 0

    async def link(self) -> Link:
        self.looks.append("link")
        return Link(link_rtt_ms=self._next(), link_up_mb_per_s=5.0, link_down_mb_per_s=5.0, moved_bytes=self.moves)

    async def echo(self) -> Link:
        self.looks.append("echo")
        return Link(link_rtt_ms=self._next(), link_jitter_ms=0.5, moved_bytes=self.moves)

    def _next(self) -> float:
        self.looked.set()
        return self.rtt_ms.pop(0) if len(self.rtt_ms) > 1 else self.rtt_ms[0]

    async def after(self, count: int) -> None:
        """Wait for so many looks."""
        while len(self.looks) < count:
            self.looked.clear()
            await self.looked.wait()


class Heard:
    """What is said of links."""

    def __init__(self) -> None:
        self.domain = MemoryDomain(SITE)
        self.domain.declare(STREAMS)
        self.said: asyncio.Queue[Message] = asyncio.Queue()
        self._bus = MemoryBus(self.domain, "listener", STREAMS)
        for kind in (LinkMeasured, LinkDegraded, LinkRecovered):
            self._bus.hears(kind, SITE, self.said.put)

    def say(self, message: Message) -> None:
        self.domain.store(seal(message, "/windfall/test"))

    @asynccontextmanager
    async def profiler(
        self, folder: Path, link: LinkProbe, cadence: Cadence, peers: dict[str, LinkProbe] | None = None
    ) -> AsyncIterator[Stand]:
        journal = Journal(folder / "profiler.sqlite", "/windfall/profiler/site-a")
        bus = MemoryBus(self.domain, "profiler", STREAMS)
        stand = Stand("profiler", SITE, LoopClock(NOON), journal, bus, Outbox(journal, bus))
        probe = FixedProbe()
        app.attend(stand, Probes(probe, probe, probe, link, peers or {}), Goals(HOUR), cadence=cadence)
        await self._bus.start()
        await stand.rise()
        try:
            yield stand
        finally:
            await stand.lie_down()
            await self._bus.stop()


async def test_a_link_is_looked_at_while_a_window_is_open_and_only_then(tmp_path: Path) -> None:
    heard, link = Heard(), Played([20.0])
    async with heard.profiler(tmp_path, link, OFTEN) as stand:
        await stand.clock.sleep(5 * OFTEN.echo)
        assert not link.looks
        heard.say(opened())
        await link.after(4)
        heard.say(closed(UUID(int=8)))  # of another window
        await link.after(8)
        heard.say(closed())
        while (stand.journal.load("links", Watch) or Watch()).window_id is not None:
            await stand.clock.sleep(OFTEN.echo)
        seen = len(link.looks)
        await stand.clock.sleep(5 * OFTEN.echo)
        assert len(link.looks) == seen
    assert set(link.looks) == {"echo"} and heard.said.empty()


async def test_a_window_is_still_open_after_a_restart(tmp_path: Path) -> None:
    heard, link = Heard(), Played([20.0])
    async with heard.profiler(tmp_path, link, OFTEN):
        heard.say(opened())
        await link.after(1)
    again = Played([20.0])
    journal = Journal(tmp_path / "profiler.sqlite", "/windfall/profiler/site-a")
    assert (journal.load("links", Watch) or Watch()).window_id == WINDOW
    journal.close()
    async with Heard().profiler(tmp_path, again, OFTEN):
        await again.after(2)


async def test_a_link_that_leaves_its_band_is_said_and_so_is_its_return(tmp_path: Path) -> None:
    heard = Heard()
    async with heard.profiler(tmp_path, Played([20.0] * 8 + [90.0] * 4 + [20.0]), OFTEN):
        heard.say(opened())
        said = [await heard.said.get() for _ in range(4)]
    measured, degraded, _, recovered = said
    assert isinstance(measured, LinkMeasured) and isinstance(recovered, LinkRecovered)
    assert isinstance(degraded, LinkDegraded)
    assert (degraded.target, degraded.part, degraded.value, degraded.low, degraded.high) == (HUB, "rtt_ms", 90, 15, 25)
    assert degraded.because == "To hub a round trip is at 90 ms, out of its band, 15 to 25."


async def test_the_bandwidth_is_looked_at_seldom(tmp_path: Path) -> None:
    heard, link = Heard(), Played([20.0])
    async with heard.profiler(tmp_path, link, Cadence(timedelta(milliseconds=5), timedelta(milliseconds=40))):
        heard.say(opened())
        said = await heard.said.get()
    assert isinstance(said, LinkMeasured) and said.up_mb_per_s == 5.0
    assert link.looks.count("link") == 1 and link.looks.count("echo") >= 2


async def test_an_hours_bytes_are_all_that_an_hour_moves(tmp_path: Path) -> None:
    heard, link = Heard(), Played([20.0], moves=400)
    async with heard.profiler(tmp_path, link, Cadence(timedelta(milliseconds=2), HOUR, hourly_bytes=1000)) as stand:
        heard.say(opened())
        await link.after(3)
        await stand.clock.sleep(timedelta(milliseconds=30))
        assert len(link.looks) == 3
        heard.say(ProbeLink(id=uuid4(), at=NOON, site=SITE))
        said = await heard.said.get()
    assert isinstance(said, LinkMeasured) and said.rtt_ms is None
    assert set(said.missing.values()) == {"the hour's bytes are spent (WINDFALL_LINK_HOURLY_BYTES)"}


async def test_another_site_is_probed_when_somebody_asks_and_its_place_is_known(tmp_path: Path) -> None:
    """Over real gRPC, through a link of 30 ms and 2 MB/s."""
    served = await rpc.serve("127.0.0.1:0", [partial(add_LinkProbeServicer_to_server, LinkProbeServicer())])
    heard = Heard()
    async with Proxy(f"127.0.0.1:{served.port}", timedelta(milliseconds=30), 2e6) as link:
        peers: dict[str, LinkProbe] = {"site-b": GrpcLink(link.address, MIB // 2, what="site-b")}
        async with heard.profiler(tmp_path, FixedProbe(), OFTEN, peers):
            heard.say(ProbeLink(id=uuid4(), at=NOON, site=SITE, target="site-b"))
            near = await heard.said.get()
            heard.say(ProbeLink(id=uuid4(), at=NOON, site=SITE, target="site-c"))
            unknown = await heard.said.get()
    await served.stop(timedelta(0))
    assert isinstance(near, LinkMeasured) and isinstance(unknown, LinkMeasured)
    assert not near.missing
    assert near.rtt_ms is not None and near.rtt_ms >= 29
    assert near.jitter_ms is not None
    assert near.up_mb_per_s is not None and 0 < near.up_mb_per_s < 2.5
    assert near.down_mb_per_s is not None and 0 < near.down_mb_per_s < 2.5
    assert MIB <= near.moved_bytes < MIB + 10_000 <= MIB + link.up.nbytes
    assert unknown.target == "site-c"
    assert set(unknown.missing.values()) == {"this site is not told where site-c is (WINDFALL_PEERS)"}


@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 100)), max_size=40), st.integers(0, 500))
def test_room_is_what_the_last_hour_has_left(spent: list[tuple[int, int]], budget: int) -> None:
    watch, now = Watch(), NOON
    total: list[tuple[datetime, int]] = []
    for seconds, nbytes in spent:
        now += timedelta(seconds=seconds)
        watch, *_ = watching.measured(watch, SITE, HUB, Link(moved_bytes=nbytes), now, HOUR)
        total.append((now, nbytes))
    left = watching.room(watch, budget, now, HOUR)
    assert left == max(0, budget - sum(nbytes for at, nbytes in total if at > now - HOUR))
    assert watching.room(watch, budget, now + HOUR, HOUR) == budget


@given(st.lists(st.floats(0.1, 1000), max_size=50))
def test_the_same_measurements_say_the_same(values: list[float]) -> None:
    def run() -> list[Message]:
        said: list[Message] = []
        watch = Watch()
        for number, value in enumerate(values):
            at = NOON + timedelta(seconds=number)
            link = Link(link_rtt_ms=value, link_up_mb_per_s=value)
            watch, measured, turns = watching.measured(watch, SITE, HUB, link, at, HOUR)
            said += [measured, *turns]
        assert Watch.model_validate_json(watch.model_dump_json()) == watch
        return said

    said = run()
    assert said == run()
    assert len({one.id for one in said}) == len(said)
