"""Business time of a fleet in this process: what a busy machine keeps from the process is not lost to the fleet."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final

_TICK_S: Final = 0.02
_AT_MOST_S: Final = 0.05
"""Of wall time that passes between two ticks; what was more, the process did not have."""


class UnhurriedClock:
    """A trace's time, ``speed`` times as fast as the wall while the process has its turns. It stands at first."""

    def __init__(self, start: datetime, speed: float) -> None:
        self._ticked = start
        self._speed = speed
        self._ticked_at_s: float | None = None

    def now(self) -> datetime:
        return self._ticked + self._passed()

    def wall(self, duration: timedelta) -> timedelta:
        return duration / self._speed

    async def sleep(self, duration: timedelta) -> None:
        await self.sleep_until(self.now() + duration)

    async def sleep_until(self, at: datetime) -> None:
        await asyncio.sleep(0)
        while (left := at - self.now()) > timedelta():  # noqa: ASYNC110 - time sets no events
            await asyncio.sleep(max(_TICK_S, self.wall(left).total_seconds()))

    @asynccontextmanager
    async def going(self) -> AsyncIterator[None]:
        """Time passes until the block ends."""
        self._ticked_at_s = asyncio.get_running_loop().time()
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            await asyncio.wait([ticking])

    def _passed(self) -> timedelta:
        if self._ticked_at_s is None:
            return timedelta()
        passed_s = asyncio.get_running_loop().time() - self._ticked_at_s
        return timedelta(seconds=min(passed_s, _AT_MOST_S) * self._speed)

    async def _tick(self) -> None:
        while True:
            self._ticked += self._passed()
            self._ticked_at_s = asyncio.get_running_loop().time()
            await asyncio.sleep(_TICK_S)
