"""Plays the controllers of StatefulSets and DaemonSets, and the kubelets, in one namespace of any API server.

Pods come ready at once and, asked to go, take ``drain``; no container runs. It is a loop over lists and not fast.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, Final

from windfall.provisioner.operator.marks import SELECTOR, SUSPENDED
from windfall.servicekit.clock import Clock
from windfall.servicekit.errors import Transient
from windfall.servicekit.kube import Cluster, Kind, Object
from windfall.servicekit.kube.kinds import DAEMON_SET, PERSISTENT_VOLUME_CLAIM, POD, SERVICE_ACCOUNT, STATEFUL_SET

_TURN: Final = timedelta(milliseconds=50)
NODE: Final = "played-node"


class PlayedCluster:
    """
    Args:
        drain: from a pod's being asked to go until it is gone.
        nodes: that a DaemonSet finds.
    """

    def __init__(self, cluster: Cluster, namespace: str, clock: Clock, drain: timedelta, nodes: int = 1) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._clock = clock
        self.drain = drain
        self.nodes = nodes
        self.born: list[str] = []
        """Names of the pods that have been made, in order."""
        self._going: dict[str, float] = {}
        self._controlled_by_others = False

    async def play(self) -> None:
        """For ever. Where there are controllers, kubelets and scheduler alone are played."""
        account = await self._cluster.get(SERVICE_ACCOUNT, "default", "default")
        self._controlled_by_others = account is not None
        while True:
            # Whoever was faster is seen in the next turn.
            with suppress(Transient):
                await self.turn()
            await self._clock.sleep(_TURN)

    async def turn(self) -> None:
        """Everything once."""
        pods = (await self._cluster.list(POD, self._namespace, labels=SELECTOR)).items
        for kind in () if self._controlled_by_others else (STATEFUL_SET, DAEMON_SET):
            for found in (await self._cluster.list(kind, self._namespace, labels=SELECTOR)).items:
                await self._controlled(kind, found, [pod for pod in pods if _owned(pod, found)])
        for pod in pods:
            await self._kubelet(pod)

    async def _controlled(self, kind: Kind, found: Object, pods: list[Object]) -> None:
        name, template = found["metadata"]["name"], found["spec"]["template"]
        if "deletionTimestamp" in found["metadata"]:
            return
        if kind == STATEFUL_SET:
            wanted = found["spec"]["replicas"]
        else:
            wanted = 0 if SUSPENDED in (template["spec"].get("nodeSelector") or {}) else self.nodes
        names = [f"{name}-{index}" for index in range(wanted)]
        there = {pod["metadata"]["name"] for pod in pods}
        for missing in (one for one in names if one not in there):
            await self._claims(found, missing)
            await self._cluster.create(POD, self._pod(found, missing, template))
            self.born.append(missing)
        for pod in pods:
            metadata = pod["metadata"]
            if metadata["name"] not in names and "deletionTimestamp" not in metadata:
                grace = timedelta(seconds=pod["spec"]["terminationGracePeriodSeconds"])
                await self._cluster.delete(POD, metadata["name"], self._namespace, grace=grace)
        ready = sum(_is_ready(pod) and "deletionTimestamp" not in pod["metadata"] for pod in pods)
        generation = found["metadata"]["generation"]
        if kind == STATEFUL_SET:
            status: dict[str, Any] = {"replicas": len(pods), "readyReplicas": ready, "observedGeneration": generation}
        else:
            status = {
                "desiredNumberScheduled": wanted,
                "currentNumberScheduled": len(pods),
                "numberMisscheduled": 0,
                "numberReady": ready,
                "observedGeneration": generation,
            }
        if any(found["status"].get(key, 0) != value for key, value in status.items()):
            await self._cluster.patch(kind, name, self._namespace, {"status": status}, subresource="status")

    async def _claims(self, found: Object, pod: str) -> None:
        for claim in found["spec"].get("volumeClaimTemplates") or ():
            name = f"{claim['metadata']['name']}-{pod}"
            if await self._cluster.get(PERSISTENT_VOLUME_CLAIM, name, self._namespace) is None:
                metadata = {"name": name, "namespace": self._namespace, "labels": claim["metadata"].get("labels", {})}
                obj = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": claim["spec"]}
                await self._cluster.create(PERSISTENT_VOLUME_CLAIM, obj)

    def _pod(self, found: Object, name: str, template: Mapping[str, Any]) -> Object:
        owner = {
            "apiVersion": found["apiVersion"],
            "kind": found["kind"],
            "name": found["metadata"]["name"],
            "uid": found["metadata"]["uid"],
            "controller": True,
        }
        metadata = {
            "name": name,
            "namespace": self._namespace,
            "labels": template["metadata"]["labels"],
            "ownerReferences": [owner],
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"] | {"nodeName": NODE}}

    async def _kubelet(self, pod: Object) -> None:
        name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        now = asyncio.get_running_loop().time()
        if not pod["spec"].get("nodeName"):
            # What is on no node is deleted at once.
            binding = Kind("", "v1", "Binding", f"pods/{name}/binding")
            target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
            metadata = {"name": name, "namespace": self._namespace}
            await self._cluster.create(
                binding, {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
            )
            self.born.append(name)
            return
        if "deletionTimestamp" in pod["metadata"]:
            if now - self._going.setdefault(uid, now) >= self.drain.total_seconds():
                await self._cluster.delete(POD, name, self._namespace, uid=uid, grace=timedelta(0))
        elif not _is_ready(pod):
            ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            await self._cluster.patch(POD, name, self._namespace, {"status": ready}, subresource="status")


@asynccontextmanager
async def played(cluster: Cluster, namespace: str, clock: Clock, drain: timedelta) -> AsyncIterator[PlayedCluster]:
    """It plays until it is left."""
    made = PlayedCluster(cluster, namespace, clock, drain)
    playing = asyncio.create_task(made.play(), name="played cluster")
    try:
        yield made
    finally:
        playing.cancel()
        (ended,) = await asyncio.gather(playing, return_exceptions=True)
        if isinstance(ended, Exception):
            raise ended


def _owned(pod: Object, owner: Object) -> bool:
    return any(one["uid"] == owner["metadata"]["uid"] for one in pod["metadata"].get("ownerReferences", ()))


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
