"""The controllers of workloads: they follow workloads and what those own, and take one step after another."""

import asyncio
from collections import defaultdict
from datetime import UTC, datetime
from functools import partial
from typing import Final

from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Cluster, Conflict, Kind, Object
from windfall.servicekit.kube.kinds import DAEMON_SET, DEPLOYMENT, EVENT, JOB, NODE, POD, REPLICA_SET, STATEFUL_SET
from windfall.servicekit.testing.kube_played import workloads
from windfall.servicekit.testing.kube_played.persistence import persist
from windfall.servicekit.testing.kube_played.workloads import Step

_WORKLOADS: Final = (STATEFUL_SET, DAEMON_SET, JOB, REPLICA_SET, DEPLOYMENT)
_AGAIN_S: Final = 0.2
_KINDS: Final = {kind.kind: kind for kind in _WORKLOADS}


class Controllers:
    """See the module."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._seen: dict[Kind, dict[str, Object]] = {kind: {} for kind in (*_WORKLOADS, POD, NODE)}
        self._owned: defaultdict[str, set[tuple[Kind, str]]] = defaultdict(set)
        """By the uid of an owner: what it owns, by kind and uid."""
        self._due: asyncio.Queue[tuple[Kind, str]] = asyncio.Queue()
        self._queued: set[tuple[Kind, str]] = set()

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            for kind in self._seen:
                tasks.create_task(self._follow(kind))
            tasks.create_task(self._work())

    async def _follow(self, kind: Kind) -> None:
        async for change in self._cluster.follow(kind):
            if change.verb == "synced":
                continue
            found, uid = change.object, change.object["metadata"]["uid"]
            if change.verb == "present":
                self._seen[kind][uid] = found
            else:
                self._seen[kind].pop(uid, None)
            for owner in found["metadata"].get("ownerReferences") or ():
                if owner.get("controller") and owner["kind"] in _KINDS:
                    own = self._owned[owner["uid"]]
                    own.add((kind, uid)) if change.verb == "present" else own.discard((kind, uid))
                    self._mark(_KINDS[owner["kind"]], owner["uid"])
            if kind in _WORKLOADS:
                self._mark(kind, uid)
            elif kind == NODE:
                for workload in self._seen[DAEMON_SET]:
                    self._mark(DAEMON_SET, workload)

    def _mark(self, kind: Kind, uid: str) -> None:
        if (kind, uid) not in self._queued:
            self._queued.add((kind, uid))
            self._due.put_nowait((kind, uid))

    async def _work(self) -> None:
        while True:
            kind, uid = await self._due.get()
            self._queued.discard((kind, uid))
            workload = self._seen[kind].get(uid)
            if workload is None or "deletionTimestamp" in workload["metadata"]:
                continue
            try:
                await self._take(kind, workload)
            except Conflict:
                # Something has changed that has not been heard of yet; it will be, and marks this again.
                continue

    async def _take(self, kind: Kind, workload: Object) -> None:
        uid = workload["metadata"]["uid"]
        owned = {found: self._seen[found[0]].get(found[1]) for found in self._owned[uid]}
        pods = [obj for (what, _), obj in owned.items() if what == POD and obj is not None]
        scale: list[Object] = []
        match kind.kind:
            case "StatefulSet":
                step = workloads.stateful_set_step(workload, pods)
            case "DaemonSet":
                step = workloads.daemon_set_step(workload, pods, self._seen[NODE].values())
            case "Job":
                step = workloads.job_step(workload, pods, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
            case "ReplicaSet":
                step = workloads.replica_set_step(workload, pods)
            case _:
                sets = [obj for (what, _), obj in owned.items() if what == REPLICA_SET and obj is not None]
                step, scale = workloads.deployment_step(workload, sets)
        await self._do(kind, workload, step, scale)

    async def _do(self, kind: Kind, workload: Object, step: Step, scale: list[Object]) -> None:
        cluster, metadata = self._cluster, workload["metadata"]
        for made in step.make:
            try:
                await persist(partial(cluster.create, POD if made["kind"] == "Pod" else REPLICA_SET, made))
            except Mistake as refused:
                await persist(partial(cluster.apply, EVENT, _failed_create(workload, refused)))
                # Refused by a quota, as a rule: nobody says when there is room again.
                asyncio.get_running_loop().call_later(_AGAIN_S, self._mark, kind, metadata["uid"])
        for ended in step.end:
            whose = ended["metadata"]
            await persist(partial(cluster.delete, POD, whose["name"], whose["namespace"], uid=whose["uid"]))
        for scaled in scale:
            await persist(partial(cluster.replace, REPLICA_SET, scaled))
        if step.status != {name: (workload.get("status") or {}).get(name) for name in step.status}:
            patch = {"metadata": {"uid": metadata["uid"]}, "status": step.status}
            await persist(
                lambda: cluster.patch(kind, metadata["name"], metadata["namespace"], patch, subresource="status")
            )


def _failed_create(workload: Object, refused: Mistake) -> Object:
    """What a controller says of a pod that it may not create."""
    metadata = workload["metadata"]
    whom = {key: metadata[key] for key in ("name", "namespace", "uid")}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": f"{metadata['name']}.failed-create", "namespace": metadata["namespace"]},
        "involvedObject": {"apiVersion": workload["apiVersion"], "kind": workload["kind"], **whom},
        "type": "Warning",
        "reason": "FailedCreate",
        "message": f"Error creating: {refused.cause}",
        "source": {"component": f"{workload['kind'].lower()}-controller"},
    }
