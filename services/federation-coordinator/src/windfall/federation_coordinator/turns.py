"""Turns for bulk streams, so that a hundred sites at once take no more memory than a few.

What a stream holds here is what arrives faster than it is written, or was read and is not yet sent: windows, chunks,
buffers. Streams that are as fast as they can be are therefore served one after the other. One that its link holds back
keeps next to nothing here, and must keep nobody from anything: its turn ends after a while, though it goes on.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Final

from windfall.servicekit.frames import AT_ONCE_BYTES

_AT_ONCE: Final = 8
_LONGEST: Final = timedelta(seconds=5)


Turn = Callable[[], Awaitable[None]]
"""Waits until it is one's turn."""


class Turns:
    """Turns are taken in the order in which they are asked for; a few bytes need none.

    Args:
        at_once: streams that have their turn at the same time.
        longest: wall time after which a stream that goes on has had its turn.
    """

    def __init__(self, at_once: int = _AT_ONCE, longest: timedelta = _LONGEST) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._longest_s = longest.total_seconds()

    @asynccontextmanager
    async def one(self, nbytes: int) -> AsyncIterator[None]:
        """Wait for a turn to move so many bytes."""
        async with self.later(nbytes) as turn:
            await turn()
            yield

    @asynccontextmanager
    async def later(self, nbytes: int) -> AsyncIterator[Turn]:
        """As ``one``, waiting when what it gives is called."""
        loop = asyncio.get_running_loop()
        over: list[asyncio.TimerHandle] = []

        async def turn() -> None:
            if nbytes > AT_ONCE_BYTES:
                await self._free.acquire()
                over.append(loop.call_later(self._longest_s, self._free.release))

        try:
            yield turn
        finally:
            for timer in over:
                # Past its time the timer gives the turn back itself.
                if timer.when() > loop.time():
                    timer.cancel()
                    self._free.release()
