"""A namespace of a cluster in which a backend's pods do what they are told, on the double or a real API server."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from windfall.provisioner.holdings import Lease, Node
from windfall.provisioner.kube_settings import TrainerSettings
from windfall.provisioner.kubernetes import KubernetesBackend
from windfall.provisioner.manifests.labels import SITE
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.kube import Cluster, Kind, Object
from windfall.servicekit.kube.kinds import CONFIG_MAP, JOB, NODE, POD, SECRET, SERVICE
from windfall.servicekit.testing.kube_examples import Space
from windfall.servicekit.testing.kube_played import Course

NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECONDS: Final = 60.0
CONTROLLERS_S: Final = 240.0
"""A real server's controllers try again later and later, and hear of new kinds every 30 s at best."""
ENVIRONMENT: Final = {"WINDFALL_SITE": "site-a", "WINDFALL_NATS_URL": "nats://trainer:hunter2@leaf:4222"}


def lease(token: int = 1, **changes: Any) -> Lease:
    said = {
        "lease_id": uuid4(),
        "site": "site-a",
        "window_id": uuid4(),
        "token": token,
        "node": f"site-a-{token}",
        "opened_at": NOON,
        "requested_at": NOON,
        "changed_at": NOON,
    }
    return Lease.model_validate({**said, **changes})


@dataclass
class Stage:
    """A namespace in which pods do what ``course`` says."""

    space: Space
    course: Course = field(default_factory=Course)
    lives: list[KubernetesBackend] = field(default_factory=list)

    @property
    def cluster(self) -> Cluster:
        return self.space.cluster

    @property
    def namespace(self) -> str:
        return self.space.namespace

    def backend(self, **settings: Any) -> KubernetesBackend:
        told = {"kubeconfig": self.space.server.kubeconfig, "kube_namespace": self.namespace, "kube_image": "trainer:1"}
        trainers = TrainerSettings.model_validate({**told, **settings})
        grace = timedelta(minutes=10)
        self.lives.append(KubernetesBackend("site-a", trainers, "windfall.site_trainer", grace, SystemClock()))
        return self.lives[-1]

    async def all(self, *kinds: Kind) -> list[Object]:
        """Whatever is the site's."""
        return [
            found
            for kind in kinds or (CONFIG_MAP, SECRET, SERVICE, JOB, POD)
            for found in (await self.cluster.list(kind, self.namespace, labels=f"{SITE}=site-a")).items
        ]

    async def names(self, *kinds: Kind) -> list[str]:
        return [found["metadata"]["name"] for found in await self.all(*kinds)]

    async def until(self, *kinds: Kind, count: int, seconds: float = SECONDS) -> None:
        """That many of these are left."""

        async def as_many() -> bool:
            return len(await self.all(*kinds)) == count

        await eventually(as_many, seconds)


async def eventually(true: Callable[[], Awaitable[bool]], seconds: float = SECONDS) -> None:
    async with asyncio.timeout(seconds):
        while not await true():  # noqa: ASYNC110 - an API server sets no events
            await asyncio.sleep(0.02)


async def untainted(space: Space) -> None:
    """A real server taints the nodes of a pool until its controllers have seen that they are ready."""

    async def borne() -> bool:
        found = (await space.cluster.list(NODE, labels=f"pool={space.namespace}")).items
        return not any(each.get("spec", {}).get("taints") for each in found)

    await eventually(borne)


async def up(backend: KubernetesBackend, wanted: Lease) -> Node:
    async with asyncio.timeout(SECONDS):
        started = await backend.start(wanted, ENVIRONMENT)
        assert await backend.ready(started)
    return started


async def gone(backend: KubernetesBackend, started: Node, seconds: float = SECONDS) -> int | None:
    async with asyncio.timeout(seconds):
        return await backend.wait(started)
