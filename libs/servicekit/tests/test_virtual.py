"""Time that jumps: days in milliseconds, the same way every time, and no waiting for what never comes."""

import asyncio
import random
from datetime import UTC, datetime, timedelta

import pytest

from windfall.servicekit.clock import LoopClock
from windfall.servicekit.testing.virtual import Deadlock, run_virtual

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_day_passes() -> None:
    async def day() -> tuple[datetime, int]:
        clock, hours = LoopClock(NEW_YEAR), 0
        while clock.now() < NEW_YEAR + timedelta(days=1):
            await clock.sleep(timedelta(hours=1))
            hours += 1
        return clock.now(), hours

    # Would last a day on any other loop: that it returns at all is the proof.
    assert run_virtual(day()) == (NEW_YEAR + timedelta(days=1), 24)


def test_a_wait_longer_than_the_loop_looks_ahead_is_whole() -> None:
    async def year() -> datetime:
        clock = LoopClock(NEW_YEAR)
        await clock.sleep(timedelta(days=365, microseconds=1))
        return clock.now()

    assert run_virtual(year()) == NEW_YEAR + timedelta(days=365, microseconds=1)


def journal_of(seed: int) -> list[tuple[datetime, str]]:
    async def story() -> list[tuple[datetime, str]]:
        clock, dice, told = LoopClock(NEW_YEAR), random.Random(seed), list[tuple[datetime, str]]()
        queue: asyncio.Queue[str] = asyncio.Queue()

        async def speak(name: str) -> None:
            for _ in range(20):
                await clock.sleep(timedelta(seconds=dice.choice([0, 1, 1, 60])))
                queue.put_nowait(name)

        async def listen() -> None:
            while True:
                told.append((clock.now(), await queue.get()))

        listening = asyncio.create_task(listen())
        await asyncio.gather(*(speak(name) for name in "abcde"))
        await asyncio.sleep(1)
        listening.cancel()
        return told

    return run_virtual(story())


def test_the_same_seed_tells_the_same_story() -> None:
    assert journal_of(1) == journal_of(1)
    assert len(journal_of(1)) == 100
    assert journal_of(1) != journal_of(2)


def test_what_is_due_at_the_same_moment_comes_in_the_same_order_every_time() -> None:
    async def crowd() -> list[int]:
        arrived: list[int] = []

        async def come(number: int) -> None:
            await asyncio.sleep(10)
            arrived.append(number)

        await asyncio.gather(*(come(number) for number in range(50)))
        return arrived

    assert run_virtual(crowd()) == run_virtual(crowd())


def test_time_stands_still_while_work_is_done() -> None:
    async def work() -> float:
        loop = asyncio.get_running_loop()
        before = loop.time()
        for _ in range(1000):
            await asyncio.sleep(0)
        return loop.time() - before

    assert run_virtual(work()) == 0


def test_waiting_for_nothing_is_a_deadlock() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock, match="no timer"):
        run_virtual(forever())


def test_two_that_wait_for_each_other_are_a_deadlock_once_every_timer_has_rung() -> None:
    rang = []

    async def embrace() -> None:
        first, second = asyncio.Lock(), asyncio.Lock()

        async def take(mine: asyncio.Lock, other: asyncio.Lock) -> None:
            async with mine:
                await asyncio.sleep(1)
                rang.append(asyncio.get_running_loop().time())
                async with other:
                    pass

        await asyncio.gather(take(first, second), take(second, first))

    with pytest.raises(Deadlock):
        run_virtual(embrace())
    assert rang == [1, 1]


def test_deadlines_are_virtual_too() -> None:
    async def late() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.Event().wait()
        return asyncio.get_running_loop().time()

    assert run_virtual(late()) == 3600


def test_whoever_goes_round_in_one_instant_is_found() -> None:
    async def circle() -> None:
        loop = asyncio.get_running_loop()

        def round_and_round() -> None:
            loop.call_soon(round_and_round)

        round_and_round()
        await asyncio.sleep(1)

    with pytest.raises(Deadlock, match="in one instant"):
        run_virtual(circle())
