"""Names of what is to be reconciled: each once, never twice at a time, and again after a while where that failed."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from windfall.provisioner.operator.store import Owner
from windfall.servicekit.clock import Clock
from windfall.servicekit.errors import Mistake, Transient

log = logging.getLogger(__name__)

_FIRST: Final = timedelta(milliseconds=200)
_MOST: Final = timedelta(seconds=30)
_AFTER_A_MISTAKE: Final = timedelta(minutes=5)
"""What a person must mend may be mended where nothing is seen of it, like a role."""


class WorkQueue:
    """
    Args:
        work: reconciles one; says after how long it wants to be called again, if it does.
        workers: how many are reconciled at a time.
    """

    def __init__(self, work: Callable[[Owner], Awaitable[timedelta | None]], clock: Clock, workers: int = 8) -> None:
        self._work = work
        self._clock = clock
        self._workers = workers
        self._waiting: dict[Owner, None] = {}
        self._busy: set[Owner] = set()
        self._again: set[Owner] = set()
        self._timers: dict[Owner, asyncio.Task[None]] = {}
        self._failures: dict[Owner, int] = {}
        self._some = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def add(self, owner: Owner) -> None:
        if (timer := self._timers.pop(owner, None)) is not None:
            timer.cancel()
        self._idle.clear()
        if owner in self._busy:
            self._again.add(owner)
            return
        self._waiting[owner] = None
        self._some.set()

    def add_after(self, owner: Owner, delay: timedelta) -> None:
        """Unless it is called before for another reason."""
        if owner in self._waiting or owner in self._again:
            return
        if (timer := self._timers.pop(owner, None)) is not None:
            timer.cancel()
        self._timers[owner] = asyncio.get_running_loop().create_task(self._later(owner, delay))

    async def idle(self) -> None:
        """Wait until nothing is to be done now."""
        await self._idle.wait()

    async def run(self) -> None:
        """For ever; ends its timers when it is cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._serve())
        finally:
            for timer in self._timers.values():
                timer.cancel()
            await asyncio.gather(*self._timers.values(), return_exceptions=True)
            self._timers.clear()

    async def _later(self, owner: Owner, delay: timedelta) -> None:
        await self._clock.sleep(delay)
        del self._timers[owner]
        self.add(owner)

    async def _serve(self) -> None:
        while True:
            while not self._waiting:
                self._some.clear()
                await self._some.wait()
            owner = next(iter(self._waiting))
            del self._waiting[owner]
            self._busy.add(owner)
            after = await self._done(owner)
            self._busy.remove(owner)
            if owner in self._again:
                self._again.remove(owner)
                self._waiting[owner] = None
                self._some.set()
            elif after is not None:
                self.add_after(owner, after)
            if not (self._waiting or self._busy):
                self._idle.set()

    async def _done(self, owner: Owner) -> timedelta | None:
        try:
            after = await self._work(owner)
        except Transient as error:
            failures = self._failures[owner] = self._failures.get(owner, 0) + 1
            wait = pause(failures)
            log.log(logging.WARNING if failures == 3 else logging.DEBUG, "%s %s: %s", owner[0].kind, owner[1], error)
            return max(wait, error.retry_after or timedelta())
        except Mistake as mistake:
            log.error("%s %s: %s", owner[0].kind, owner[1], mistake)
            return _AFTER_A_MISTAKE
        self._failures.pop(owner, None)
        return after


def pause(failures: int) -> timedelta:
    """Doubles with each failure in a row; at random, so that not all come at once."""
    longest: timedelta = min(_MOST, _FIRST * 2 ** min(failures - 1, 10))
    return longest * random.uniform(0.5, 1.0)
