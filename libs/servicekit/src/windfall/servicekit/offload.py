"""Blocking work beside the event loop."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Protocol, TypeVar

T = TypeVar("T")


class Offload(Protocol):
    """Runs blocking work: ``asyncio.to_thread`` beside the event loop, or a double in place, on virtual time."""

    def __call__(self, work: Callable[..., T], /, *arguments: object) -> Awaitable[T]: ...


async def finished(doing: asyncio.Future[T]) -> T:
    """Disk work is never left half-way: a caller who goes away meanwhile, even twice, waits for its end."""
    try:
        return await asyncio.shield(doing)
    except asyncio.CancelledError:
        while not doing.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([doing])
        raise
