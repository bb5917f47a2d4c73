"""The watcher on virtual time, with a real journal and the bus that ships for tests."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from windfall.contracts.envelope import TRACEPARENT, unseal
from windfall.contracts.events import SiteEvent, WindowClosed, WindowClosing, WindowOpened
from windfall.contracts.subjects import EVENTS_STREAM, site_streams
from windfall.energy.shipped import synthetic_trace
from windfall.energy.signals import Reading
from windfall.energy.windows import Watch
from windfall.energy_watcher.app import WATCH, Watcher, attend
from windfall.energy_watcher.settings import WatcherSettings
from windfall.energy_watcher.source import Source
from windfall.servicekit import telemetry
from windfall.servicekit.clock import LoopClock
from windfall.servicekit.errors import Transient
from windfall.servicekit.journal import Journal
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.service import Stand
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain
from windfall.servicekit.testing.virtual import run_virtual

DAY = datetime(2026, 1, 1, tzinfo=UTC)


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


def clock_of(text: str) -> datetime:
    return DAY + hours(int(text[:2])) + timedelta(minutes=int(text[3:]))


@dataclass
class Site:
    """A site's bus and disk, which outlive its watcher, on a clock that starts at some hour of the day."""

    folder: Path
    domain: MemoryDomain
    clock: LoopClock

    def settings(self, **changes: object) -> WatcherSettings:
        trace = self.folder / "trace.csv"
        if not trace.exists():
            trace.write_text("\n".join(synthetic_trace()))
        told = {"site": self.domain.name, "state_dir": self.folder, "trace_file": trace, **changes}
        return WatcherSettings.model_validate(told)

    @asynccontextmanager
    async def watched(self, settings: WatcherSettings, source: Source | None = None) -> AsyncIterator[Stand]:
        """A watcher that is cut off at the end of the block, as by a crash."""
        streams = site_streams(self.domain.name)
        journal = Journal(self.folder / "journal.sqlite", "/windfall/energy-watcher/" + self.domain.name)
        bus = MemoryBus(self.domain, "energy-watcher", streams)
        stand = Stand("energy-watcher", self.domain.name, self.clock, journal, bus, Outbox(journal, bus))
        await stand.rise()
        try:
            if source is None:
                async with attend(settings, stand):
                    yield stand
            else:
                stand.spawn(Watcher(settings, stand, source).run(), "watch")
                yield stand
        finally:
            await stand.lie_down()
        assert stand.mistake is None

    async def until(self, text: str) -> None:
        await self.clock.sleep_until(clock_of(text) + timedelta(seconds=1))

    def said(self) -> list[SiteEvent]:
        events = [unseal(letter) for letter in self.domain.letters(EVENTS_STREAM)]
        return [event for event in events if isinstance(event, SiteEvent)]

    def told(self) -> list[str]:
        return [f"{event.topic} {event.at:%H:%M}" for event in self.said()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    telemetry.set_up("energy-watcher", "site-a", None, {})
    return tmp_path


def site_at(folder: Path, hour: float, name: str = "site-a") -> Site:
    return Site(folder, MemoryDomain(name), LoopClock(DAY + hours(hour)))


DAYS = {
    "site-a": [("01:00", "04:00"), ("07:00", "07:15"), ("09:00", "13:00"), ("20:00", "23:00")],
    "site-b": [("03:00", "06:00"), ("11:00", "16:30"), ("19:00", "21:00")],
    "site-c": [("05:00", "08:00"), ("12:00", "15:00"), ("21:30", "23:30")],
}


@pytest.mark.parametrize("name", sorted(DAYS))
def test_a_day(folder: Path, name: str) -> None:
    async def day() -> Site:
        site = site_at(folder, 0, name)
        async with site.watched(site.settings(closing_lead=timedelta(minutes=7))):
            await site.until("24:10")
        return site

    site = run_virtual(day())
    said = iter(site.said())
    for opening, crossing in DAYS[name]:
        opened, closing, closed = next(said), next(said), next(said)
        assert isinstance(opened, WindowOpened) and opened.at == clock_of(opening)
        assert opened.expected_close_at == clock_of(crossing)
        assert isinstance(closing, WindowClosing) and closing.closes_at == clock_of(crossing)
        # Between two readings: the forecast is acted upon when it is due, not when the next reading comes.
        assert closing.at == clock_of(crossing) - timedelta(minutes=7)
        assert isinstance(closed, WindowClosed) and closed.crossed_at == clock_of(crossing)
        assert closed.at == clock_of(crossing) + timedelta(minutes=10)
        assert opened.window_id == closing.window_id == closed.window_id
    assert list(said) == []


def test_a_window_is_one_trace_and_two_are_two(folder: Path) -> None:
    async def morning() -> list[str]:
        site = site_at(folder, 0)
        async with site.watched(site.settings()):
            await site.until("03:30")
        async with site.watched(site.settings()):
            await site.until("08:00")
        return [letter.headers[TRACEPARENT].split("-")[1] for letter in site.domain.letters(EVENTS_STREAM)]

    traces = run_virtual(morning())
    assert len(traces) == 6
    assert traces[0] == traces[1] == traces[2] != traces[3] == traces[4] == traces[5]


def test_a_restart_within_a_window_says_nothing_twice(folder: Path) -> None:
    async def morning() -> tuple[Site, int]:
        site = site_at(folder, 0)
        for pause in ["02:02", "03:57", "04:03", "04:07", "05:00"]:
            async with site.watched(site.settings()):
                await site.until(pause)
        journal = Journal(folder / "journal.sqlite", "/windfall/energy-watcher/site-a")
        journal.unsay_all()
        words = len(journal.unsaid())
        journal.close()
        return site, words

    site, words = run_virtual(morning())
    assert site.told() == ["window.opened 01:00", "window.closing 03:55", "window.closed 04:10"]
    assert words == 3


def test_an_early_start_waits_for_the_trace(folder: Path) -> None:
    async def night() -> Site:
        site = site_at(folder, -20)
        async with site.watched(site.settings()):
            await site.until("01:01")
        return site

    assert run_virtual(night()).told() == ["window.opened 01:00"]


def test_a_late_start_says_only_what_can_still_be_used(folder: Path) -> None:
    async def morning() -> Site:
        site = site_at(folder, 10.04)
        async with site.watched(site.settings()):
            await site.until("10:30")
        return site

    site = run_virtual(morning())
    assert site.told() == ["window.opened 09:00"]


def test_a_watcher_that_was_away_closes_what_it_opened(folder: Path) -> None:
    async def morning() -> Site:
        site = site_at(folder, 0)
        async with site.watched(site.settings()):
            await site.until("02:00")
        await site.until("10:00")
        async with site.watched(site.settings()):
            await site.until("10:01")
        return site

    site = run_virtual(morning())
    assert site.told() == [
        "window.opened 01:00",
        "window.closing 03:55",
        "window.closed 04:10",
        "window.opened 09:00",
    ]


def test_the_end_of_the_trace_ends_the_window(folder: Path) -> None:
    lines = synthetic_trace()
    (folder / "trace.csv").write_text("\n".join(lines[:30]))

    async def night() -> Site:
        site = site_at(folder, 0)
        for pause in ["02:24", "05:00", "06:00"]:
            async with site.watched(site.settings()):
                await site.until(pause)
        return site

    site = run_virtual(night())
    assert site.told() == ["window.opened 01:00", "window.closed 02:25"]
    closed = site.said()[-1]
    assert isinstance(closed, WindowClosed) and closed.reason == "ended"


def test_a_gap_in_the_trace_fails_closed_while_it_lasts(folder: Path) -> None:
    lines = synthetic_trace()
    gap = [line for line in lines if not "2026-01-01 02:00" < line < "2026-01-01 02:40"]
    (folder / "trace.csv").write_text("\n".join(gap))

    async def night() -> tuple[list[str], list[str]]:
        site = site_at(folder, 0)
        async with site.watched(site.settings()):
            await site.until("02:11")
            within = site.told()
            await site.until("03:00")
        return within, site.told()

    within, after = run_virtual(night())
    assert within == ["window.opened 01:00", "signal.stale 02:10", "window.closed 02:10"]
    assert after[3:] == ["signal.recovered 02:40", "window.opened 02:40"]


def test_a_constant_signal_opens_once(folder: Path) -> None:
    async def two_days() -> Site:
        site = site_at(folder, 0)
        settings = site.settings(signal="static", static_intensity=20.0)
        async with site.watched(settings):
            await site.until("24:00")
        async with site.watched(settings):
            await site.until("48:00")
        return site

    assert run_virtual(two_days()).told() == ["window.opened 00:00"]


@dataclass
class Outage:
    """Clean power, from a provider that is down between two instants."""

    down_from: datetime
    down_until: datetime

    async def readings(self, after: datetime | None, now: datetime) -> Sequence[Reading]:
        if self.down_from <= now < self.down_until:
            raise Transient("503")
        return (Reading(now, 20.0),)

    async def ahead(self, at: datetime, horizon: timedelta) -> Sequence[Reading]:
        return ()

    def next_at(self, now: datetime) -> datetime | None:
        return None

    def ended(self, now: datetime) -> bool:
        return False


def test_a_provider_that_is_down_fails_closed_and_recovers(folder: Path) -> None:
    async def morning() -> Site:
        site = site_at(folder, 0)
        async with site.watched(site.settings(), Outage(clock_of("01:00"), clock_of("03:00"))):
            await site.until("04:00")
        return site

    assert run_virtual(morning()).told() == [
        "window.opened 00:00",
        "signal.stale 01:14",
        "window.closed 01:14",
        "signal.recovered 03:00",
        "window.opened 03:00",
    ]


def test_the_watch_in_the_journal_is_whole(folder: Path) -> None:
    async def night() -> Watch | None:
        site = site_at(folder, 0)
        async with site.watched(site.settings()) as stand:
            await site.until("02:00")
            await asyncio.sleep(0)
            return stand.journal.load(WATCH, Watch)

    watch = run_virtual(night())
    assert watch is not None
    assert (watch.last_point_time, watch.opened_at) == (clock_of("02:00"), clock_of("01:00"))
    assert watch.expected_close_at == clock_of("04:00")
    assert watch.traceparent is not None
