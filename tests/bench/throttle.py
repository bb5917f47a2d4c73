"""A process that gets a share of the processor time that it would have, as on a machine so many times slower.

It is stopped and let go on many times a second (SIGSTOP, SIGCONT), all its threads at once: what it measures of itself
is slower too, and it needs no cgroup that we may write.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

PERIOD_S = 0.04
"""Shorter than a step and longer than a scheduler's slice."""


@asynccontextmanager
async def throttled(pid: int, share: float) -> AsyncIterator[None]:
    """As long as the context lasts; a process that ends meanwhile is let be."""
    task = asyncio.create_task(_throttle(pid, share))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def _throttle(pid: int, share: float) -> None:
    now = asyncio.get_running_loop().time
    at = now()
    with suppress(ProcessLookupError):
        while True:
            os.kill(pid, signal.SIGSTOP)
            # By the clock: a sleep that lasts too long is made up for by the next one.
            await asyncio.sleep(max(0.0, at + PERIOD_S * (1 - share) - now()))
            os.kill(pid, signal.SIGCONT)
            at += PERIOD_S
            await asyncio.sleep(max(0.0, at - now()))
            at = max(at, now() - PERIOD_S)
