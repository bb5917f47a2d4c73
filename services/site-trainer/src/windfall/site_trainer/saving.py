"""Checkpoints beside training: a snapshot is taken between two steps, and written while the next ones run.

A checkpoint spares work after a crash; without one, what is trained still arrives. So a disk that refuses is said in
the log, and training goes on.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

from windfall.servicekit.offload import Offload
from windfall.site_trainer.engine import Engine

log = logging.getLogger(__name__)

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class Saving:
    """Saves one engine's work every so often.

    Args:
        path: where; none keeps it nowhere.
        every: wall time from one snapshot to the next; a write that takes longer delays the next.
        offload: takes snapshots and writes them.
        spawn: starts what runs beside training.
    """

    def __init__(self, path: Path | None, every: timedelta, offload: Offload, spawn: Spawn) -> None:
        self._path, self._every, self._offload, self._spawn = path, every, offload, spawn
        self._last = asyncio.get_running_loop().time()
        self._writing: asyncio.Task[None] | None = None

    async def when_due(self, engine: Engine) -> None:
        """Between two steps: take a snapshot if it is time, and leave the writing to another thread."""
        now = asyncio.get_running_loop().time()
        busy = self._writing is not None and not self._writing.done()
        if self._path is None or busy or now - self._last <= self._every.total_seconds():
            return
        self._last = now
        write = await self._offload(engine.snapshot)
        self._writing = self._spawn(self._written(write, self._path), "checkpoint")

    async def now(self, engine: Engine) -> None:
        """Save and wait for it: nothing is trained any more."""
        if self._writing is not None:
            await self._writing
        self._last = asyncio.get_running_loop().time()
        if self._path is not None:
            await self._written(engine.save, self._path)

    async def _written(self, write: Callable[[Path], None], path: Path) -> None:
        try:
            await self._offload(write, path)
        except OSError as error:
            log.error("no checkpoint: %s. Free space, or make WINDFALL_STATE_DIR writable; training goes on", error)
