"""A process that gets so much processor time and no more, as on a slower machine or under a cgroup's quota.

It is stopped when it has used up what it may and goes on when it may again (SIGSTOP, SIGCONT), all its threads at once,
many times a second: whatever it measures of itself is slower too. No cgroup has to be ours for it, and what others take
of the processor meanwhile changes little.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

_LOOK_S: Final = 0.005
_CREDIT_S: Final = 0.02
"""Of processor time, that may be saved up while it does nothing."""


def used_s(pid: int) -> float:
    """Seconds of processor time of all threads that live, to the nanosecond (``schedstat``, proc(5))."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):
            total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


@asynccontextmanager
async def throttled(pid: int, per_s: float) -> AsyncIterator[None]:
    """As long as the context lasts; a process that ends meanwhile is let be.

    Args:
        per_s: seconds of processor time in a second.
    """
    task = asyncio.create_task(_throttle(pid, per_s))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


async def _throttle(pid: int, per_s: float) -> None:
    now = asyncio.get_running_loop().time
    at, before, credit_s, runs = now(), used_s(pid), 0.0, True
    with suppress(ProcessLookupError, FileNotFoundError):
        while True:
            await asyncio.sleep(_LOOK_S)
            passed, used = now() - at, used_s(pid) - before
            at, before = at + passed, before + used
            # A debt is paid back in full: on average it gets what it may, however late we look.
            credit_s = min(_CREDIT_S, credit_s + per_s * passed - used)
            if runs != (credit_s > 0):
                runs = not runs
                os.kill(pid, signal.SIGCONT if runs else signal.SIGSTOP)
