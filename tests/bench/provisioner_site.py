"""One site as its provisioner meets it: a real bus, a real provisioner process, pods of a cluster that is played."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

from windfall.contracts.envelope import seal
from windfall.contracts.events import NodeFailed, NodeReady, NodeReleased, WindowClosed, WindowOpened
from windfall.contracts.message import Message
from windfall.contracts.subjects import site_streams
from windfall.provisioner.manifests.labels import SITE, TOKEN
from windfall.servicekit.kube import Cluster, Connection
from windfall.servicekit.kube.kinds import CONFIG_MAP
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.testing.fixtures import started_server
from windfall.servicekit.testing.kube_api import KubeApi, kube_api
from windfall.servicekit.testing.kube_played import Course, Kubelet, node, played

NAME: Final = "site-a"
_WAIT_S: Final = 120.0


@dataclass
class Site:
    """What is said to the site and what it says."""

    bus: NatsBus
    api: KubeApi
    course: Course = field(default_factory=Course)
    """Of the pods."""
    written: dict[int, float] = field(default_factory=dict)
    """When the cluster first had something of a lease, by its token; on the loop's clock."""
    said: "asyncio.Queue[tuple[float, Message]]" = field(default_factory=asyncio.Queue)
    change: asyncio.Event = field(default_factory=asyncio.Event)

    async def opens(self) -> UUID:
        window = uuid4()
        at = datetime.now(UTC)
        opened = WindowOpened(
            id=uuid4(), at=at, site=NAME, window_id=window, intensity_g_per_kwh=20, expected_close_at=None
        )
        await self.bus.publish(seal(opened, "/bench"))
        return window

    async def closes(self, window: UUID) -> None:
        at = datetime.now(UTC)
        closed = WindowClosed(id=uuid4(), at=at, site=NAME, window_id=window, reason="dirty", crossed_at=at)
        await self.bus.publish(seal(closed, "/bench"))

    async def hears(self, kind: type[Message]) -> float:
        """When the site said the next word of this kind."""
        async with asyncio.timeout(_WAIT_S):
            while True:
                at, message = await self.said.get()
                if isinstance(message, kind):
                    return at

    async def has_written(self, token: int) -> float:
        async with asyncio.timeout(_WAIT_S):
            while token not in self.written:
                self.change.clear()
                await self.change.wait()
        return self.written[token]

    async def hear(self, message: Message) -> None:
        self.said.put_nowait((asyncio.get_running_loop().time(), message))

    async def look(self, cluster: Cluster) -> None:
        async for change in cluster.follow(CONFIG_MAP, "default", labels=f"{SITE}={NAME}"):
            token = (change.object.get("metadata", {}).get("annotations") or {}).get(TOKEN)
            if token is not None:
                self.written.setdefault(int(token), asyncio.get_running_loop().time())
                self.change.set()


@asynccontextmanager
async def site(folder: Path, grace: timedelta) -> AsyncIterator[Site]:
    """A site whose nodes are pods of the double."""
    async with started_server(folder / "nats", NAME) as server, kube_api(folder) as (api, kubeconfig):
        bus = NatsBus(server.url, "profiler", site_streams(NAME), lambda mistake: None, lambda: None)
        here = Site(bus, api)
        for kind in (NodeReady, NodeReleased, NodeFailed):
            bus.hears(kind, NAME, here.hear)
        await bus.start()
        async with Cluster.connect(Connection(kubeconfig)) as cluster:
            looking = asyncio.create_task(here.look(cluster))
            kubelet = Kubelet(lambda pod: here.course, (node("played-0"),))
            async with played(kubeconfig, kubelet), _provisioner(server.url, kubeconfig, folder, grace):
                yield here
            looking.cancel()
        await bus.stop()


@asynccontextmanager
async def _provisioner(nats_url: str, kubeconfig: Path, folder: Path, grace: timedelta) -> AsyncIterator[None]:
    environment = {
        **os.environ,
        "WINDFALL_SITE": NAME,
        "WINDFALL_STATE_DIR": str(folder / "provisioner"),
        "WINDFALL_NATS_URL": nats_url,
        "WINDFALL_BACKEND": "kubernetes",
        "WINDFALL_KUBECONFIG": str(kubeconfig),
        "WINDFALL_KUBE_IMAGE": "trainer:1",
        "WINDFALL_GRACE": f"{grace.total_seconds():g}",
    }
    log = (folder / "provisioner.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "windfall.provisioner", env=environment, stderr=log, stdout=log
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()
        log.close()
