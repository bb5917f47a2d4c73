"""Plays the part of Cluster API's, k0smotron's and k0rdent's controllers on an API server: a double for machines.

It creates, joins, fails and takes away Machines as the real ones do, as far as a lease can see: counted by a
MachineDeployment, the machine that is marked to go first goes first, a deleted one stays until its drain is over and
its finalizer gone, and each contract has its conditions where it keeps them.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, Literal

from windfall.provisioner.machine import DELETE_FIRST, NO_DRAIN
from windfall.provisioner.manifests.cluster_api import CLUSTER_NAME, DEPLOYMENT_NAME
from windfall.provisioner.manifests.contracts import (
    CLUSTER,
    CLUSTER_DEPLOYMENT,
    CLUSTER_TEMPLATE,
    CREDENTIAL,
    MACHINE,
    MACHINE_DEPLOYMENT,
    POOLED_MACHINE,
    REMOTE_TEMPLATE,
    V1BETA1,
)
from windfall.provisioner.served_again import served_again
from windfall.provisioner.testing.k0rdent_played import K0rdent
from windfall.provisioner.testing.k0smotron_played import K0smotron
from windfall.provisioner.testing.played_statuses import failed, joined, owner, stalled, unprovisioned
from windfall.servicekit.errors import Transient
from windfall.servicekit.kube import Cluster, Kind, Object

log = logging.getLogger(__name__)

FINALIZER: Final = "machine.cluster.x-k8s.io"
_MANNER: Final = "double.windfall.dev/manner"
Manner = Literal["join", "stall", "fail"]


@dataclass(frozen=True)
class Pace:
    """What becomes of one machine, and how fast."""

    manner: Manner = "join"
    joins: timedelta = timedelta(0)
    """From its creation until it is a node, or has failed."""
    leaves: timedelta = timedelta(0)
    """From being asked to go until its finalizers run."""


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
        self.machines: Kind = MACHINE.at(version)
        self.deployments: Kind = MACHINE_DEPLOYMENT.at(version)
        self.k0smotron = K0smotron(cluster, namespace, version)
        self.k0rdent = K0rdent(cluster, namespace, self.machines, self.deployments, workers)
        self.manner: Manner = "join"
        """What becomes of the machines that are created from now on."""
        self.pace: Callable[[int], Pace] = lambda number: Pace(self.manner)
        """Of the n-th machine that is created."""
        self.drained = asyncio.Event()
        """Clear it and machines that are deleted wait for their drain, unless they are told not to."""
        self.drained.set()
        self.cleaned = asyncio.Event()
        """Clear it and machines that are deleted keep their finalizers whatever they are told: a slow delete."""
        self.cleaned.set()
        self.created: list[str] = []
        """Names of all Machines ever created, in order."""
        self.taken: list[str] = []
        """Names of all Machines that were taken away, some of them twice."""
        self._paces: dict[str, Pace] = {}
        self._since: dict[tuple[str, bool], float] = {}
        """When a machine was first seen, and seen leaving."""
        self._wake = asyncio.Event()

    async def play(self) -> None:
        """For ever: one pass after each change."""
        async with asyncio.TaskGroup() as group:
            version = self.machines.version
            for kind in (self.deployments, self.machines, CLUSTER.at(version), POOLED_MACHINE.at(version)):
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
                with served_again():
                    await self._pass()
            except Transient:
                # Somebody wrote in between, or the server is away: the next pass sees it.
                await asyncio.sleep(0.02)
                self._wake.set()

    async def _pass(self) -> None:
        deployments = (await self._cluster.list(self.deployments, self._namespace)).items
        if await self._cluster.serves(CLUSTER_DEPLOYMENT.at(V1BETA1)):
            await self.k0rdent.play({found["metadata"]["name"]: found for found in deployments})
            deployments = (await self._cluster.list(self.deployments, self._namespace)).items
        await self.k0smotron.host()
        await self.k0smotron.look()
        machines = (await self._cluster.list(self.machines, self._namespace)).items
        for deployment in deployments:
            await self._scale(deployment, machines)
        for machine in (await self._cluster.list(self.machines, self._namespace)).items:
            try:
                await self._advance(machine)
            except Transient:
                # The others do not wait for this one.
                self._wake.set()

    async def _scale(self, deployment: Object, machines: Sequence[Object]) -> None:
        name, cluster = deployment["metadata"]["name"], deployment["spec"]["clusterName"]
        found = [machine for machine in machines if machine["metadata"]["labels"].get(DEPLOYMENT_NAME) == name]
        staying = [machine for machine in found if not machine["metadata"].get("deletionTimestamp")]
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
        pace = self.pace(len(self.created))
        named = f"{name}-{uuid.uuid4().hex[:5]}"
        machine = {
            "apiVersion": self.machines.api_version,
            "kind": self.machines.kind,
            "metadata": {
                "name": named,
                "namespace": self._namespace,
                "labels": {
                    **(template.get("metadata") or {}).get("labels", {}),
                    CLUSTER_NAME: cluster,
                    DEPLOYMENT_NAME: name,
                },
                "annotations": {_MANNER: pace.manner},
                "finalizers": [FINALIZER],
                "ownerReferences": [owner(deployment)],
            },
            "spec": template["spec"],
        }
        await self._cluster.create(self.machines, machine)
        self._paces[named] = pace
        self.created.append(named)

    async def _advance(self, machine: Object) -> None:
        metadata = machine["metadata"]
        name, pace = metadata["name"], self._paces.get(metadata["name"], Pace())
        if metadata.get("deletionTimestamp"):
            if self._is_time(name, pace.leaves, leaving=True):
                await self._take(machine)
            return
        if not self._is_time(name, pace.joins):
            return
        if (machine.get("status") or {}).get("phase") == "Running":
            return
        manner = (metadata.get("annotations") or {}).get(_MANNER, "join")
        version = self.machines.version
        if manner == "join":
            status = await self._provisioned(machine)
        else:
            status = failed(version) if manner == "fail" else stalled(version)
        if machine.get("status") != status:
            await self._cluster.patch(self.machines, name, self._namespace, {"status": status}, subresource="status")

    def _is_time(self, name: str, after: timedelta, *, leaving: bool = False) -> bool:
        """Whether so long has gone by since it was first seen so; otherwise it is looked at again then."""
        loop = asyncio.get_running_loop()
        left = self._since.setdefault((name, leaving), loop.time()) + after.total_seconds() - loop.time()
        if left > 0:
            loop.call_later(left, self._wake.set)
        return left <= 0

    async def _take(self, machine: Object) -> None:
        metadata = machine["metadata"]
        drained = self.drained.is_set() or NO_DRAIN in (metadata.get("annotations") or {})
        if not (drained and self.cleaned.is_set() and metadata.get("finalizers")):
            return
        if _is_remote(machine) and not await self.k0smotron.release(metadata["name"]):
            self._wake.set()
            return
        guard = {"resourceVersion": metadata["resourceVersion"], "finalizers": None}
        self.taken.append(metadata["name"])
        await self._cluster.patch(self.machines, metadata["name"], self._namespace, {"metadata": guard})

    async def _provisioned(self, machine: Object) -> Object:
        name = machine["metadata"]["name"]
        why = None
        if _is_remote(machine):
            why = await self.k0smotron.provision(machine, machine["spec"]["infrastructureRef"]["name"])
        return joined(self.machines.version, name) if why is None else unprovisioned(self.machines.version, why)


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


def _is_remote(machine: Object) -> bool:
    """Whether k0smotron makes a node of it."""
    return bool(machine["spec"]["infrastructureRef"]["kind"] == REMOTE_TEMPLATE.kind)


def _said(playing: "asyncio.Task[None]") -> None:
    """At once, because whoever waits for a machine would wait for ever."""
    if not playing.cancelled() and (error := playing.exception()):
        log.error("the controllers have fallen", exc_info=error)
