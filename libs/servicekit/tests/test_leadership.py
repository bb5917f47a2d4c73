"""One leads: over the real register and the double, on virtual time, and with what goes wrong between."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import nats
import pytest

from windfall.contracts.subjects import LEASES_BUCKET
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.leadership import Conflict, Entry, Leadership, Lease, Register, Sight, free, seen
from windfall.servicekit.nats_register import NatsRegister
from windfall.servicekit.testing.fixtures import started_server
from windfall.servicekit.testing.memory_register import MemoryRegister, MemoryStore
from windfall.servicekit.testing.virtual import run_virtual

LEASE = timedelta(seconds=3)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server on a busy machine may take longer for an answer than a leader has."""
    monkeypatch.setattr("windfall.servicekit.nats_register._TIMEOUT", timedelta(seconds=5))


# --- the register: one body over both ---------------------------------------------------------------------------------


@asynccontextmanager
async def registers(kind: str, folder: Path) -> AsyncIterator[tuple[Register, Register]]:
    """The same entry as two processes see it."""
    if kind == "memory":
        store = MemoryStore()
        yield MemoryRegister(store), MemoryRegister(store)
        return
    async with started_server(folder, "hub") as server:
        one, two = [await NatsRegister.connected(server.url, "federation-coordinator.demo") for _ in range(2)]
        try:
            yield one, two
        finally:
            await one.close()
            await two.close()


@pytest.mark.parametrize("kind", ["memory", "nats"])
async def test_only_who_knows_the_newest_revision_writes(kind: str, tmp_path: Path) -> None:
    async with registers(kind, tmp_path) as (one, two):
        assert await one.read() is None
        first = await one.write(Lease("a", 1), None)
        assert await two.read() == Entry(Lease("a", 1), first)
        with pytest.raises(Conflict):
            await two.write(Lease("b", 2), None)
        second = await two.write(Lease("b", 2), first)
        assert second > first
        with pytest.raises(Conflict):
            await one.write(Lease("a", 1), first)
        assert await one.read() == Entry(Lease("b", 2), second)


async def test_a_server_that_is_away_is_transient_and_a_lost_bucket_is_made_again(tmp_path: Path) -> None:
    async with started_server(tmp_path, "hub") as server:
        register = await NatsRegister.connected(server.url, "demo")
        try:
            revision = await register.write(Lease("a", 1), None)
            client = await nats.connect(server.url)
            await client.jetstream().delete_key_value(LEASES_BUCKET)
            await client.close()
            with suppress(Transient):
                assert await register.read() is None
            with pytest.raises((Conflict, Transient)):
                await register.write(Lease("a", 1), revision)
            assert await register.read() is None
            revision = await register.write(Lease("a", 1), None)
            assert await register.read() == Entry(Lease("a", 1), revision)
            await server.kill()
            with pytest.raises(Transient):
                await register.read()
            with pytest.raises(Transient):
                await register.write(Lease("a", 1), revision)
        finally:
            await register.close()


# --- whether to take it -----------------------------------------------------------------------------------------------


def test_a_lease_is_free_when_its_revision_has_not_moved_for_longer_than_it_lasts() -> None:
    entry = Entry(Lease("a", 1), 7)
    sight = seen(None, entry, 100.0)
    assert seen(sight, entry, 102.0) is sight
    assert not free(sight, 103.0, 3.0)
    assert free(sight, 103.1, 3.0)
    renewed = seen(sight, Entry(Lease("a", 1), 8), 103.1)
    assert (renewed.since_s, free(renewed, 104.0, 3.0)) == (103.1, False)
    assert free(seen(None, None, 0.0), 0.0, 3.0)
    assert free(Sight(Entry(Lease("", 4), 9), 0.0), 0.0, 3.0)


# --- on virtual time --------------------------------------------------------------------------------------------------


def leader(store: MemoryStore, name: str) -> Leadership:
    return Leadership(MemoryRegister(store), name, LEASE)


