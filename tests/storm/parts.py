"""Processes that are killed with -9 and started anew, and when they were away."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]


@dataclass
class Away:
    """From a kill until whoever was killed works again; none while it does not."""

    since: datetime
    until: datetime | None = None


@dataclass
class Part:
    """One process.

    Args:
        name: by which the storm knows it.
        command: what is started.
        environ: beside this process's own.
        log: where its stderr goes, all its lives in one file.
        hears: told each line of its stdout.
    """

    name: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    log: Path
    hears: Callable[[str], None] = lambda line: None
    kills: int = 0
    away: list[Away] = field(default_factory=list)
    broke: list[int] = field(default_factory=list)
    """Exit codes with which it ended although nobody had killed it."""
    running: asyncio.subprocess.Process | None = None
    _reading: asyncio.Task[None] | None = None
    _ending: bool = False

    async def start(self) -> None:
        with self.log.open("ab") as output:
            self.running = await asyncio.create_subprocess_exec(
                *self.command,
                env={**os.environ, **self.environ},
                cwd=ROOT,
                stdout=asyncio.subprocess.PIPE,
                stderr=output,
                limit=2**22,
            )
        self._ending = False
        self._reading = asyncio.create_task(self._read(self.running), name=f"stdout of {self.name}")

    def works(self) -> None:
        """It has said so."""
        if self.away and self.away[-1].until is None:
            self.away[-1].until = datetime.now(UTC)

    async def kill(self) -> None:
        """-9, and it stays away."""
        self.kills += 1
        self.away.append(Away(datetime.now(UTC)))
        await self.end()

    async def end(self, how: signal.Signals = signal.SIGKILL) -> int:
        """Its exit code; 0 where it never ran."""
        if self.running is None:
            return 0
        assert self._reading is not None
        self._ending = True
        if self.running.returncode is None:
            self.running.send_signal(how)
        code = await self.running.wait()
        await self._reading
        return code

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            if line.endswith(b"\n"):
                self.hears(line.decode())
        code = await process.wait()
        if not self._ending:
            self.broke.append(code)


@dataclass
class Told:
    """What the provisioners of a worker say of themselves."""

    live: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)
    """By site: id, state and window of each lease that is held."""
    up: set[str] = field(default_factory=set)
    adopted: set[str] = field(default_factory=set)
    works: Callable[[], None] = lambda: None
    """Called once all of its sites are up."""
    sites: frozenset[str] = frozenset()

    def hear(self, line: str) -> None:
        said: dict[str, Any] = json.loads(line)
        if "live" in said:
            self.live[said["site"]] = [tuple(one) for one in said["live"]]
        elif "adopted" in said:
            self.adopted.add(said["adopted"])
        else:
            self.up.add(said["up"])
            if self.up == self.sites:
                self.works()

    def forget(self) -> None:
        """Its worker was killed: what it said last counts no more."""
        self.live, self.up, self.adopted = {}, set(), set()
