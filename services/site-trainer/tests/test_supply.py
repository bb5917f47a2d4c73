"""Rows are asked for before they are needed, and whatever the coordinator says is what is held."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import grpc
import pytest

from windfall.servicekit.errors import Transient
from windfall.servicekit.rpc import Refused
from windfall.servicekit.testing.virtual import run_virtual
from windfall.site_trainer import session as sessions
from windfall.site_trainer.session import Session, Work
from windfall.site_trainer.supply import Supply
from windfall.tasks.ranges import NONE, Ranges, minus, size, union

TRAINING = Session(attempt=1, round=3, base_digest="b", loaded="b", work=Work(5, 40, 1.0))


class Ledger:
    """A coordinator: leases in blocks of ten from the front, and says what is held."""

    def __init__(self, answer_s: float = 0.0) -> None:
        self.held: Ranges = NONE
        self.frontier = 0
        self.asked: list[int] = []
        self.answer_s = answer_s
        self.fails: list[Exception] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.most = 10**9

    async def ask(self, hold: int) -> Ranges:
        self.asked.append(hold)
        while size(self.held) < min(hold, self.most):
            self.held = union(self.held, ((self.frontier, self.frontier + 10),))
            self.frontier += 10
        held = self.held
        await asyncio.sleep(self.answer_s)
        if self.fails:
            raise self.fails.pop(0)
        return held

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.get_running_loop().create_task(work))
        return self.tasks[-1]

    def supply(self) -> Supply:
        return Supply(self.ask, self.spawn)

    async def settled(self) -> None:
        await asyncio.gather(*self.tasks, return_exceptions=True)


def play(story: Callable[[], Awaitable[None]]) -> None:
    async def live() -> None:
        await story()

    run_virtual(live())


async def draws(supply: Supply, count: int, trained: Ranges) -> Ranges:
    after, rows = await supply.draw(count, trained)
    assert after(TRAINING) == TRAINING
    return rows


def test_rows_come_in_order_each_once_and_never_later_than_they_are_needed() -> None:
    async def story() -> None:
        ledger = Ledger(answer_s=3)
        supply, trained, waited = ledger.supply(), NONE, []
        loop = asyncio.get_running_loop()
        for _ in range(100):
            began = loop.time()
            rows = await draws(supply, 4, trained)
            waited.append(loop.time() - began)
            assert size(rows) == 4
            assert not minus(trained, minus(trained, rows)), "none twice"
            trained = union(trained, rows)
            await asyncio.sleep(1)
        assert trained == ((0, 400),)
        assert waited[0] == 3, "nothing can be asked for before it is admitted"
        assert not any(waited[10:]), "a step of a second does not wait for answers that take three"
        await ledger.settled()
        assert ledger.frontier < 400 + 120, "no more is hoarded than the answers take"

    play(story)


def test_what_is_left_of_a_lease_is_a_smaller_step() -> None:
    async def story() -> None:
        ledger = Ledger()
        ledger.most = 10
        supply = ledger.supply()
        assert await draws(supply, 8, NONE) == ((0, 8),)
        await ledger.settled()
        assert await draws(supply, 8, ((0, 8),)) == ((8, 10),)

    play(story)


def test_when_no_more_is_to_be_had_the_work_is_contributed_first() -> None:
    async def story() -> None:
        ledger = Ledger()
        ledger.most = 10
        after, rows = await ledger.supply().draw(8, ((0, 10),))
        assert not rows
        assert after(TRAINING).local_steps == 5

    play(story)


def test_a_contribution_that_counts_is_not_trained_again_though_an_older_answer_names_it() -> None:
    async def story() -> None:
        ledger = Ledger(answer_s=3)
        supply = ledger.supply()
        assert await draws(supply, 4, NONE) == ((0, 4),)
        ledger.held = minus(ledger.held, ((0, 4),))
        supply.counted(((0, 4),))
        await ledger.settled()
        assert await draws(supply, 4, NONE) == ((4, 8),)

    play(story)


def test_rows_of_a_contribution_that_has_set_out_are_not_trained_again_meanwhile() -> None:
    async def story() -> None:
        ledger = Ledger()
        supply = ledger.supply()
        assert await draws(supply, 4, NONE) == ((0, 4),)
        _, rows = await supply.draw(4, NONE, away=((0, 4),))
        assert rows == ((4, 8),)
        supply.forget()
        _, rows = await supply.draw(4, ((4, 8),), away=((0, 4),))
        assert rows == ((8, 12),)

    play(story)


def test_after_a_refusal_the_coordinator_says_what_is_held() -> None:
    async def story() -> None:
        ledger = Ledger()
        supply = ledger.supply()
        assert await draws(supply, 4, NONE) == ((0, 4),)
        await ledger.settled()
        ledger.held = minus(ledger.held, ((0, 8),))
        supply.forget()
        assert await draws(supply, 4, NONE) == ((8, 12),)

    play(story)


def test_work_on_rows_that_are_anothers_by_now_is_begun_anew() -> None:
    async def story() -> None:
        ledger = Ledger()
        ledger.frontier = 100
        after, rows = await ledger.supply().draw(4, ((0, 4),))
        assert not rows
        anew = after(TRAINING)
        assert (anew.loaded, anew.work, anew.delivered) == ("", Work(), False)
        assert sessions.disowned(Session()).delivered, "where nothing was trained nothing is lost"

    play(story)


def test_who_is_no_member_joins_again() -> None:
    async def story() -> None:
        ledger = Ledger()
        ledger.fails = [Refused(grpc.StatusCode.NOT_FOUND, "no member")]
        after, rows = await ledger.supply().draw(4, NONE)
        assert not rows
        assert after(TRAINING).attempt is None

    play(story)


def test_a_coordinator_that_is_away_is_noticed_when_rows_run_out() -> None:
    async def story() -> None:
        ledger = Ledger()
        supply = ledger.supply()
        trained = await draws(supply, 4, NONE)
        await ledger.settled()
        held = ledger.held
        ledger.fails = [Transient("away")] * 100
        with pytest.raises(Transient):
            while True:
                trained = union(trained, await draws(supply, 4, trained))
                await ledger.settled()
        assert trained == held

    play(story)


def test_a_lost_answer_leases_nothing_twice() -> None:
    async def story() -> None:
        ledger = Ledger()
        ledger.fails = [Transient("lost")]
        supply = ledger.supply()
        with pytest.raises(Transient):
            await supply.draw(4, NONE)
        before = ledger.frontier
        assert await draws(supply, 4, NONE) == ((0, 4),)
        assert ledger.frontier == before

    play(story)