async def kept(leadership: Leadership) -> asyncio.Task[None]:
    keeping = asyncio.create_task(leadership.keep())
    await asyncio.sleep(0)
    return keeping


async def ended(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_who_stands_by_takes_over_soon_after_the_leader_is_silent_and_not_before() -> None:
    async def story() -> None:
        loop, store, told = asyncio.get_running_loop(), MemoryStore(), list[str]()
        first, second = leader(store, "a"), leader(store, "b")
        assert await first.lead() == 1
        keeping = await kept(first)
        waiting = asyncio.create_task(second.lead(told.append))
        await asyncio.sleep(3600)
        assert not waiting.done()
        await ended(keeping)
        dead_at = loop.time()
        assert await waiting == 2
        # The last renewal may be as old as the time between two of them.
        assert 2.0 <= loop.time() - dead_at <= 3.4
        assert told == ["a"]

    run_virtual(story())


def test_one_that_gives_it_back_is_followed_at_once() -> None:
    async def story() -> None:
        loop, store = asyncio.get_running_loop(), MemoryStore()
        first, second = leader(store, "a"), leader(store, "b")
        await first.lead()
        waiting = asyncio.create_task(second.lead())
        await asyncio.sleep(1)
        await first.release()
        at = loop.time()
        assert await waiting == 2
        assert loop.time() - at <= 0.3

    run_virtual(story())


def test_a_leader_that_slept_through_its_lease_is_deposed_and_its_successor_goes_on() -> None:
    async def story() -> None:
        store = MemoryStore()
        first, second = leader(store, "a"), leader(store, "b")
        await first.lead()
        assert await second.lead() == 2
        with pytest.raises(Mistake, match="has taken over"):
            await first.keep()
        await first.release()
        keeping = await kept(second)
        await asyncio.sleep(60)
        assert not keeping.done()
        await ended(keeping)

    run_virtual(story())


def test_of_many_that_stand_by_one_leads() -> None:
    async def story() -> None:
        store = MemoryStore()
        first = leader(store, "a")
        await first.lead()
        others = [leader(store, name) for name in "bcdef"]
        waiting = [asyncio.create_task(one.lead()) for one in others]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(1)
        assert [task.done() for task in waiting].count(True) == 1
        await asyncio.gather(*(ended_one(task) for task in waiting))

    async def ended_one(task: asyncio.Task[int]) -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run_virtual(story())


def test_while_the_register_is_away_nobody_takes_over_and_afterwards_the_leader_still_leads() -> None:
    async def story() -> None:
        store = MemoryStore()
        first, second = leader(store, "a"), leader(store, "b")
        await first.lead()
        keeping = await kept(first)
        waiting = asyncio.create_task(second.lead())
        await asyncio.sleep(10)
        store.down = True
        await asyncio.sleep(600)
        store.down = False
        await asyncio.sleep(60)
        assert not keeping.done()
        assert not waiting.done()
        await ended(keeping)
        assert await waiting == 2

    run_virtual(story())


def test_an_answer_that_is_lost_makes_no_leader_give_up() -> None:
    async def story() -> None:
        store = MemoryStore()
        first = leader(store, "a")
        await first.lead()
        keeping = await kept(first)
        for forgets in (True, False) * 20:
            store.forgets_answers = forgets
            await asyncio.sleep(1)
        assert not keeping.done()
        await ended(keeping)

    run_virtual(story())


def test_a_register_that_lost_everything_is_written_anew_and_the_journals_token_is_outbid() -> None:
    async def story() -> None:
        store = MemoryStore()
        first, second = leader(store, "a"), leader(store, "b")
        assert await first.lead() == 1
        assert await first.outbid(41) == 42
        store.lose()
        keeping = await kept(first)
        assert store.entry is not None
        assert store.entry.lease == Lease("a", 42)
        await ended(keeping)
        store.lose()
        assert await second.lead() == 1
        assert await second.outbid(42) == 43

    run_virtual(story())
