"""Plays the part of Cluster API's, k0smotron's and k0rdent's controllers on an API server: a double for machines.

It creates, joins, fails and takes away Machines as the real ones do, as far as a lease can see: counted by a
MachineDeployment, the machine that is marked to go first goes first, a deleted one stays until its drain is over and
its finalizer gone, and each contract has its conditions where it keeps them.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any, Final, Literal

from windfall.provisioner.machine import DELETE_FIRST, NO_DRAIN
from windfall.provisioner.manifests.cluster_api import CLUSTER_NAME, DEPLOYMENT_NAME
from windfall.provisioner.manifests.contracts import (
    CLUSTER,
    CLUSTER_DEPLOYMENT,
    CLUSTER_TEMPLATE,
    CONTROL_PLANE,
    CREDENTIAL,
    MACHINE,
    MACHINE_DEPLOYMENT,
    REMOTE_CLUSTER,
    V1BETA1,
)
from windfall.servicekit.errors import Transient
from windfall.servicekit.kube import Cluster, Kind, Object

log = logging.getLogger(__name__)

FINALIZER: Final = "machine.cluster.x-k8s.io"
K0RDENT_FINALIZER: Final = "k0rdent.mirantis.com/cluster-deployment"
Manner = Literal["join", "stall", "fail"]
_THEN: Final = "2026-01-01T00:00:00Z"


class MachineControllers:
    """See the module.

    Args:
        cluster: entered.
        namespace: in which it plays.
        version: the contract that Machines are written in, ``v1beta1`` or ``v1beta2``.
        workers: where a ClusterDeployment's config has the number of workers.
    """

    def __init__(self, cluster: Cluster, namespace: str, version: str, workers: str = "workersNumber") -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._workers = workers
        self.machines: Kind = MACHINE.at(version)
        self.deployments: Kind = MACHINE_DEPLOYMENT.at(version)
        self.manner: Manner = "join"
        """What becomes of the machines that are created from now on."""
        self.drained = asyncio.Event()
        """Clear it and machines that are deleted wait for their drain, unless they are told not to."""
        self.drained.set()
        self.cleaned = asyncio.Event()
        """Clear it and machines that are deleted keep their finalizers whatever they are told: a slow delete."""
        self.cleaned.set()
        self.uninstalled = asyncio.Event()
        """Clear it and ClusterDeployments that are deleted keep their finalizer."""
        self.uninstalled.set()
        self.created: list[str] = []
        """Names of all Machines ever created, in order."""
        self.taken: list[str] = []
        """Names of all Machines that were taken away, some of them twice."""
        self._wake = asyncio.Event()

    async def play(self) -> None:
        """For ever: one pass after each change."""
        async with asyncio.TaskGroup() as group:
            for kind in (self.deployments, self.machines, CLUSTER.at(self.machines.version)):
                group.create_task(self._listen(kind))
            if await self._cluster.serves(CLUSTER_DEPLOYMENT.at(V1BETA1)):
                for resource in (CLUSTER_DEPLOYMENT, CLUSTER_TEMPLATE, CREDENTIAL):
                    group.create_task(self._listen(resource.at(V1BETA1)))
            group.create_task(self._passes())

    def nudge(self) -> None:
        """Look again, after an attribute was changed."""
        self._wake.set()

    async def _listen(self, kind: Kind) -> None:
        following = self._cluster.follow(kind, self._namespace)
        async with aclosing(following) as changes:
            async for _ in changes:
                self._wake.set()

    async def _passes(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._pass()
            except Transient:
                # Somebody wrote in between, or the server is away: the next pass sees it.
                await asyncio.sleep(0.02)
                self._wake.set()

    async def _pass(self) -> None:
        if await self._cluster.serves(CLUSTER_DEPLOYMENT.at(V1BETA1)):
            await self._play_k0rdent()
        await self._host()
        for deployment in (await self._cluster.list(self.deployments, self._namespace)).items:
            await self._scale(deployment)
        for machine in (await self._cluster.list(self.machines, self._namespace)).items:
            await self._advance(machine)

    # --- Cluster API and k0smotron ------------------------------------------------------------------------------------

    async def _host(self) -> None:
        """The infrastructure is there, and the control plane runs."""
        old = self.machines.version == V1BETA1
        for resource, status in (
            (REMOTE_CLUSTER, {"ready": True} if old else {"initialization": {"provisioned": True}}),
            (CONTROL_PLANE, {"initialization": {"controlPlaneInitialized": True}, "version": "v1.33.4"}),
            (
                CLUSTER,
                {"infrastructureReady": True, "controlPlaneReady": True}
                if old
                else {"initialization": {"infrastructureProvisioned": True, "controlPlaneInitialized": True}},
            ),
        ):
            kind = resource.at(self.machines.version)
            for found in (await self._cluster.list(kind, self._namespace)).items:
                if any((found.get("status") or {}).get(key) != value for key, value in status.items()):
                    name = found["metadata"]["name"]
                    await self._cluster.patch(kind, name, self._namespace, {"status": status}, subresource="status")

    async def _scale(self, deployment: Object) -> None:
        name, cluster = deployment["metadata"]["name"], deployment["spec"]["clusterName"]
        found = await self._cluster.list(self.machines, self._namespace, labels=f"{DEPLOYMENT_NAME}={name}")
        staying = [machine for machine in found.items if not machine["metadata"].get("deletionTimestamp")]
        going = deployment["metadata"].get("deletionTimestamp")
        # Without a count there is one machine: what the real webhook writes.
        missing = (0 if going else deployment["spec"].get("replicas", 1)) - len(staying)
        for _ in range(missing):
            await self._create(deployment, name, cluster)
        for machine in sorted(staying, key=partial(self._first_to_go, deployment))[: max(0, -missing)]:
            await self._cluster.delete(self.machines, machine["metadata"]["name"], self._namespace)

    def _first_to_go(self, deployment: Object, machine: Object) -> tuple[bool, bool, int, str]:
        name = machine["metadata"]["name"]
        marked = DELETE_FIRST in (machine["metadata"].get("annotations") or {})
        joined = bool((machine.get("status") or {}).get("nodeRef"))
        spec = deployment["spec"]
        old = ((spec.get("strategy") or {}).get("rollingUpdate") or {}).get("deletePolicy")
        newest = "Newest" in (old, (spec.get("deletion") or {}).get("order"))
        age = self.created.index(name) if newest and name in self.created else 0
        # Without an order it is chance, of which the name is as good as any.
        return not marked, joined, -age, name

    async def _create(self, deployment: Object, name: str, cluster: str) -> None:
        template = deployment["spec"]["template"]
        machine = {
            "apiVersion": self.machines.api_version,
            "kind": self.machines.kind,
            "metadata": {
                "name": f"{name}-{uuid.uuid4().hex[:5]}",
                "namespace": self._namespace,
                "labels": {
                    **(template.get("metadata") or {}).get("labels", {}),
                    CLUSTER_NAME: cluster,
                    DEPLOYMENT_NAME: name,
                },
                "annotations": {"double.windfall.dev/manner": self.manner},
                "finalizers": [FINALIZER],
                "ownerReferences": [_owner(deployment)],
            },
            "spec": template["spec"],
        }
        await self._cluster.create(self.machines, machine)
        self.created.append(str(machine["metadata"]["name"]))

    async def _advance(self, machine: Object) -> None:
        metadata = machine["metadata"]
        if metadata.get("deletionTimestamp"):
            drained = self.drained.is_set() or NO_DRAIN in (metadata.get("annotations") or {})
            if drained and self.cleaned.is_set() and metadata.get("finalizers"):
                guard = {"resourceVersion": metadata["resourceVersion"], "finalizers": None}
                self.taken.append(metadata["name"])
                await self._cluster.patch(self.machines, metadata["name"], self._namespace, {"metadata": guard})
            return
        manner = (metadata.get("annotations") or {}).get("double.windfall.dev/manner", "join")
        status = {"join": self._joined, "fail": self._failed, "stall": self._stalled}[manner](metadata["name"])
        if machine.get("status") != status:
            await self._cluster.patch(
                self.machines, metadata["name"], self._namespace, {"status": status}, subresource="status"
            )

    def _joined(self, name: str) -> Object:
        if self.machines.version == V1BETA1:
            reference: Object = {"apiVersion": "v1", "kind": "Node", "name": name}
            started: Object = {"bootstrapReady": True, "infrastructureReady": True}
            kinds = ["Ready", "BootstrapReady", "InfrastructureReady", "NodeHealthy"]
        else:
            reference = {"name": name}
            started = {"initialization": {"bootstrapDataSecretCreated": True, "infrastructureProvisioned": True}}
            kinds = ["Ready", "BootstrapConfigReady", "InfrastructureReady", "NodeHealthy", "NodeReady"]
        conditions = [self._condition(kind, "True", "Ready", "") for kind in kinds]
        return {**started, "nodeRef": reference, "phase": "Running", "conditions": conditions}

    def _failed(self, name: str) -> Object:
        failure = {"failureReason": "CreateError", "failureMessage": "the machine does not answer on port 22"}
        if self.machines.version == V1BETA1:
            return {**failure, "phase": "Failed"}
        return {"deprecated": {"v1beta1": failure}, "phase": "Failed"}

    def _stalled(self, name: str) -> Object:
        why = self._condition("InfrastructureReady", "False", "PoolIsEmpty", "free pooled machine not found")
        return {"conditions": [why], "phase": "Provisioning"}

    def _condition(self, kind: str, status: str, reason: str, message: str) -> dict[str, Any]:
        made = {"type": kind, "status": status, "lastTransitionTime": _THEN}
        if self.machines.version == V1BETA1:
            # An empty reason or message is not allowed there, and a missing one not in the newer contract.
            return made | ({"reason": reason, "message": message} if message else {})
        return made | {"reason": reason, "message": message}

    # --- k0rdent ------------------------------------------------------------------------------------------------------

    async def _play_k0rdent(self) -> None:
        for resource, status in ((CLUSTER_TEMPLATE, {"valid": True}), (CREDENTIAL, {"ready": True})):
            kind = resource.at(V1BETA1)
            for found in (await self._cluster.list(kind, self._namespace)).items:
                if not found.get("status"):
                    name = found["metadata"]["name"]
                    await self._cluster.patch(kind, name, self._namespace, {"status": status}, subresource="status")
        kind = CLUSTER_DEPLOYMENT.at(V1BETA1)
        for found in (await self._cluster.list(kind, self._namespace)).items:
            await self._deploy(kind, found)

    async def _deploy(self, kind: Kind, found: Object) -> None:
        metadata = found["metadata"]
        name = metadata["name"]
        if metadata.get("deletionTimestamp"):
            gone = not (await self._cluster.list(self.machines, self._namespace, labels=f"{CLUSTER_NAME}={name}")).items
            await self._cluster.delete(self.deployments, name, self._namespace)
            if gone and self.uninstalled.is_set() and metadata.get("finalizers"):
                await self._cluster.patch(kind, name, self._namespace, {"metadata": {"finalizers": None}})
            return
        if not metadata.get("finalizers"):
            await self._cluster.patch(kind, name, self._namespace, {"metadata": {"finalizers": [K0RDENT_FINALIZER]}})
        status = (found.get("status") or {}).get("conditions")
        if not status:
            ready = {"type": "Ready", "status": "True", "reason": "Succeeded", "message": "Object is ready"}
            conditions = [{**ready, "lastTransitionTime": _THEN}]
            await self._cluster.patch(
                kind, name, self._namespace, {"status": {"conditions": conditions}}, subresource="status"
            )
        if found["spec"].get("dryRun"):
            return
        at: Any = found["spec"].get("config") or {}
        for step in self._workers.split("."):
            at = at[step]
        await self._cluster.apply(self.deployments, self._chart(found, at), manager="helm", force=True)

    def _chart(self, found: Object, count: int) -> Object:
        """What a template's chart renders, as far as machines are concerned."""
        name = found["metadata"]["name"]
        new = self.machines.version != V1BETA1
        reference = {"apiGroup" if new else "apiVersion": "x.io" if new else "x.io/v1", "kind": "Some", "name": "some"}
        marks = {CLUSTER_NAME: name, DEPLOYMENT_NAME: name}
        spec = {"clusterName": name, "bootstrap": {"configRef": reference}, "infrastructureRef": reference}
        return {
            "apiVersion": self.deployments.api_version,
            "kind": self.deployments.kind,
            "metadata": {"name": name, "namespace": self._namespace, "ownerReferences": [_owner(found)]},
            "spec": {
                "clusterName": name,
                "replicas": count,
                "selector": {"matchLabels": marks},
                "template": {"metadata": {"labels": marks}, "spec": spec},
            },
        }


@asynccontextmanager
async def machine_controllers(
    cluster: Cluster, namespace: str, version: str, workers: str = "workersNumber"
) -> AsyncIterator[MachineControllers]:
    """The controllers, playing."""
    controllers = MachineControllers(cluster, namespace, version, workers)
    playing = asyncio.create_task(controllers.play(), name="machine controllers")
    playing.add_done_callback(_said)
    try:
        yield controllers
    finally:
        playing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await playing


def _said(playing: "asyncio.Task[None]") -> None:
    """At once, because whoever waits for a machine would wait for ever."""
    if not playing.cancelled() and (error := playing.exception()):
        log.error("the controllers have fallen", exc_info=error)


def _owner(found: Object) -> Object:
    metadata = found["metadata"]
    return {"apiVersion": found["apiVersion"], "kind": found["kind"], "name": metadata["name"], "uid": metadata["uid"]}
