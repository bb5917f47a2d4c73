"""Workloads come up and go: on the double, whose controllers are played, and on a control plane that has its own."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from windfall.servicekit.kube import Kind, Object
from windfall.servicekit.kube.kinds import DAEMON_SET, DEPLOYMENT, JOB, NODE, POD, STATEFUL_SET
from windfall.servicekit.testing.kube_examples import Space
from windfall.servicekit.testing.kube_played import Course, Kubelet, node, played


class Stage:
    """A namespace in which pods come up."""

    def __init__(self, space: Space, kubelet: Kubelet, place: str) -> None:
        self.space = space
        self.kubelet = kubelet
        self.place = place

    async def create(self, kind: Kind, name: str, spec: Object) -> None:
        pod: Object = {
            "nodeSelector": {"kubernetes.io/hostname": self.place},
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 5,
            "containers": [{"name": "main", "image": "image:1", "resources": {"limits": {"nvidia.com/gpu": "1"}}}],
        }
        if kind == JOB:
            pod["restartPolicy"] = "Never"
        template = {"metadata": {"labels": {"app": name}}, "spec": pod}
        selector = {} if kind == JOB else {"selector": {"matchLabels": {"app": name}}}
        metadata = {"name": name, "namespace": self.space.namespace}
        obj = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
        await self.space.cluster.create(kind, obj | {"spec": spec | selector | {"template": template}})

    async def reached(self, kind: Kind, name: str, is_so: Callable[[Object], bool]) -> Object:
        async with asyncio.timeout(60):
            async for change in self.space.cluster.follow(kind, self.space.namespace, fields=f"metadata.name={name}"):
                if change.verb == "present" and is_so(change.object):
                    return change.object
        raise AssertionError

    async def pods(self, count: int) -> list[Object]:
        """Return when there are so many."""
        there: dict[str, Object] = {}
        synced = False
        async with asyncio.timeout(60):
            async for change in self.space.cluster.follow(POD, self.space.namespace):
                if change.verb == "present":
                    there[change.object["metadata"]["name"]] = change.object
                elif change.verb == "absent":
                    there.pop(change.object["metadata"]["name"])
                synced = synced or change.verb == "synced"
                if synced and len(there) == count:
                    return list(there.values())
        raise AssertionError

    async def patch(self, kind: Kind, name: str, spec: Object) -> None:
        await self.space.cluster.patch(kind, name, self.space.namespace, {"spec": spec})


@pytest.fixture
async def stage(space: Space) -> AsyncIterator[Stage]:
    place = f"node-{space.namespace}"

    def course(pod: Object) -> Course:
        name = pod["metadata"]["name"]
        if name.startswith("fails"):
            return Course(runs=timedelta(0), exit_code=3)
        return Course(runs=timedelta(0)) if name.startswith("ends") else Course()

    kubelet = Kubelet(course, (node(place, nvidia=2),))
    async with played(space.server.kubeconfig, kubelet):
        yield Stage(space, kubelet, place)
    await space.cluster.delete(NODE, place)


async def test_a_stateful_set_scales_as_far_as_there_are_devices(stage: Stage) -> None:
    await stage.create(STATEFUL_SET, "s", {"replicas": 3, "serviceName": "s", "podManagementPolicy": "Parallel"})
    await stage.pods(3)
    await stage.reached(STATEFUL_SET, "s", lambda found: found["status"].get("readyReplicas") == 2)
    pods = await stage.pods(3)
    assert sorted(pod["metadata"]["name"] for pod in pods) == ["s-0", "s-1", "s-2"]
    await stage.patch(STATEFUL_SET, "s", {"replicas": 0})
    await stage.pods(0)
    await stage.reached(STATEFUL_SET, "s", lambda found: not found["status"].get("replicas"))
    await stage.patch(STATEFUL_SET, "s", {"replicas": 1})
    await stage.reached(STATEFUL_SET, "s", lambda found: found["status"].get("readyReplicas") == 1)
    assert stage.kubelet.started >= 3


async def test_a_cordoned_node_takes_nothing(stage: Stage) -> None:
    await stage.space.cluster.patch(NODE, stage.place, None, {"spec": {"unschedulable": True}})
    await stage.create(STATEFUL_SET, "s", {"replicas": 1, "serviceName": "s"})
    (pod,) = await stage.pods(1)
    assert "nodeName" not in pod["spec"]
    await stage.space.cluster.patch(NODE, stage.place, None, {"spec": {"unschedulable": None}})
    await stage.reached(STATEFUL_SET, "s", lambda found: found["status"].get("readyReplicas") == 1)


async def test_a_job_completes_and_another_fails(stage: Stage) -> None:
    def condition(kind: str) -> Callable[[Object], bool]:
        return lambda found: any(item["type"] == kind for item in found["status"].get("conditions") or ())

    await stage.create(JOB, "ends", {"completions": 2, "parallelism": 1})
    done = await stage.reached(JOB, "ends", condition("Complete"))
    assert done["status"]["succeeded"] == 2
    await stage.create(JOB, "fails", {"backoffLimit": 0})
    failed = await stage.reached(JOB, "fails", condition("Failed"))
    assert failed["status"]["conditions"][0]["reason"] == "BackoffLimitExceeded"


async def test_a_deployment_and_a_daemon_set(stage: Stage) -> None:
    await stage.create(DEPLOYMENT, "d", {"replicas": 1})
    await stage.reached(DEPLOYMENT, "d", lambda found: found["status"].get("readyReplicas") == 1)
    await stage.create(DAEMON_SET, "e", {})
    ready = await stage.reached(DAEMON_SET, "e", lambda found: found["status"].get("numberReady") == 1)
    assert ready["status"]["desiredNumberScheduled"] == 1
    await stage.space.cluster.delete(DEPLOYMENT, "d", stage.space.namespace)
    await stage.space.cluster.delete(DAEMON_SET, "e", stage.space.namespace)
    await stage.pods(0)


async def test_a_node_that_a_controller_took_for_lost_says_that_it_is_not(stage: Stage) -> None:
    if stage.space.server.double is not None:
        pytest.skip("the double takes no node for lost")
    silent = {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}
    await stage.space.cluster.patch(NODE, stage.place, None, {"status": {"conditions": [silent]}}, subresource="status")
    async with asyncio.timeout(60):
        async for change in stage.space.cluster.follow(NODE, fields=f"metadata.name={stage.place}"):
            conditions = change.object["status"]["conditions"] if change.verb == "present" else ()
            if any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
                return
