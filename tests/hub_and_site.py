"""A hub and sites as `windfall hub up` and `windfall site join` run them: process trees of their own, folders of their
own, and an address of their own for the hub's doors."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from windfall.cli.identity.desk import asked
from windfall.cli.identity.folders import HubFolder
from windfall.contracts.subjects import HUB
from windfall.servicekit.nats_access import Access
from windfall.servicekit.nats_client import connected
from windfall.servicekit.natsserver import free_port

SECONDS = 90.0
DOORS = "127.0.0.2"
COMMAND = (sys.executable, "-m", "windfall.cli")


@dataclass
class Running:
    """A `windfall` that runs, and what it has said on standard error."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)
    _more: asyncio.Event = field(default_factory=asyncio.Event)
    _silent: bool = False

    async def listen(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode().rstrip())
            self._more.set()
        self._silent = True
        self._more.set()

    async def says(self, part: str) -> str:
        """Wait for a line with this in it."""
        async with asyncio.timeout(SECONDS):
            while True:
                self._more.clear()
                for line in self.lines:
                    if part in line:
                        return line
                assert not self._silent, self.lines
                await self._more.wait()


@asynccontextmanager
async def windfall(
    *words: str | Path, environ: Mapping[str, str] | None = None, before: Sequence[str] = ()
) -> AsyncIterator[Running]:
    """The command, until the block ends; then it is asked to end, and must.

    Args:
        before: what makes it run elsewhere.
    """
    process = await asyncio.create_subprocess_exec(
        *before,
        *COMMAND,
        *map(str, words),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environ or {})},
        start_new_session=True,
    )
    running = Running(process)
    listening = asyncio.create_task(running.listen())
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(SECONDS):
            await process.wait()
            await listening


async def told(*words: str | Path, environ: Mapping[str, str] | None = None) -> tuple[int, str, str]:
    """Run the command to its end: exit code, standard output, standard error."""
    process = await asyncio.create_subprocess_exec(
        *COMMAND,
        *map(str, words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environ or {})},
    )
    async with asyncio.timeout(SECONDS):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode().strip(), err.decode().strip()


@dataclass(frozen=True)
class HubProcess:
    """A hub that stands."""

    folder: HubFolder
    running: Running
    enrolment: str
    nats_port: int

    async def site(self, *words: str) -> str:
        """What `windfall site WORDS` prints here."""
        code, out, err = await told("site", *words, "--dir", self.folder.path)
        assert code == 0, err
        return out

    async def ask(self, ask: str, **about: Any) -> Any:
        """The same at the desk itself, without a command's start."""
        return await asked(self.folder.path, ask, **about)

    async def token(self, site: str, lasts_s: float = 3600) -> str:
        """A one-time token."""
        return str(await self.ask("token", site=site, lasts_s=lasts_s))

    @asynccontextmanager
    async def admin(self) -> AsyncIterator[Any]:
        """A client that may do everything in the hub's domain."""
        access = Access(nkey=self.folder.nkeys / "admin.nk", inbox=f"_INBOX.{HUB}")
        client = await connected(f"nats://127.0.0.1:{self.nats_port}", access)
        try:
            yield client
        finally:
            await client.close()


@asynccontextmanager
async def hub(folder: Path, *words: str, ports: Sequence[int] = (), doors: str = DOORS) -> AsyncIterator[HubProcess]:
    """A hub, from when it stands until the block ends.

    Args:
        doors: the address at which it is reached.
    """
    enrolment, leaf, coordinator, nats = ports or [free_port() for _ in range(4)]
    where = ("--port", enrolment, "--leaf-port", leaf, "--coordinator-port", coordinator, "--nats-port", nats)
    async with windfall("hub", "up", "--dir", folder, "--listen", doors, *map(str, where), *words) as running:
        await running.says("the hub stands")
        yield HubProcess(HubFolder(folder), running, f"{doors}:{enrolment}", nats)
