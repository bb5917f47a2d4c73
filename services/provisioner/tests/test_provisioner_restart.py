"""The provisioner as a process, on a real bus, with real nodes: killed with -9, and stopped."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import psutil

from windfall.contracts.envelope import seal
from windfall.contracts.events import NodeReady, NodeReleased, WindowClosed, WindowOpened
from windfall.contracts.message import Message
from windfall.contracts.subjects import site_streams
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.natsserver import NatsServer
from windfall.servicekit.testing.kube_played.persistence import persist

SITE = "site-a"
SECONDS = 90.0
STAND_IN = (sys.executable, "-I", "-S", str(Path(__file__).with_name("stand_in.py")))
ROOT = f"""
from pathlib import Path
from windfall.provisioner import backends, process
backends.BACKENDS["process"] = lambda settings: process.ProcessBackend(settings.state_dir, {STAND_IN!r})
import runpy
runpy.run_module("windfall.provisioner", run_name="__main__")
"""


class Ear:
    """Speaks to and listens to the provisioner as the rest of the site does."""

    def __init__(self, url: str) -> None:
        self.bus = NatsBus(url, "profiler", site_streams(SITE), lambda mistake: None, lambda: None)
        self.heard: asyncio.Queue[Message] = asyncio.Queue()
        for kind in (NodeReady, NodeReleased):
            self.bus.hears(kind, SITE, self.hear)

    async def hear(self, message: Message) -> None:
        self.heard.put_nowait(message)

    async def next(self) -> Message:
        async with asyncio.timeout(SECONDS):
            return await self.heard.get()

    async def opens(self, window: UUID) -> None:
        at = datetime.now(UTC)
        said = WindowOpened(
            id=uuid4(), at=at, site=SITE, window_id=window, intensity_g_per_kwh=20, expected_close_at=None
        )
        await persist(lambda: self.bus.publish(seal(said, "/test")))

    async def closes(self, window: UUID) -> None:
        at = datetime.now(UTC)
        said = WindowClosed(id=uuid4(), at=at, site=SITE, window_id=window, reason="dirty", crossed_at=at)
        await persist(lambda: self.bus.publish(seal(said, "/test")))


@asynccontextmanager
async def ear(server: NatsServer) -> AsyncIterator[Ear]:
    ear = Ear(server.url)
    await ear.bus.start()
    try:
        yield ear
    finally:
        await ear.bus.stop()


@asynccontextmanager
async def provisioner(server: NatsServer, folder: Path, **environ: str) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {
        **os.environ,
        "WINDFALL_SITE": SITE,
        "WINDFALL_STATE_DIR": str(folder),
        "WINDFALL_NATS_URL": server.url,
        **environ,
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", ROOT, env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def nodes(folder: Path) -> list[psutil.Process]:
    """Everything that runs with this site's mark, found as a person would."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("WINDFALL_READY_FILE", "").startswith(str(folder)):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


async def test_killed_and_started_again_it_adopts_and_releases_once(nats_server: NatsServer, tmp_path: Path) -> None:
    window = uuid4()
    async with ear(nats_server) as site:
        async with provisioner(nats_server, tmp_path) as first:
            await site.opens(window)
            ready = await site.next()
            assert isinstance(ready, NodeReady)
            (node,) = nodes(tmp_path)
            first.send_signal(signal.SIGKILL)
            await first.wait()
        assert nodes(tmp_path) == [node]
        async with provisioner(nats_server, tmp_path) as second:
            await site.closes(window)
            released = await site.next()
            assert isinstance(released, NodeReleased)
            assert (released.lease_token, released.node) == (ready.lease_token, ready.node)
            assert not nodes(tmp_path)
            second.send_signal(signal.SIGTERM)
            assert await second.wait() == 0
        assert site.heard.empty()


async def test_stopped_with_release_it_leaves_nothing_running(nats_server: NatsServer, tmp_path: Path) -> None:
    async with ear(nats_server) as site:
        async with provisioner(nats_server, tmp_path, WINDFALL_ON_STOP="release") as process:
            await site.opens(window := uuid4())
            assert isinstance(await site.next(), NodeReady)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        assert not nodes(tmp_path)
        # And the window that is still open gets another node from the next one, which also says whatever the first one
        # could not say at once.
        async with provisioner(nats_server, tmp_path, WINDFALL_ON_STOP="release") as process:
            released = await site.next()
            assert isinstance(released, NodeReleased)
            assert released.reason == "drained"
            ready = await site.next()
            assert isinstance(ready, NodeReady)
            assert (ready.window_id, ready.lease_token) == (window, 2)
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
