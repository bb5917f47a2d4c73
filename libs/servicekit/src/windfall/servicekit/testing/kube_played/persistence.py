"""A controller asks again for as long as a server is away."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from windfall.servicekit.errors import Transient
from windfall.servicekit.kube import Conflict
from windfall.servicekit.kube.follow import pause

T = TypeVar("T")


async def persist(ask: Callable[[], Awaitable[T]]) -> T:
    """
    Raises:
        Conflict: the answer was one.
    """
    failures = 0
    while True:
        try:
            return await ask()
        except Conflict:
            raise
        except Transient as error:
            failures += 1
            await asyncio.sleep(max(pause(failures), error.retry_after or pause(0)).total_seconds())
