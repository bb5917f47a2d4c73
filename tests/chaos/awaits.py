"""Tasks that die where they go on after they have waited: each step of each task of a service can be its last."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from contextvars import ContextVar, copy_context
from typing import Any, TypeVar, cast

from tests.chaos.mortal import Crashed, Doom

T = TypeVar("T")

WHOSE: ContextVar[Doom | None] = ContextVar("whose", default=None)
"""The fate of the service whose code runs; none of what belongs to the simulation."""


class Mortal(Coroutine[Any, Any, Any]):
    """A coroutine that is thrown ``Crashed`` instead of its next step, when its service has had its last."""

    def __init__(self, work: Coroutine[Any, Any, Any]) -> None:
        self._work = work

    def send(self, value: Any) -> Any:
        doom = WHOSE.get()
        if doom is not None and doom.awaits is not None:
            doom.awaits -= 1
            if doom.awaits <= 0:
                try:
                    doom.die()
                except Crashed as crashed:
                    return self._work.throw(crashed)
        return self._work.send(value)

    def throw(self, *told: Any) -> Any:
        return self._work.throw(*told)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._work.__await__()


def mortal_tasks(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T] | Generator[Any, None, T], **told: Any
) -> asyncio.Task[T]:
    """A task factory of such coroutines. What closes an asynchronous generator looks like a plain one."""
    return asyncio.Task(Mortal(cast(Coroutine[Any, Any, T], work)), loop=loop, **told)


async def apart(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run what starts a service in a task of its own: whoever called does not become that service."""
    return await asyncio.get_running_loop().create_task(work(), context=copy_context())
