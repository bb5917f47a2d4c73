"""The end of an owner: what trains hands in first, within a grace; then Kubernetes collects the rest."""

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from typing import Final

from windfall.contracts.message import instant
from windfall.contracts.resources import Site
from windfall.contracts.resources.fields import Metadata
from windfall.provisioner.operator.applying import Applying
from windfall.provisioner.operator.marks import COMPONENT, FEDERATION_LABEL, SITE_LABEL
from windfall.provisioner.operator.store import Child, Owner, Store
from windfall.servicekit.kube import Cluster
from windfall.servicekit.kube.kinds import POD

MARGIN: Final = timedelta(seconds=5)
"""A kubelet takes its time to say that a pod is gone."""
Release = Callable[[Metadata, datetime], Awaitable[None]]
"""Told the site and the instant.

Raises:
    Transient: the bus is away.
"""
_LOOK: Final = timedelta(seconds=1)
_SITE_GRACE: Final = timedelta(minutes=10)


class Draining:
    """
    Args:
        release: asks a site's provisioner to drain what it holds; asking twice is asking once.
    """

    def __init__(self, cluster: Cluster, store: Store, applying: Applying, release: Release) -> None:
        self._cluster = cluster
        self._release = release
        self._store = store
        self._applying = applying

    async def federation(
        self, owner: Owner, metadata: Metadata, grace: timedelta | None, now: datetime, asked_at: str
    ) -> timedelta | None:
        """Its pools go to 0 and hand in; the SuperLink stays up for them. None: it may go."""
        nodes = [
            child for child in self._store.of(owner) if child.workload and child.labels.get(COMPONENT) == "supernode"
        ]
        for child in nodes:
            await self._applying.to_zero(child, metadata.namespace)
        left = await self._pods(metadata.namespace, f"{FEDERATION_LABEL}={metadata.name},{COMPONENT}=supernode")
        deadline = instant(asked_at) + (longest(nodes) if grace is None else grace) + MARGIN
        return min(_LOOK, deadline - now) if left and now < deadline else None

    async def site(self, metadata: Metadata, site: Site | None, now: datetime, asked_at: str) -> timedelta | None:
        """Whoever uses it sees that it goes, and lets it. None: it may go."""
        grace = site.spec.backend.grace if site else None
        deadline = instant(asked_at) + (_SITE_GRACE if grace is None else grace) + MARGIN
        capacity = site.status.capacity if site else None
        held = capacity is not None and capacity.state in ("hindered", "starting", "ready")
        if held:
            await self._release(metadata, now)
        left = held or await self._pods(metadata.namespace, f"{SITE_LABEL}={metadata.name}")
        return min(_LOOK, deadline - now) if left and now < deadline else None

    async def _pods(self, namespace: str, labels: str) -> int:
        return len((await self._cluster.list(POD, namespace, labels=labels)).items)


def longest(children: Iterable[Child]) -> timedelta:
    """As long as the slowest of their pods may take to go."""
    return timedelta(seconds=max((child.grace_s for child in children), default=0))
