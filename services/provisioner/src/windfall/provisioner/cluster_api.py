"""Machines of Cluster API, counted by a MachineDeployment, in a cluster whose control plane k0smotron hosts."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from windfall.provisioner.backend import Outage
from windfall.provisioner.counted import Beside
from windfall.provisioner.discovery import spoken
from windfall.provisioner.machine import Machine, current, failure, line
from windfall.provisioner.manifests import cluster_api as manifests
from windfall.provisioner.manifests.cluster_parameters import ClusterApiParameters
from windfall.provisioner.manifests.contracts import (
    CLUSTER,
    CLUSTER_API,
    MACHINE,
    MACHINE_DEPLOYMENT,
    POOLED_MACHINE,
    REMOTE_MACHINE,
    Contract,
)
from windfall.provisioner.manifests.labels import selector
from windfall.provisioner.ownership import is_ours, owned_by
from windfall.provisioner.remote_machines import RemotePool
from windfall.provisioner.roster import counted_yet
from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Cluster, Kind, Object

PAUSED: Final = "cluster.x-k8s.io/paused"


class MachineDeployments:
    """The :class:`~windfall.provisioner.counted.Counted` of the backend ``cluster-api``.

    Args:
        site: whose leases these are.
        namespace: of the objects.
        said: the backend's parameters.
        drain: wall time that a machine which leaves may take to be drained.
    """

    platform = "cluster-api"

    def __init__(self, site: str, namespace: str, said: ClusterApiParameters, drain: timedelta) -> None:
        self._site = site
        self._namespace = namespace
        self._said = said.named(site)
        self._drain = drain
        self._spoken: Contract = {}
        self._pool: RemotePool

    @property
    def cluster_name(self) -> str:
        return str(self._said.cluster)

    @property
    def name(self) -> str:
        return str(self._said.machine_deployment)

    def describe(self) -> str:
        pool = f" from the pool {self._said.pool}" if self._said.manage else ""
        return f"one machine{pool}, in the cluster {self.cluster_name} by the MachineDeployment {self.name}"

    async def prepare(self, cluster: Cluster) -> tuple[Kind, Kind]:
        wanted = CLUSTER_API if self._said.manage else (CLUSTER, MACHINE, MACHINE_DEPLOYMENT)
        self._spoken = await spoken(cluster, wanted)
        if self._said.manage:
            self._pool = RemotePool(self._site, self._namespace, self._said, self._spoken, self.machine_labels())
        return self._spoken[MACHINE_DEPLOYMENT], self._spoken[MACHINE]

    def machine_labels(self) -> str:
        return selector(manifests.machines_of(self._said))

    def beside(self) -> Mapping[Kind, str]:
        if not self._said.manage:
            return {}
        return {self._spoken[REMOTE_MACHINE]: self.machine_labels(), self._spoken[POOLED_MACHINE]: self._pool.labels}

    def explained(self, machine: Machine, beside: Beside) -> Machine:
        return self._pool.explained(machine, beside) if self._said.manage else machine

    async def tend(self, cluster: Cluster, machines: Sequence[Machine], beside: Beside) -> None:
        if self._said.manage:
            await self._pool.tend(cluster, machines, beside)

    async def ensure(self, cluster: Cluster, owner: Object, *, dry_run: bool = False) -> Sequence[Object]:
        found = await cluster.get(self._spoken[CLUSTER], self.cluster_name, self._namespace)
        if found is not None:
            _may_be_used(found)
        if not self._said.manage:
            return [await self._there(cluster)]
        if found is not None and not is_ours(found, self._site):
            raise Mistake(
                f"the Cluster {self.cluster_name} in {self._namespace} is not this site's",
                "Name another one, or say manage: false to use its machines",
            )
        whole = manifests.cluster(self._site, self._namespace, self._said, self._spoken)
        kind = self._spoken[CLUSTER]
        written = [await cluster.apply(kind, owned_by(whole, owner), force=True, dry_run=dry_run)]
        places = await self._pool.places(cluster)
        for resource, part in manifests.parts(
            self._site, self._namespace, self._said, self._spoken, self._drain, places
        ):
            kind = self._spoken[resource]
            part = owned_by(part, written[0])
            if resource is MACHINE_DEPLOYMENT:
                there = await cluster.get(kind, self.name, self._namespace)
                if not counted_yet(there, self.count(there) if there else None):
                    part = {**part, "spec": {**part["spec"], **self.counting(0)}}
            written.append(await cluster.apply(kind, part, force=True, dry_run=dry_run))
        return written

    async def _there(self, cluster: Cluster) -> Object:
        found = await cluster.get(self._spoken[MACHINE_DEPLOYMENT], self.name, self._namespace)
        if found is None:
            raise Mistake(
                f"there is no MachineDeployment {self.name} in {self._namespace}",
                "Create it, name the one that is there as machineDeployment, or say manage: true",
            )
        _may_be_used(found)
        return found

    def count(self, found: Object) -> int | None:
        replicas = found["spec"].get("replicas")
        return replicas if isinstance(replicas, int) else None

    def counting(self, count: int) -> Object:
        return {"replicas": count}

    def hindrance(self, found: Object) -> str:
        if failed := failure(found):
            return failed
        conditions = current(found)
        scaling = conditions.get("ScalingUp")
        if scaling is not None and scaling["status"] == "True" and scaling.get("message"):
            return line(scaling)
        for kind in ("MachineSetReady", "Available"):
            condition = conditions.get(kind)
            if condition is not None and condition["status"] != "True":
                return line(condition)
        return ""

    async def idle(self, cluster: Cluster, found: Object) -> None:
        """The cluster stays, with no machines: its control plane is hosted, and the next window finds it ready."""


def _may_be_used(found: Object) -> None:
    what = f"the {found['kind']} {found['metadata']['name']}"
    if found["metadata"].get("deletionTimestamp"):
        raise Outage(f"{what} is being deleted")
    if found["spec"].get("paused") or PAUSED in (found["metadata"].get("annotations") or {}):
        raise Outage(f"{what} is paused")
