"""Time as services see it, and how a setting spells it."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest

from windfall.servicekit.clock import Clock, LoopClock, ReplayClock, SystemClock, parse_clock
from windfall.servicekit.testing.virtual import run_virtual

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def replay(speed: float) -> ReplayClock:
    return ReplayClock(NEW_YEAR, datetime.now(UTC), speed)


def test_the_system_clock_is_the_wall_in_utc() -> None:
    before = datetime.now(UTC)
    now = SystemClock().now()
    assert before <= now <= datetime.now(UTC)
    assert now.tzinfo is UTC
    assert SystemClock().wall(timedelta(minutes=5)) == timedelta(minutes=5)


def test_a_replay_runs_as_much_faster_as_it_says() -> None:
    start = datetime.now(UTC)
    clock = ReplayClock(NEW_YEAR, start - timedelta(seconds=10), 960)
    passed = clock.now() - NEW_YEAR
    elapsed = datetime.now(UTC) - start
    assert timedelta(seconds=9600) <= passed <= timedelta(seconds=9600) + elapsed * 960
    assert clock.wall(timedelta(minutes=16)) == timedelta(seconds=1)


def test_before_it_begins_a_replay_is_before_its_trace() -> None:
    assert ReplayClock(NEW_YEAR, datetime.now(UTC) + timedelta(minutes=1), 100).now() < NEW_YEAR


@pytest.mark.parametrize(
    "make", [SystemClock, lambda: replay(1.0), lambda: replay(100_000.0)], ids=["wall", "1", "1e5"]
)
async def test_after_sleeping_until_an_instant_it_has_come(make: Callable[[], Clock]) -> None:
    clock = make()
    for step in range(1, 15):
        at = clock.now() + step * timedelta(milliseconds=0.3) * (
            timedelta(seconds=1) / clock.wall(timedelta(seconds=1))
        )
        await clock.sleep_until(at)
        assert clock.now() >= at


class Stepping(SystemClock):
    """A wall clock that somebody sets back by a second while a timer runs."""

    def __init__(self) -> None:
        self.looks = 0

    def now(self) -> datetime:
        self.looks += 1
        behind = timedelta(seconds=1) if self.looks >= 2 else timedelta()
        return NEW_YEAR + timedelta(seconds=asyncio.get_running_loop().time()) - behind


def test_a_clock_that_is_set_back_does_not_wake_early() -> None:
    async def wait() -> float:
        clock = Stepping()
        await clock.sleep_until(NEW_YEAR + timedelta(seconds=5))
        return asyncio.get_running_loop().time()

    assert run_virtual(wait()) == pytest.approx(6)


def test_the_past_only_yields() -> None:
    async def look_back() -> tuple[float, list[str]]:
        order: list[str] = []
        clock = LoopClock(NEW_YEAR)

        async def other() -> None:
            order.append("other")

        task = asyncio.create_task(other())
        await clock.sleep_until(NEW_YEAR - timedelta(days=1))
        await clock.sleep(timedelta(days=-1))
        order.append("me")
        await task
        return asyncio.get_running_loop().time(), order

    assert run_virtual(look_back()) == (0, ["other", "me"])


def test_the_loop_clock_meets_its_instants_exactly() -> None:
    async def walk() -> list[datetime]:
        clock, seen = LoopClock(NEW_YEAR), []
        for minute in range(1, 2000):
            await clock.sleep_until(NEW_YEAR + minute * timedelta(minutes=5, microseconds=1))
            seen.append(clock.now())
        return seen

    assert run_virtual(walk()) == [
        NEW_YEAR + minute * timedelta(minutes=5, microseconds=1) for minute in range(1, 2000)
    ]


@pytest.mark.parametrize("speed", [1.0, 960.0, 960.123456789, 0.00001, 2_000_000.0, 1e17], ids=str)
def test_a_clock_reads_what_it_writes(speed: float) -> None:
    clock = ReplayClock(NEW_YEAR, datetime(2026, 11, 21, 20, 0, 0, 123456, tzinfo=UTC), speed)
    assert parse_clock(str(clock)) == clock


def test_the_system_clock_is_read() -> None:
    assert parse_clock("system") == SystemClock()


def test_instants_of_any_zone_are_read() -> None:
    clock = parse_clock("replay:2026-01-01T02:00:00+02:00@2026-11-21T12:00:00Zx960")
    assert isinstance(clock, ReplayClock)
    assert clock.trace_start == NEW_YEAR
    assert clock.trace_start.tzinfo is UTC
    assert clock.wall_start == datetime(2026, 11, 21, 14, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("", "neither"),
        ("System", "neither"),
        ("replay", "neither"),
        ("replay:2026-01-01T00:00:00Z@2026-01-01T00:00:00Z", "neither"),
        ("replay:2026-01-01T00:00:00@2026-01-01T00:00:00Zx10", "time zone"),
        ("replay:2026-01-01T00:00:00Z@2026-01-01T00:00:00x10", "time zone"),
        ("replay:yesterday@2026-01-01T00:00:00Zx10", "yesterday"),
        ("replay:2026-01-01T00:00:00Z@2026-01-01T00:00:00Zx0", "over 0"),
        ("replay:2026-01-01T00:00:00Z@2026-01-01T00:00:00Zx1e999", "finite"),
        ("replay:2026-01-01T00:00:00Z@2026-01-01T00:00:00Zx-3", "neither"),
        ("replay:2026-01-01T00:00:00Z@2026-01-01T00:00:00Zxnan", "neither"),
        ("replay:2026-01-01T00:00:00Z@2026-01-01T00:00:00Zx1.2.3", "1.2.3"),
    ],
)
def test_what_is_no_clock_is_refused(text: str, because: str) -> None:
    with pytest.raises(ValueError, match=because):
        parse_clock(text)
