"""Where a trainer stands: its session, and whoever waits for it to change."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

from windfall.servicekit.instruments import BARRIER_WAIT
from windfall.servicekit.metrics import record
from windfall.site_trainer.barrier import Barrier
from windfall.site_trainer.session import Session


class Course:
    """The session as it is now.

    Args:
        site: whose.
        moved: called after every change.
    """

    def __init__(self, session: Session, site: str, moved: Callable[[Session], None]) -> None:
        self.session = session
        self.changed = asyncio.Event()
        self._site = site
        self._moved = moved
        self._barrier = Barrier()

    def become(self, session: Session) -> None:
        """Go over to what follows."""
        if session == self.session:
            return
        waited_s = self._barrier.passed(self.session, session, now_s())
        if waited_s is not None:
            record(BARRIER_WAIT, waited_s, {"windfall.site": self._site})
        self.session = session
        self.changed.set()
        self._moved(session)

    async def rest(self, wall: timedelta) -> bool:
        """Wait, but not past a change of the session; whether there was one."""
        self.changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, wall.total_seconds())):
                await self.changed.wait()
        return self.changed.is_set()


def now_s() -> float:
    """Seconds on the event loop's own clock: wall time, or virtual time in a fleet that runs on it."""
    return asyncio.get_running_loop().time()
