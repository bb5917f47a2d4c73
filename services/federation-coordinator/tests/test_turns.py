"""Turns: a few streams at a time, in order, and nobody is kept from anything by one that its link holds back."""

import asyncio
from datetime import timedelta

from windfall.federation_coordinator.turns import Turns

MUCH = 16 * 1024 * 1024
LONG = timedelta(hours=1)


class Stream:
    """Takes its turn and keeps it until it is told to end."""

    def __init__(self, turns: Turns, nbytes: int = MUCH) -> None:
        self.began = asyncio.Event()
        self.ends = asyncio.Event()
        self.task = asyncio.create_task(self._run(turns, nbytes))

    async def _run(self, turns: Turns, nbytes: int) -> None:
        async with turns.one(nbytes):
            self.began.set()
            await self.ends.wait()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_so_many_at_once_and_then_in_order() -> None:
    turns = Turns(at_once=2, longest=LONG)
    streams = [Stream(turns) for _ in range(4)]
    await settled()
    assert [one.began.is_set() for one in streams] == [True, True, False, False]
    streams[1].ends.set()
    await settled()
    assert [one.began.is_set() for one in streams] == [True, True, True, False]
    # One that is cancelled while it waits, or while it has its turn, keeps nothing.
    streams[3].task.cancel()
    streams[2].task.cancel()
    late = Stream(turns)
    await late.began.wait()
    for one in (*streams, late):
        one.ends.set()
    await asyncio.gather(*(one.task for one in (*streams, late)), return_exceptions=True)


async def test_a_few_bytes_wait_for_nobody() -> None:
    turns = Turns(at_once=1, longest=LONG)
    big, small = Stream(turns), Stream(turns, nbytes=1000)
    await small.began.wait()
    assert big.began.is_set()
    for one in (big, small):
        one.ends.set()
        await one.task


async def test_a_stream_that_takes_long_has_had_its_turn_and_goes_on() -> None:
    turns = Turns(at_once=1, longest=timedelta(milliseconds=20))
    slow, next_one = Stream(turns), Stream(turns)
    await next_one.began.wait()
    assert not slow.task.done()
    for one in (slow, next_one):
        one.ends.set()
        await one.task
