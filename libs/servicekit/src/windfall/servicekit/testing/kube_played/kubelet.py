"""The scheduler's and the kubelets' part: pods get a node, run, become ready, and end when they are asked to."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from windfall.servicekit.kube import Absent, Cluster, Conflict, Object
from windfall.servicekit.kube.kinds import LEASE, NODE, POD
from windfall.servicekit.testing.kube_played.persistence import persist
from windfall.servicekit.testing.kube_played.pod_status import ended, running, waiting
from windfall.servicekit.testing.kube_played.scheduler import fitting


@dataclass(frozen=True)
class Course:
    """What a pod does once it is on a node."""

    starts: timedelta = timedelta(0)
    """Until it is ready."""
    runs: timedelta | None = None
    """Until it ends by itself; for ever if none."""
    exit_code: int = 0
    """With which it ends by itself."""
    stops: timedelta = timedelta(0)
    """From the word to end until it has; the grace at most."""
    becomes_ready: bool = True
    stop_code: int = 0
    """With which it ends when it is asked to."""
    waits: tuple[str, str] | None = None
    """Why its container never starts: reason and message."""
    lost: bool = False
    """Its machine does not answer any more: when it is asked to end, nobody hears of it again."""


def node(name: str, labels: dict[str, str] | None = None, **devices: int) -> Object:
    """A node to play on. Devices as ``nvidia=8`` or ``amd=4``."""
    held = {f"{vendor}.com/gpu": str(count) for vendor, count in devices.items()} | {"cpu": "64", "memory": "256Gi"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name} | (labels or {})},
        "status": {
            "capacity": held | {"pods": "110"},
            "allocatable": held | {"pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        },
    }


_ALWAYS: Final = Course()
_KILLED: Final = 137
_BEAT_S: Final = 10.0


@dataclass
class Kubelet:
    """See the module.

    Args:
        course: of each pod.
        nodes: that are created; those that are there are used as well.
    """

    course: Callable[[Object], Course] = lambda pod: _ALWAYS
    nodes: tuple[Object, ...] = field(default_factory=lambda: (node("played-0", nvidia=8, amd=8),))
    started: int = 0
    """Pods that have become ready, ever."""

    async def prepare(self, cluster: Cluster) -> None:
        """Create its nodes."""
        for wanted in self.nodes:
            await persist(partial(self._make, cluster, wanted))

    async def run(self, cluster: Cluster) -> None:
        """For ever."""
        self._known_nodes: dict[str, Object] = {}
        self._pods: dict[str, Object] = {}
        self._stopping: set[str] = set()
        self._waiting: set[str] = set()
        self._lives: dict[str, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_nodes(cluster, tasks))
            tasks.create_task(self._follow_pods(cluster, tasks))

    async def beat(self, cluster: Cluster) -> None:
        """For ever: says that its nodes are alive. A real control plane takes one that is silent for 40 s for lost.

        As kubelets do it: a Lease that is renewed, and the node's own word where a controller has said otherwise.
        """
        while True:
            for name in (wanted["metadata"]["name"] for wanted in self.nodes):
                await persist(partial(_renew, cluster, name))
            for wanted in self.nodes:
                await persist(partial(_assert_ready, cluster, wanted))
            await asyncio.sleep(_BEAT_S)

    async def _make(self, cluster: Cluster, wanted: Object) -> None:
        await cluster.apply(NODE, wanted, manager="played-kubelet", force=True)
        await cluster.apply_status(NODE, wanted, manager="played-kubelet", force=True)

    async def _follow_nodes(self, cluster: Cluster, tasks: asyncio.TaskGroup) -> None:
        async for change in cluster.follow(NODE):
            if change.verb == "present":
                self._known_nodes[change.object["metadata"]["name"]] = change.object
            elif change.verb == "absent":
                self._known_nodes.pop(change.object["metadata"]["name"], None)
            self._schedule(cluster, tasks)

    async def _follow_pods(self, cluster: Cluster, tasks: asyncio.TaskGroup) -> None:
        async for change in cluster.follow(POD):
            if change.verb == "synced":
                continue
            pod, uid = change.object, change.object["metadata"]["uid"]
            if change.verb == "absent":
                self._pods.pop(uid, None)
                self._stopping.discard(uid)
                self._end_life(uid)
            else:
                self._pods[uid] = pod
                if "deletionTimestamp" in pod["metadata"] and uid not in self._stopping:
                    self._stopping.add(uid)
                    # What has ended must not be said to run: a server refuses it.
                    self._end_life(uid)
                    tasks.create_task(self._stop(cluster, pod))
            self._schedule(cluster, tasks)

    def _end_life(self, uid: str) -> None:
        if (life := self._lives.pop(uid, None)) is not None:
            life.cancel()

    def _schedule(self, cluster: Cluster, tasks: asyncio.TaskGroup) -> None:
        """Whatever waits and has a place now."""
        for uid, pod in list(self._pods.items()):
            if uid in self._lives or uid in self._stopping or _is_over(pod):
                continue
            place = pod["spec"].get("nodeName") or fitting(pod, self._known_nodes.values(), self._pods.values())
            if place is None:
                if uid not in self._waiting:
                    self._waiting.add(uid)
                    tasks.create_task(self._wait(cluster, pod))
                continue
            # What it asks for is taken from now on.
            self._pods[uid] = {**pod, "spec": pod["spec"] | {"nodeName": place}}
            self._lives[uid] = tasks.create_task(self._live(cluster, pod, place))

    async def _wait(self, cluster: Cluster, pod: Object) -> None:
        message = f"0/{len(self._known_nodes)} nodes are available."
        condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        await persist(lambda: _report(cluster, pod, {"phase": "Pending", "conditions": [condition]}))

    async def _live(self, cluster: Cluster, pod: Object, place: str) -> None:
        course = self.course(pod)
        if not pod["spec"].get("nodeName"):
            await persist(lambda: _bind(cluster, pod, place))
        if (waits := course.waits) is not None:
            await persist(lambda: _report(cluster, pod, waiting(pod, *waits)))
            return
        await asyncio.sleep(course.starts.total_seconds())
        if await persist(lambda: _report(cluster, pod, running(pod, ready=course.becomes_ready))):
            self.started += course.becomes_ready
        if course.runs is not None:
            await asyncio.sleep(course.runs.total_seconds())
            await persist(lambda: _report(cluster, pod, ended(pod, course.exit_code)))

    async def _stop(self, cluster: Cluster, pod: Object) -> None:
        metadata = pod["metadata"]
        grace = timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)
        course = self.course(pod)
        if course.lost:
            return
        await asyncio.sleep(min(grace, course.stops).total_seconds())
        if not _is_over(self._pods.get(metadata["uid"], pod)):
            code = course.stop_code if course.stops <= grace else _KILLED
            await persist(lambda: _report(cluster, pod, ended(pod, code)))
        await persist(lambda: _delete(cluster, pod))


async def _renew(cluster: Cluster, name: str) -> None:
    renewed = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    lease = {
        "apiVersion": LEASE.api_version,
        "kind": LEASE.kind,
        "metadata": {"name": name, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": renewed},
    }
    await cluster.apply(LEASE, lease, manager="played-kubelet", force=True)


async def _assert_ready(cluster: Cluster, wanted: Object) -> None:
    try:
        await cluster.apply_status(NODE, wanted, manager="played-kubelet", force=True)
    except (Absent, Conflict):
        # Its machine has been taken away.
        return


async def _bind(cluster: Cluster, pod: Object, place: str) -> None:
    try:
        await cluster.bind(pod["metadata"]["name"], pod["metadata"]["namespace"], place)
    except Conflict:
        # Bound already, by an attempt whose answer was lost; or gone.
        return


async def _report(cluster: Cluster, pod: Object, status: Object) -> bool:
    metadata = pod["metadata"]
    patch = {"metadata": {"uid": metadata["uid"]}, "status": status}
    try:
        await cluster.patch(POD, metadata["name"], metadata["namespace"], patch, subresource="status")
    except (Absent, Conflict):
        return False
    return True


async def _delete(cluster: Cluster, pod: Object) -> None:
    metadata = pod["metadata"]
    try:
        await cluster.delete(POD, metadata["name"], metadata["namespace"], uid=metadata["uid"], grace=timedelta(0))
    except Conflict:
        return


def _is_over(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
