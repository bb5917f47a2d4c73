"""The port of :mod:`windfall.provisioner.backend`, on pods of one cluster."""

import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from windfall.contracts.message import Name
from windfall.provisioner.holdings import Lease, Node
from windfall.provisioner.kube_settings import TrainerSettings
from windfall.provisioner.kubernetes.access import Access
from windfall.provisioner.kubernetes.choosing import choose
from windfall.provisioner.kubernetes.ending import Ending
from windfall.provisioner.kubernetes.held import Held, HeldNodes
from windfall.provisioner.kubernetes.refusing import asking
from windfall.provisioner.kubernetes.starting import Starting
from windfall.provisioner.kubernetes.watching import Watching
from windfall.provisioner.manifests import workload as manifests
from windfall.provisioner.manifests.labels import LEASE, node_of, selector, site_labels
from windfall.provisioner.manifests.workload import WORKERS, Made
from windfall.provisioner.workers import leaving, worker_of
from windfall.servicekit.clock import Clock
from windfall.servicekit.kube import Object
from windfall.servicekit.kube.kinds import CONFIG_MAP

log = logging.getLogger(__name__)


class KubernetesBackend:
    """Pods of one cluster, in one namespace.

    Args:
        site: whose leases these are.
        settings: of its trainers.
        module: the Python module that a worker runs.
        grace: from being asked to go until being killed, in business time.
        clock: how long that is on the wall.
    """

    name = "kubernetes"

    def __init__(self, site: Name, settings: TrainerSettings, module: str, grace: timedelta, clock: Clock) -> None:
        self._site = site
        self._settings = settings
        self._module = module
        self._grace = grace
        self._clock = clock
        self._held: HeldNodes = {}
        self._access = Access(site, settings, self._held)
        self._ending = Ending(site, self._access, self._held)
        self._starting = Starting(site, settings, self._access, self._held, self._ending)
        self._watching = Watching(self._access, self._held, self._ending)

    def describe(self) -> str:
        settings = self._settings
        gpus = f" with {settings.accelerators} {settings.kube_vendor} GPUs" if settings.accelerators else ""
        each = f"{settings.kube_workers} pods{gpus} each" if settings.kube_workers > 1 else f"one pod{gpus}"
        return f"{each} of {settings.kube_image} in the namespace {settings.kube_namespace}"

    async def plan(self, lease: Lease, environment: Mapping[str, str]) -> Sequence[str]:
        access = self._access
        with asking(access.namespace):
            await access.open()
            made = self._made(lease)
            made = replace(made, chosen=await choose(access.cluster, lease, made))
            planned = [
                manifests.site_anchor(lease, made),
                manifests.state_claim(lease, made),
                manifests.lease_map(lease, environment, made),
                *manifests.workload(lease, environment, made),
            ]
            for manifest in planned:
                await access.cluster.apply(access.kind(manifest), manifest, dry_run=True)
        return [manifests.shown(manifest) for manifest in planned]

    async def start(self, lease: Lease, environment: Mapping[str, str]) -> Node:
        with asking(self._access.namespace):
            await self._access.open()
            return await self._starting.start(lease, environment, self._made(lease))

    def _made(self, lease: Lease) -> Made:
        drain_time = self._clock.wall(lease.drain_time or self._grace)
        access = self._access
        return Made(self._settings, self._module, drain_time, access.pdb.api_version, access.waits_for_pods)

    async def ready(self, node: Node) -> bool:
        return await self._watching.ready(node)

    def troubles(self, node: Node) -> AsyncIterator[str]:
        return self._watching.troubles(node)

    async def wait(self, node: Node) -> int | None:
        return await self._watching.wait(node)

    async def drain(self, node: Node) -> None:
        await self._ending.drain(node)

    async def kill(self, node: Node) -> None:
        await self._ending.kill(node)

    async def adopt(self) -> Sequence[Node]:
        access = self._access
        with asking(access.namespace):
            mirror = await access.open()
            labels = f"{selector(site_labels(self._site))},{LEASE}"
            listing = await access.cluster.list(CONFIG_MAP, access.namespace, labels=labels)
            for found in listing.items:
                node = node_of(found)
                if node is None or node.lease_id in self._held or leaving(found):
                    continue
                held = Held(node, int(found["metadata"]["annotations"].get(WORKERS, "1")))
                if len(mirror.jobs(node.lease_id)) < held.workers or held.seen(mirror).gone:
                    # Half written, or over: whoever wants it starts it anew.
                    await self.kill(node)
                else:
                    self._held[node.lease_id] = held
            written = {node for found in listing.items if not leaving(found) and (node := node_of(found))}
            for node, workers in _pods_alone(mirror.alive()):
                if node not in written:
                    self._held.setdefault(node.lease_id, Held(node, workers))
        return tuple(held.node for held in self._held.values() if not held.over(mirror))

    async def close(self) -> None:
        await self._ending.close()
        self._held.clear()
        await self._access.close()


def _pods_alone(pods: Sequence[Object]) -> Iterator[tuple[Node, int]]:
    """The nodes that pods are of, and how many workers each has: whoever deletes what owns a lease's pods does not wait
    for them, and on a machine that is lost they do not end."""
    workers: dict[Node, int] = {}
    for pod in pods:
        node, worker = node_of(pod), worker_of(pod)
        if node is not None and worker is not None:
            workers[node] = max(workers.get(node, 0), worker + 1)
    yield from workers.items()
