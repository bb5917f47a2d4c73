"""Nodes that are pods of a site's own cluster: a Job for each worker of a lease, see
:mod:`windfall.provisioner.manifests.workload`.

The lease's ConfigMap stands for the node: it is written first, owns the rest, and goes last. What is there is told by
two watches; what a start, a kill or an adoption has to be sure of is asked of the server itself.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from windfall.contracts.message import Name
from windfall.provisioner import dedicated
from windfall.provisioner.backend import Outage
from windfall.provisioner.holdings import Lease, Node
from windfall.provisioner.kube_settings import TrainerSettings
from windfall.provisioner.manifests import workload as manifests
from windfall.provisioner.manifests.labels import (
    LEASE,
    TOKEN,
    Manifest,
    at_version,
    fenced,
    node_of,
    owned,
    selector,
    site_labels,
)
from windfall.provisioner.manifests.workload import ATTEMPT, WORKERS, Made
from windfall.provisioner.mirror import Mirror
from windfall.provisioner.workers import KILLED, End, Seen, ended, leaving, look, worker_of
from windfall.servicekit.bus import back_off
from windfall.servicekit.clock import Clock
from windfall.servicekit.crashpoint import reach
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.kube import Cluster, Conflict, Kind, Object
from windfall.servicekit.kube.kinds import (
    CONFIG_MAP,
    JOB,
    PDB,
    PDB_BETA,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    SECRET,
    SERVICE,
)

log = logging.getLogger(__name__)

SITE: Final = Kind("windfall.dev", "v1alpha1", "Site", "sites")
_WAITS_FOR_PODS_SINCE: Final = 28
"""The minor version of Kubernetes since which a Job may be told not to replace a pod that is going."""
_KINDS: Final = {kind.kind: kind for kind in (SECRET, SERVICE, JOB)}


@dataclass
class _Held:
    """A node of this life, and what has been ordered of it."""

    node: Node
    workers: int
    draining: bool = False
    end: End | None = None
    """How it ends, once it is being killed."""
    clearing: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def killed(self) -> bool:
        return self.end is not None


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
        self._namespace = settings.kube_namespace
        self._module = module
        self._grace = grace
        self._clock = clock
        self._cluster = Cluster.connect(settings.connection)
        self._pdb = PDB
        self._waits_for_pods = True
        self._life = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._claiming = asyncio.Lock()
        self._mirror: Mirror | None = None
        self._held: dict[UUID, _Held] = {}

    def describe(self) -> str:
        settings = self._settings
        gpus = f" with {settings.kube_accelerators} {settings.kube_vendor} GPUs" if settings.kube_accelerators else ""
        each = f"{settings.kube_workers} pods{gpus} each" if settings.kube_workers > 1 else f"one pod{gpus}"
        return f"{each} of {settings.kube_image} in the namespace {self._namespace}"

    async def plan(self, lease: Lease, environment: Mapping[str, str]) -> Sequence[str]:
        with self._asking():
            await self._open()
            made = self._made(lease)
            planned = [
                manifests.site_anchor(lease, made),
                manifests.state_claim(lease, made),
                manifests.lease_map(lease, environment, made),
                *manifests.workload(lease, environment, made),
            ]
            for manifest in planned:
                await self._cluster.apply(self._kind(manifest), manifest, dry_run=True)
        return [manifests.shown(manifest) for manifest in planned]

    # --- starting -----------------------------------------------------------------------------------------------------

    async def start(self, lease: Lease, environment: Mapping[str, str]) -> Node:
        node = Node.of(lease)
        with self._asking():
            mirror = await self._open()
            held = self._held.get(lease.lease_id)
            if held and not self._over(held):
                return node
            made = self._made(lease)
            named = (node.name, manifests.anchor_name(self._site))
            written, anchored = await asyncio.gather(
                *(self._cluster.get(CONFIG_MAP, n, self._namespace) for n in named)
            )
            await self._make_room(lease, node, mirror, written)
            anchor = await self._claim_site(lease, made, anchored)
            if (
                await self._cluster.get(PERSISTENT_VOLUME_CLAIM, manifests.claim_name(self._site), self._namespace)
                is None
            ):
                await self._cluster.apply(PERSISTENT_VOLUME_CLAIM, owned(manifests.state_claim(lease, made), anchor))
            owner = await self._cluster.apply(CONFIG_MAP, owned(manifests.lease_map(lease, environment, made), anchor))
            reach("kubernetes.lease-written")
            for manifest in manifests.workload(lease, environment, made):
                kind = self._kind(manifest)
                written = await self._cluster.apply(kind, owned(manifest, owner))
                reach("kubernetes.part-written")
                if kind is JOB:
                    mirror.keep(written)
            if self._settings.kube_dedicated:
                await dedicated.uncordon(self._cluster, self._settings.kube_node_selector, self._site)
        self._held[lease.lease_id] = _Held(node, made.workers(lease))
        return node

    async def _make_room(self, lease: Lease, node: Node, mirror: Mirror, found: Object | None) -> None:
        """What an earlier attempt left has gone, and what this one has written already stays."""
        held = self._held.pop(lease.lease_id, None)
        if held and held.clearing:
            held.clearing.cancel()
        ours = found is not None and node_of(found) == node and not leaving(found)
        if ours and found and found["metadata"]["annotations"].get(ATTEMPT) == str(lease.attempts) and held is None:
            return
        if found is not None or held is not None:
            await self.kill(node)
        while mirror.jobs(lease.lease_id) or mirror.pods(lease.lease_id):
            await mirror.changed(mirror.version)
        mirror.forget(lease.lease_id)

    async def _claim_site(self, lease: Lease, made: Made, found: Object | None) -> Object:
        """The site's anchor, which knows this lease as the youngest.

        Args:
            found: as it was when it was looked at last; two leases of the site may claim it at the same time.
        """
        anchor = manifests.site_anchor(lease, made)
        name = anchor["metadata"]["name"]
        if self._settings.kube_owner is not None:
            owner = await self._cluster.get(SITE, self._settings.kube_owner, self._namespace)
            if owner is None:
                raise Mistake(
                    f"there is no Site {self._settings.kube_owner} in {self._namespace}",
                    "Create it, or unset WINDFALL_KUBE_OWNER",
                    ExitCode.RESOURCE,
                )
            anchor = owned(anchor, owner)
        async with self._claiming:
            found = found or await self._cluster.get(CONFIG_MAP, name, self._namespace)
            while True:
                if fenced(found, lease.token):
                    assert found is not None
                    theirs = found["metadata"]["annotations"][TOKEN]
                    raise Mistake(
                        f"lease {theirs} is the youngest of {self._site} by the ConfigMap {name}, not {lease.token}",
                        "Stop the other provisioner of this site; if this one's journal was lost, "
                        "delete that ConfigMap",
                        ExitCode.RESOURCE,
                    )
                before = found["metadata"]["resourceVersion"] if found else None
                try:
                    return await self._cluster.apply(CONFIG_MAP, at_version(anchor, before))
                except Conflict:
                    found = await self._cluster.get(CONFIG_MAP, name, self._namespace)
                    if found is not None and found["metadata"]["resourceVersion"] == before:
                        # Nobody was faster: another manager holds a field.
                        raise

    def _made(self, lease: Lease) -> Made:
        drain_time = self._clock.wall(lease.drain_time or self._grace)
        return Made(self._settings, self._module, drain_time, self._pdb.api_version, self._waits_for_pods)

    # --- watching -----------------------------------------------------------------------------------------------------

    async def ready(self, node: Node) -> bool:
        async for seen in self._seeing(node):
            if seen.ready or seen.gone:
                return seen.ready
        return False

    async def troubles(self, node: Node) -> AsyncIterator[str]:
        last = ""
        async for seen in self._seeing(node):
            if seen.gone:
                return
            if seen.trouble != last:
                last = seen.trouble
                yield last

    async def wait(self, node: Node) -> int | None:
        held = self._held.get(node.lease_id)
        async for seen in self._seeing(node):
            assert held is not None
            if seen.gone:
                self._clear(held)
                return held.end.exit_code if held.end else seen.exit_code
            if seen.broken and not held.killed:
                log.warning("%s: one worker has ended, so the others are", node.name)
                await self._insist(node)
            elif held.killed and seen.comes_back:
                await self._insist(node)
        return None

    async def _seeing(self, node: Node) -> AsyncIterator[Seen]:
        """The node as it is, and whenever it may be another; ends when it is not ours."""
        while (held := self._held.get(node.lease_id)) and held.clearing is None and self._mirror:
            version, seen = self._mirror.version, self._see(held)
            yield seen
            try:
                async with asyncio.timeout(_until(seen.lost_at)):
                    # Whatever has changed since it was looked at is seen at once.
                    await self._mirror.changed(version)
            except TimeoutError:
                log.warning("%s: a machine is lost, and its pod is given up", node.name)
                await self._insist(node)

    def _see(self, held: _Held) -> Seen:
        assert self._mirror is not None
        lease_id = held.node.lease_id
        jobs, pods, ends = self._mirror.jobs(lease_id), self._mirror.pods(lease_id), self._mirror.ends(lease_id)
        seen = look(held.workers, jobs, pods, ends, self._mirror.events)
        # One that is being ended goes with its last pod, whatever its workers have said.
        alive = any(not ended(pod) for pod in pods)
        return replace(seen, gone=seen.gone and not (held.killed and alive))

    def _over(self, held: _Held) -> bool:
        return held.clearing is not None or self._see(held).gone

    # --- ending -------------------------------------------------------------------------------------------------------

    async def drain(self, node: Node) -> None:
        held = self._held.get(node.lease_id)
        if held is None or self._mirror is None:
            return
        held.draining = True
        with self._asking():
            # A budget that lets all of them go would still hold back one that runs and is not ready.
            await self._cluster.delete(self._pdb, node.name, self._namespace)
            pods = [pod for pod in self._mirror.pods(node.lease_id) if not ended(pod) and not leaving(pod)]
            for pod in pods:
                await self._cluster.evict(pod["metadata"]["name"], self._namespace)
            unborn = set(range(held.workers)) - {worker_of(pod) for pod in self._mirror.pods(node.lease_id)}
            for job in self._mirror.jobs(node.lease_id):
                if worker_of(job) in unborn:
                    # It has no pod yet, and need not get one.
                    await self._delete(JOB, job)

    async def kill(self, node: Node) -> None:
        held = self._held.get(node.lease_id)
        if held is not None and not held.killed and self._mirror is not None:
            seen = self._see(held)
            held.end = End(seen.exit_code) if seen.gone or seen.broken else KILLED
        ours = selector({LEASE: str(node.lease_id), **site_labels(self._site)})
        with self._asking():
            await self._open()
            for job in (await self._cluster.list(JOB, self._namespace, labels=ours)).items:
                await self._delete(JOB, job)
            for pod in (await self._cluster.list(POD, self._namespace, labels=ours)).items:
                await self._delete(POD, pod, timedelta())
            found = await self._cluster.get(CONFIG_MAP, node.name, self._namespace)
            if found is not None and node_of(found) == node:
                await self._delete(CONFIG_MAP, found)

    async def _insist(self, node: Node) -> None:
        refusals = 0
        while True:
            try:
                return await self.kill(node)
            except Transient as error:
                refusals += 1
                pause = error.retry_after or back_off(refusals)
                log.warning("%s: asked again in %.1f s: %s", node.name, pause.total_seconds(), error)
                await asyncio.sleep(pause.total_seconds())

    def _clear(self, held: _Held) -> None:
        """Take away what stood for a node that is gone."""
        held.clearing = asyncio.create_task(self._cleared(held), name=f"clearing of {held.node.name}")

    async def _cleared(self, held: _Held) -> None:
        try:
            await self._insist(held.node)
            last = self._held.get(held.node.lease_id) is held and len(self._held) == 1
            if last and self._settings.kube_dedicated:
                await dedicated.cordon(self._cluster, self._settings.kube_node_selector, self._site)
        except (Mistake, Transient) as error:
            log.error("%s is gone, and what stood for it stays: %s", held.node.name, error)
        if self._held.get(held.node.lease_id) is held:
            del self._held[held.node.lease_id]

    async def _delete(self, kind: Kind, found: Object, grace: timedelta | None = None) -> None:
        metadata = found["metadata"]
        try:
            await self._cluster.delete(kind, metadata["name"], self._namespace, uid=metadata["uid"], grace=grace)
        except Conflict:
            log.info("%s %s is another one by now", kind.kind, metadata["name"])

    # --- coming and going ---------------------------------------------------------------------------------------------

    async def adopt(self) -> Sequence[Node]:
        with self._asking():
            mirror = await self._open()
            listing = await self._cluster.list(
                CONFIG_MAP, self._namespace, labels=f"{selector(site_labels(self._site))},{LEASE}"
            )
            for found in listing.items:
                node = node_of(found)
                if node is None or node.lease_id in self._held or leaving(found):
                    continue
                held = _Held(node, int(found["metadata"]["annotations"].get(WORKERS, "1")))
                if len(mirror.jobs(node.lease_id)) < held.workers or self._see(held).gone:
                    # Half written, or over: whoever wants it starts it anew.
                    await self.kill(node)
                else:
                    self._held[node.lease_id] = held
            written = {node for found in listing.items if not leaving(found) and (node := node_of(found))}
            for node, workers in _pods_alone(mirror.alive()):
                if node not in written:
                    self._held.setdefault(node.lease_id, _Held(node, workers))
        return tuple(held.node for held in self._held.values() if not self._over(held))

    async def close(self) -> None:
        tasks = [held.clearing for held in self._held.values() if held.clearing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._held.clear()
        self._mirror = None
        await self._life.aclose()

    async def _open(self) -> Mirror:
        """Connect, and know what is there.

        Raises:
            Outage: the server does not answer.
        """
        async with self._opening:
            if self._mirror is None:
                async with AsyncExitStack() as opening:
                    await opening.enter_async_context(self._cluster)
                    self._pdb = PDB if await self._cluster.serves(PDB) else PDB_BETA
                    self._waits_for_pods = _minor(await self._cluster.version()) >= _WAITS_FOR_PODS_SINCE
                    self._life.push_async_exit(opening.pop_all())
                labels = selector(site_labels(self._site))
                self._mirror = Mirror(self._cluster, self._namespace, labels, self._by_us)
                self._life.push_async_callback(self._mirror.close)
            mirror = self._mirror
        await mirror.synced()
        return mirror

    def _by_us(self, lease_id: UUID) -> bool:
        held = self._held.get(lease_id)
        return held is None or held.draining or held.killed

    def _kind(self, manifest: Manifest) -> Kind:
        if manifest["kind"] == PDB.kind:
            return self._pdb
        return {**_KINDS, "ConfigMap": CONFIG_MAP, "PersistentVolumeClaim": PERSISTENT_VOLUME_CLAIM}[manifest["kind"]]

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """What a refusal means to a lease."""
        try:
            yield
        except (Outage, Conflict):
            raise
        except Transient as error:
            raise Outage(str(error), error.retry_after) from error
        except Mistake as error:
            if "exceeded quota" in error.cause:
                raise Transient(error.cause) from error
            if f'namespaces "{self._namespace}" not found' in error.cause:
                raise Mistake(
                    f"there is no namespace {self._namespace}",
                    "Create it, or set WINDFALL_KUBE_NAMESPACE to one that is there",
                    ExitCode.RESOURCE,
                ) from error
            raise


def _pods_alone(pods: Sequence[Object]) -> Iterator[tuple[Node, int]]:
    """The nodes that pods are of, and how many workers each has: whoever deletes what owns a lease's pods does not wait
    for them, and on a machine that is lost they do not end."""
    workers: dict[Node, int] = {}
    for pod in pods:
        node, worker = node_of(pod), worker_of(pod)
        if node is not None and worker is not None:
            workers[node] = max(workers.get(node, 0), worker + 1)
    yield from workers.items()


def _minor(version: str) -> int:
    """Of ``v1.33.4+k0s``."""
    return int(version.split(".")[1])


def _until(at: datetime | None) -> float | None:
    return None if at is None else max(0.0, (at - datetime.now(UTC)).total_seconds())
