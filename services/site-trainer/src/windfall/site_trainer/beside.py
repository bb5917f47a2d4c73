"""What goes on beside training, one thing at a time. What breaks there is met where training goes on."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Beside:
    """At most one task.

    Args:
        done: called when it has ended, however it did.
    """

    def __init__(self, done: Callable[[], None]) -> None:
        self._done = done
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Something is under way, or broke and nobody has looked yet."""
        return self._task is not None

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Start it; nothing else may be under way."""
        self._task = asyncio.get_running_loop().create_task(work, name="beside training")
        self._task.add_done_callback(self._ended)

    def look(self) -> None:
        """Raise what it broke with, once."""
        if self._task is not None and self._task.done():
            task, self._task = self._task, None
            task.result()

    async def end(self) -> None:
        """Cancel it, and wait until it has ended. What it had broken with is raised."""
        if (task := self._task) is None:
            return
        task.cancel()
        await asyncio.wait([task])
        self._task = None
        if not task.cancelled():
            task.result()

    def cancel(self) -> None:
        """Let it end, whenever it does."""
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if task is self._task and (task.cancelled() or task.exception() is None):
            self._task = None
        self._done()
