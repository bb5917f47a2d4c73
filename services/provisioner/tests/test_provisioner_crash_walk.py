"""The provisioner as a process with pods for nodes: killed at every edge it comes by, and at random; no lease is lost,
given back twice, or leaves anything behind."""

import asyncio
import os
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from windfall.contracts.envelope import seal
from windfall.contracts.events import NodeFailed, NodeReady, NodeReleased, WindowClosed, WindowOpened
from windfall.contracts.message import Message
from windfall.contracts.subjects import site_streams
from windfall.provisioner.crashpoints import POINTS
from windfall.provisioner.manifests.labels import SITE
from windfall.servicekit.kube import Cluster, Connection
from windfall.servicekit.kube.kinds import CONFIG_MAP, JOB, PDB, POD, SECRET
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.natsserver import NatsServer
from windfall.servicekit.testing.kube_api import kube_api
from windfall.servicekit.testing.kube_played import played
from windfall.servicekit.testing.kube_played.persistence import persist

pytestmark = pytest.mark.slow

NAME = "site-a"
SECONDS = 120.0
CHAIN = tuple(POINTS)
"""They stand in the order in which a lease comes by."""


class Ear:
    """Speaks to the provisioner and listens to it as the rest of the site does."""

    def __init__(self, url: str) -> None:
        self.bus = NatsBus(url, "profiler", site_streams(NAME), lambda mistake: None, lambda: None)
        self.heard: list[Message] = []
        self.change = asyncio.Event()
        for kind in (NodeReady, NodeReleased, NodeFailed):
            self.bus.hears(kind, NAME, self.hear)

    async def hear(self, message: Message) -> None:
        self.heard.append(message)
        self.change.set()

    async def until(self, kind: type[Message], count: int) -> None:
        async with asyncio.timeout(SECONDS):
            while sum(isinstance(message, kind) for message in self.heard) < count:
                self.change.clear()
                await self.change.wait()

    async def opens(self) -> UUID:
        window, at = uuid4(), datetime.now(UTC)
        said = WindowOpened(
            id=uuid4(), at=at, site=NAME, window_id=window, intensity_g_per_kwh=20, expected_close_at=None
        )
        await persist(lambda: self.bus.publish(seal(said, "/test")))
        return window

    async def closes(self, window: UUID) -> None:
        at = datetime.now(UTC)
        said = WindowClosed(id=uuid4(), at=at, site=NAME, window_id=window, reason="dirty", crossed_at=at)
        await persist(lambda: self.bus.publish(seal(said, "/test")))


class Supervised:
    """A provisioner that is started again whenever it dies."""

    def __init__(self, told: dict[str, str], crash_at: tuple[str, ...] = ()) -> None:
        self._told, self._crash_at = told, crash_at
        self.deaths = 0
        self.process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        while True:
            at = "".join(self._crash_at[self.deaths : self.deaths + 1])
            environment = {**os.environ, **self._told, "WINDFALL_CRASH_AT": at}
            command = (sys.executable, "-m", "windfall.provisioner")
            self.process = await asyncio.create_subprocess_exec(*command, env=environment)
            assert await self.process.wait() == -signal.SIGKILL
            self.deaths += 1

    def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()


@asynccontextmanager
async def site(
    server: NatsServer, folder: Path, crash_at: tuple[str, ...] = ()
) -> AsyncIterator[tuple[Ear, Supervised]]:
    """A site whose nodes are pods of the double. Once it is left, nothing of a lease may be there."""
    ear = Ear(server.url)
    await ear.bus.start()
    async with (
        kube_api(folder) as (_, kubeconfig),
        Cluster.connect(Connection(kubeconfig)) as cluster,
        played(kubeconfig),
    ):
        told = {
            "WINDFALL_SITE": NAME,
            "WINDFALL_STATE_DIR": str(folder / "provisioner"),
            "WINDFALL_NATS_URL": server.url,
            "WINDFALL_BACKEND": "kubernetes",
            "WINDFALL_KUBECONFIG": str(kubeconfig),
            "WINDFALL_KUBE_IMAGE": "trainer:1",
            "WINDFALL_KUBE_WORKERS": "2",
            "WINDFALL_ATTEMPTS": "50",
        }
        provisioner = Supervised(told, crash_at)
        running = asyncio.create_task(provisioner.run())
        yield ear, provisioner
        async with asyncio.timeout(SECONDS):
            while await left(cluster):  # noqa: ASYNC110 - an API server sets no events
                await asyncio.sleep(0.05)
        running.cancel()
        provisioner.kill()
        assert provisioner.process is not None
        await provisioner.process.wait()
    await ear.bus.stop()


async def left(cluster: Cluster) -> list[str]:
    """What there is of leases; the site's anchor is none's."""
    found = []
    for kind in (CONFIG_MAP, SECRET, JOB, POD, PDB):
        listing = await cluster.list(kind, "default", labels=f"{SITE}={NAME}")
        found += [item["metadata"]["name"] for item in listing.items]
    return [name for name in found if name != f"windfall-{NAME}"]


async def test_it_dies_at_every_edge_of_a_lease(nats_server: NatsServer, tmp_path: Path) -> None:
    async with site(nats_server, tmp_path, CHAIN) as (ear, provisioner):
        window = await ear.opens()
        await ear.until(NodeReady, 1)
        await ear.closes(window)
        await ear.until(NodeReleased, 1)
        assert provisioner.deaths == len(CHAIN)
    ready, released = ear.heard
    assert isinstance(ready, NodeReady)
    assert isinstance(released, NodeReleased)


async def test_it_dies_at_any_moment(nats_server: NatsServer, tmp_path: Path) -> None:
    chance = random.Random(6)
    windows = 5
    async with site(nats_server, tmp_path) as (ear, provisioner):

        async def chaos() -> None:
            while True:
                await asyncio.sleep(chance.uniform(0.3, 4))
                provisioner.kill()

        falling = asyncio.create_task(chaos())
        for count in range(1, windows + 1):
            window = await ear.opens()
            await asyncio.sleep(chance.uniform(0, 4))
            await ear.closes(window)
            await asyncio.sleep(chance.uniform(0, 2))
            if count == windows:
                falling.cancel()
        # Whether a window that was closed at once has had a lease is chance; each lease that there was ends once.
        probe = await ear.opens()
        async with asyncio.timeout(SECONDS):
            while not any(isinstance(said, NodeReady) and said.window_id == probe for said in ear.heard):
                ear.change.clear()
                await ear.change.wait()
        await ear.closes(probe)
        async with asyncio.timeout(SECONDS):
            while not any(isinstance(said, NodeReleased) and said.window_id == probe for said in ear.heard):
                ear.change.clear()
                await ear.change.wait()
    ends = Counter(said.lease_token for said in ear.heard if isinstance(said, NodeReleased | NodeFailed))
    assert set(ends.values()) == {1}
    assert sorted(ends) == list(range(1, max(ends) + 1))
    assert provisioner.deaths > 1
