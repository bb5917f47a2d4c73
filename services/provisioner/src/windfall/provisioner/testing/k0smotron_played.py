"""Plays the part of k0smotron: it hosts control planes, and takes machines out of a pool and back.

As the real one does, it says nothing anywhere when a pool has no machine left, always takes the last one of those that
are free, and of one that does not answer says so on the RemoteMachine alone.
"""

from typing import Final

from windfall.provisioner.manifests.contracts import (
    CLUSTER,
    CONTROL_PLANE,
    POOLED_MACHINE,
    REMOTE_CLUSTER,
    REMOTE_MACHINE,
    REMOTE_TEMPLATE,
    V1BETA1,
)
from windfall.provisioner.testing.played_statuses import owner
from windfall.servicekit.kube import Cluster, Kind, Object

FINALIZER: Final = "remotemachine.k0smotron.io/finalizer"
REASON: Final = "ProvisionFailed"


class K0smotron:
    """See the module.

    Args:
        cluster: entered.
        namespace: in which it plays.
        version: the contract that it speaks, ``v1beta1`` or ``v1beta2``.
    """

    def __init__(self, cluster: Cluster, namespace: str, version: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._old = version == V1BETA1
        self._remotes = REMOTE_MACHINE.at(version)
        self._pooled = POOLED_MACHINE.at(version)
        self._templates = REMOTE_TEMPLATE.at(version)
        self._hosting: tuple[tuple[Kind, Object], ...] = (
            (REMOTE_CLUSTER.at(version), {"ready": True} if self._old else {"initialization": {"provisioned": True}}),
            (
                CONTROL_PLANE.at(version),
                {"initialization": {"controlPlaneInitialized": True}, "version": "v1.33.4"},
            ),
            (
                CLUSTER.at(version),
                {"infrastructureReady": True, "controlPlaneReady": True}
                if self._old
                else {"initialization": {"infrastructureProvisioned": True, "controlPlaneInitialized": True}},
            ),
        )
        """What it says of each, the Cluster last."""
        self.unreachable: set[str] = set()
        """Addresses that do not answer."""
        self._seen: dict[Kind, dict[str, Object]] = {}
        self._hosted: set[str] = set()
        self.taken: list[str] = []
        """Names of the pooled machines that were taken, in order."""

    async def look(self) -> None:
        """At the machines that there are; a pass goes by what it saw, and by its own writes."""
        for kind in (self._remotes, self._pooled):
            there = (await self._cluster.list(kind, self._namespace)).items
            self._seen[kind] = {found["metadata"]["name"]: found for found in there}

    async def host(self) -> None:
        """The infrastructure of each Cluster is there, and its control plane runs."""
        whole, *parts = reversed(self._hosting)
        for found in (await self._cluster.list(whole[0], self._namespace)).items:
            name, uid = found["metadata"]["name"], found["metadata"]["uid"]
            if uid in self._hosted:
                continue
            there = [await self._say_hosted(kind, name, status) for kind, status in (*parts, whole)]
            self._hosted |= {uid} if all(there) else set()

    async def _say_hosted(self, kind: Kind, name: str, status: Object) -> bool:
        """Whether there is one to say it of."""
        found = await self._cluster.get(kind, name, self._namespace)
        if found is not None and any((found.get("status") or {}).get(key) != value for key, value in status.items()):
            await self._cluster.patch(kind, name, self._namespace, {"status": status}, subresource="status")
        return found is not None

    async def provision(self, machine: Object, template: str) -> str | None:
        """Make a node of a machine of the pool.

        Args:
            machine: of Cluster API.
            template: name of the RemoteMachineTemplate.

        Returns:
            None once it is one; otherwise why it is none, empty where nobody says.
        """
        remote = await self._cloned(machine, template)
        if remote is None:
            return ""
        mine = await self._reserved(remote)
        if mine is None:
            return ""
        name, spec = remote["metadata"]["name"], mine["spec"]["machine"]
        if spec["address"] in self.unreachable:
            message = f"failed to dial: dial tcp {spec['address']}:{spec['port']}: i/o timeout"
            await self._say(remote, {"failureReason": REASON, "failureMessage": message}, ready=False)
            return f"{REASON}: {message}"
        where = {key: spec[key] for key in ("address", "port", "user", "useSudo", "sshKeyRef") if key in spec}
        whole = {**where, "providerID": f"remote-machine://{spec['address']}:{spec['port']}"}
        if any(remote["spec"].get(key) != value for key, value in whole.items()):
            await self._cluster.patch(self._remotes, name, self._namespace, {"spec": whole})
        await self._say(remote, {}, ready=True)
        return None

    async def release(self, name: str) -> bool:
        """Clean a machine and give it back to the pool; false while that goes on."""
        remote = self._seen[self._remotes].get(name)
        if remote is None:
            return True
        if not remote["metadata"].get("deletionTimestamp"):
            await self._cluster.delete(self._remotes, name, self._namespace)
            return False
        for found in self._seen[self._pooled].values():
            status = found.get("status") or {}
            if status.get("reserved") and status["machineRef"]["name"] == name:
                await self._reserve(found, "")
        await self._cluster.patch(self._remotes, name, self._namespace, {"metadata": {"finalizers": None}})
        return True

    async def _cloned(self, machine: Object, template: str) -> Object | None:
        metadata = machine["metadata"]
        if (found := self._seen[self._remotes].get(metadata["name"])) is not None:
            return found
        cloned = await self._cluster.get(self._templates, template, self._namespace)
        if cloned is None:
            return None
        made = await self._cluster.create(
            self._remotes,
            {
                "apiVersion": self._remotes.api_version,
                "kind": self._remotes.kind,
                "metadata": {
                    "name": metadata["name"],
                    "namespace": self._namespace,
                    "labels": metadata["labels"],
                    "finalizers": [FINALIZER],
                    "ownerReferences": [owner(machine)],
                },
                "spec": cloned["spec"]["template"]["spec"],
            },
        )
        self._seen[self._remotes][metadata["name"]] = made
        return made

    async def _reserved(self, remote: Object) -> Object | None:
        """The pooled machine that it has, or gets."""
        name, free = remote["metadata"]["name"], None
        for found in self._seen[self._pooled].values():
            status = found.get("status") or {}
            if found["spec"]["pool"] != remote["spec"]["pool"]:
                continue
            if status.get("reserved") and status["machineRef"]["name"] == name:
                return found
            if not status.get("reserved"):
                free = found
        if free is not None:
            await self._reserve(free, name)
            self.taken.append(free["metadata"]["name"])
        return free

    async def _reserve(self, pooled: Object, name: str) -> None:
        """For a RemoteMachine, or for nobody; only as it was seen."""
        metadata = pooled["metadata"]
        status = {"reserved": bool(name), "machineRef": {"name": name, "namespace": self._namespace if name else ""}}
        patch = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": status}
        name_ = metadata["name"]
        taken = await self._cluster.patch(self._pooled, name_, self._namespace, patch, subresource="status")
        self._seen[self._pooled][name_] = taken

    async def _say(self, remote: Object, failure: Object, *, ready: bool) -> None:
        said = {"failureReason": None, "failureMessage": None, **failure}
        if self._old:
            status: Object = {"ready": ready, **said}
            before = {key: (remote.get("status") or {}).get(key) for key in status}
        else:
            status = {"initialization": {"provisioned": ready}, "deprecated": {"v1beta1": said}}
            found = remote.get("status") or {}
            there = (found.get("deprecated") or {}).get("v1beta1") or {}
            before = {
                "initialization": found.get("initialization"),
                "deprecated": {"v1beta1": {key: there.get(key) for key in said}},
            }
        if before != status:
            name = remote["metadata"]["name"]
            await self._cluster.patch(self._remotes, name, self._namespace, {"status": status}, subresource="status")
