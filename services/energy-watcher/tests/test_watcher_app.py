"""The watcher on virtual time, with a real journal and the bus that ships for tests."""

import asyncio
import logging
from datetime import timedelta
from pathlib import Path

import pytest

from windfall.contracts.envelope import TRACEPARENT
from windfall.contracts.events import WindowClosed, WindowClosing, WindowOpened
from windfall.contracts.subjects import EVENTS_STREAM
from windfall.energy.shipped import synthetic_trace
from windfall.energy.windows import Watch
from windfall.energy_watcher.memory import WATCH
from windfall.energy_watcher.testing.site import DAY, Scripted, Site, clock_of, site_at
from windfall.servicekit import telemetry
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.journal import Journal
from windfall.servicekit.testing.virtual import run_virtual


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    telemetry.set_up("energy-watcher", "site-a", None, {})
    return tmp_path


DAYS = {
    "site-a": [("01:00", "04:00"), ("07:00", "07:15"), ("09:00", "13:00"), ("20:00", "23:00")],
    "site-b": [("03:00", "06:00"), ("11:00", "16:30"), ("19:00", "21:00")],
    "site-c": [("05:00", "08:00"), ("12:00", "14:00"), ("14:05", "15:00"), ("21:30", "23:30")],
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
        # The forecast says that it is for good: nobody waits for the grace on dirty power.
        assert closed.at == clock_of(crossing)
        assert opened.window_id == closing.window_id == closed.window_id
    assert list(said) == []


def _decides(subject: str) -> bool:
    """Neither explains nor accounts."""
    return "judged" not in subject and "recorded" not in subject


def test_a_window_is_one_trace_and_two_are_two(folder: Path) -> None:
    async def morning() -> list[str]:
        site = site_at(folder, 0)
        async with site.watched(site.settings()):
            await site.until("03:30")
        async with site.watched(site.settings()):
            await site.until("08:00")
        letters = [letter for letter in site.domain.letters(EVENTS_STREAM) if _decides(letter.subject)]
        return [letter.headers[TRACEPARENT].split("-")[1] for letter in letters]

    traces = run_virtual(morning())
    assert len(traces) == 6
    assert traces[0] == traces[1] == traces[2] != traces[3] == traces[4] == traces[5]


def test_a_restart_within_a_window_says_nothing_twice(folder: Path) -> None:
    async def morning() -> tuple[Site, int]:
        site = site_at(folder, 0)
        for pause in ["02:02", "03:57", "04:03", "05:00"]:
            async with site.watched(site.settings()):
                await site.until(pause)
        journal = Journal(folder / "journal.sqlite", "/windfall/energy-watcher/site-a")
        journal.unsay_all()
        words = sum(_decides(waiting.letter.subject) for waiting in journal.unsaid())
        journal.close()
        return site, words

    site, words = run_virtual(morning())
    assert site.told() == ["window.opened 01:00", "window.closing 03:55", "window.closed 04:00"]
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
        "window.closed 04:00",
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


@pytest.mark.parametrize(
    "error",
    [Transient("503"), Mistake("the token was revoked", "Set another")],
    ids=["down-for-two-hours", "expired-token"],
)
def test_a_provider_that_gives_nothing_fails_closed_and_recovers(
    folder: Path, error: Transient | Mistake, caplog: pytest.LogCaptureFixture
) -> None:
    provider = Scripted([(DAY, 20.0), (clock_of("01:00"), error), (clock_of("03:00"), 20.0)])

    async def morning() -> Site:
        site = site_at(folder, 0)
        async with site.watched(site.settings(), carbon=provider):
            await site.until("04:00")
        return site

    with caplog.at_level(logging.WARNING):
        site = run_virtual(morning())
    assert site.told() == [
        "window.opened 00:00",
        "signal.stale 01:14",
        "window.closed 01:14",
        "signal.recovered 03:00",
        "window.opened 03:00",
    ]
    assert [record.getMessage() for record in caplog.records] == [f"no news of carbon: {error}"]


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
