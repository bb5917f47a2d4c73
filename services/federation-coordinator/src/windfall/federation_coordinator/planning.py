"""The plan in the live fleet: hear what sites say of their power, plan on the clock, order and say it.

Only with an objective other than *fast*. What the coordinator itself says is known here without the bus, and lies in
the journal with the decision that it follows from.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from pydantic import BaseModel, ConfigDict

from windfall.contracts.events import (
    EnergyRecorded,
    NodeReady,
    PlanMade,
    SignalForecast,
    SignalRecovered,
    SignalStale,
    SiteEvent,
    TrainingStarted,
    WindowClosed,
    WindowExpected,
    WindowOpened,
)
from windfall.contracts.message import Instant, Message
from windfall.energy.fleet import Fleet, SiteKnown, heard, is_news
from windfall.energy.fleetplan import decide, over
from windfall.energy.goal import Goal
from windfall.federation_coordinator.federation import Federation, Phase
from windfall.servicekit.offload import Offload
from windfall.servicekit.service import Stand

log = logging.getLogger(__name__)

SETTLE: Final = timedelta(minutes=1)
"""News are planned for so long after they came: forecasts of several sites come together."""
_STATE: Final = "planning"


class Memory(BaseModel):
    """What is remembered of planning itself."""

    model_config = ConfigDict(frozen=True)

    since: Instant
    """When it began."""
    last: PlanMade | None = None
    is_over: bool = False
    """The last orders are given."""


class Planning:
    """One federation's plan.

    Args:
        stand: of the coordinator.
        goal: what is to be reached.
        sites: that may take part.
        every: business time between two plans.
        offload: planning takes a moment.
    """

    def __init__(self, stand: Stand, goal: Goal, sites: Sequence[str], every: timedelta, offload: Offload) -> None:
        self._stand = stand
        self._goal = goal
        self._every = every
        self._offload = offload
        journal, now = stand.journal, stand.clock.now()
        self._memory = journal.load(_STATE, Memory) or Memory(since=now)
        known = {site: journal.load(_key(site), SiteKnown) or SiteKnown() for site in sites}
        self._fleet = Fleet(known, self._memory.since)
        last = self._memory.last
        # A clock that was set back meanwhile must not make it wait.
        self._due = now if last is None else min(last.at, now) + every
        self._woken = asyncio.Event()

    def attend(self, federation: Callable[[], Federation], conclude: Callable[[], None]) -> None:
        """Register handlers and plan from now on.

        Args:
            federation: how it stands.
            conclude: ends it, because its work is done.
        """
        bus = self._stand.bus
        bus.hears(SignalForecast, "*", self._hear)
        bus.hears(SignalStale, "*", self._hear)
        bus.hears(SignalRecovered, "*", self._hear)
        bus.hears(WindowExpected, "*", self._hear)
        bus.hears(WindowOpened, "*", self._hear)
        bus.hears(NodeReady, "*", self._hear)
        bus.hears(TrainingStarted, "*", self._hear)
        bus.hears(WindowClosed, "*", self._hear)
        bus.hears(EnergyRecorded, "*", self._hear)
        self._stand.journal.commit(state={_STATE: self._memory})
        self._stand.spawn(self._run(federation, conclude), "planning")

    def overhear(self, said: Sequence[Message]) -> Mapping[str, BaseModel]:
        """What the coordinator is about to say; gives what to keep of it in the same commit."""
        events = [message for message in said if isinstance(message, SiteEvent)]
        for event in events:
            self._learn(event)
        self._woken.set()
        return {_key(event.site): self._fleet.sites[event.site] for event in events if event.site in self._fleet.sites}

    async def _hear(self, event: SiteEvent) -> None:
        if self._learn(event):
            self._stand.journal.commit(state={_key(event.site): self._fleet.sites[event.site]})

    def _learn(self, event: SiteEvent) -> bool:
        """Whether it says anything new."""
        before, self._fleet = self._fleet, heard(self._fleet, event)
        if self._fleet == before:
            return False
        if is_news(before.sites[event.site], self._fleet.sites[event.site]):
            self._due = min(self._due, self._stand.clock.now() + SETTLE)
            self._woken.set()
        return True

    async def _run(self, federation: Callable[[], Federation], conclude: Callable[[], None]) -> None:
        while not self._memory.is_over:
            self._woken.clear()
            state, now = federation(), self._stand.clock.now()
            done = state.tokens_total + sum(one.tokens for one in state.contributions)
            if state.phase is Phase.FINISHED:
                self._give_back(done, now)
            elif state.stopping:
                await self._woken.wait()
            elif done >= self._goal.work_tokens:
                log.info("the work is done: %d of %d tokens", done, self._goal.work_tokens)
                conclude()
            elif now >= self._due:
                await self._plan(done, now)
            else:
                await self._rest()

    async def _plan(self, done: int, now: datetime) -> None:
        self._due = now + self._every
        decision = await self._offload(decide, self._fleet, self._goal, done, now)
        if decision is None:
            log.info("nothing is planned yet: no forecast counts, or nobody has trained")
            return
        self._memory = self._memory.model_copy(update={"last": decision.made})
        self._stand.journal.commit(state={_STATE: self._memory}, say=(decision.made, *decision.orders))
        self._stand.outbox.wake()
        log.info("%s", decision.made.because)

    def _give_back(self, done: int, now: datetime) -> None:
        self._memory = self._memory.model_copy(update={"is_over": True})
        because = "the work is done" if done >= self._goal.work_tokens else "the federation was stopped"
        self._stand.journal.commit(state={_STATE: self._memory}, say=over(self._fleet, self._goal, because, now))
        self._stand.outbox.wake()

    async def _rest(self) -> None:
        waits = [
            asyncio.ensure_future(self._woken.wait()),
            asyncio.ensure_future(self._stand.clock.sleep_until(self._due)),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


def _key(site: str) -> str:
    return f"site-{site}"
