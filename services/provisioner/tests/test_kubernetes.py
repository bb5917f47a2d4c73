"""Pods of a cluster whose world misbehaves: on the double, and on a real API server where there is one."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from windfall.provisioner.backend import Outage
from windfall.provisioner.dedicated import CORDONED_BY, Gate
from windfall.provisioner.holdings import Node
from windfall.provisioner.manifests.labels import TOKEN, owned
from windfall.provisioner.testing.pod_stage import ENVIRONMENT, SECONDS, Stage, eventually, gone, lease, up
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.kube import Object
from windfall.servicekit.kube.kinds import CONFIG_MAP, JOB, NODE, PERSISTENT_VOLUME_CLAIM, POD, SECRET, SERVICE
from windfall.servicekit.testing.kube_examples import ApiServer, Space
from windfall.servicekit.testing.kube_played import Course, Kubelet, node, played


@pytest.fixture
async def stage(space: Space) -> AsyncIterator[Stage]:
    stage = Stage(space)
    nodes = (node("played-0", {"pool": space.namespace}, nvidia=4),)
    async with played(space.server.kubeconfig, Kubelet(lambda pod: stage.course, nodes)):
        yield stage
        for backend in stage.lives:
            await backend.close()


async def test_a_node_leaves_nothing_but_its_state(stage: Stage) -> None:
    backend = stage.backend(kube_workers=2)
    started = await up(backend, lease())
    assert await stage.names(JOB) == ["site-a-1-w0", "site-a-1-w1"]
    assert await stage.names(CONFIG_MAP) == ["site-a-1", "windfall-site-a"]
    assert await stage.names(SECRET) == ["site-a-1"]
    for found in await stage.all():
        assert found["metadata"].get("ownerReferences") or found["metadata"]["name"] == "windfall-site-a"
    await backend.drain(started)
    assert await gone(backend, started) == 0
    await stage.until(JOB, POD, SECRET, SERVICE, count=0)
    await stage.until(CONFIG_MAP, count=1)
    assert await stage.names(PERSISTENT_VOLUME_CLAIM) == ["windfall-site-a-state"]


async def test_a_node_that_is_not_ready_drains_as_well(stage: Stage) -> None:
    stage.course = Course(becomes_ready=False)
    backend = stage.backend()
    started = await backend.start(lease(), ENVIRONMENT)

    async def runs() -> bool:
        return [(pod.get("status") or {}).get("phase") for pod in await stage.all(POD)] == ["Running"]

    await eventually(runs)
    await backend.drain(started)
    assert await gone(backend, started) == 0


async def test_whoever_deletes_the_anchor_leaves_nothing(stage: Stage) -> None:
    backend = stage.backend()
    started = await up(backend, lease())
    await stage.cluster.delete(CONFIG_MAP, "windfall-site-a", stage.namespace)
    assert await gone(backend, started) == -15
    await stage.until(CONFIG_MAP, SECRET, JOB, POD, count=0)


async def test_what_is_written_twice_is_written_once(stage: Stage) -> None:
    wanted = lease()
    await up(stage.backend(), wanted)

    async def counted() -> bool:
        return all((job.get("status") or {}).get("active") == 1 for job in await stage.all(JOB))

    # The Job's controller says last what it has made.
    await eventually(counted)
    before = {found["metadata"]["uid"]: found["metadata"]["resourceVersion"] for found in await stage.all()}
    again = stage.backend()
    # As after a crash before anything was journaled: ordered again, by a provisioner that has adopted nothing.
    assert await again.start(wanted, ENVIRONMENT) == Node.of(wanted)
    assert {found["metadata"]["uid"]: found["metadata"]["resourceVersion"] for found in await stage.all()} == before
    assert await again.adopt() == (Node.of(wanted),)


async def test_a_node_half_written_is_no_node(stage: Stage) -> None:
    wanted = lease()
    await up(stage.backend(kube_workers=2), wanted)
    (first, _) = await stage.all(JOB)
    await stage.cluster.delete(JOB, first["metadata"]["name"], stage.namespace)
    await stage.until(JOB, count=1)
    assert await stage.backend().adopt() == ()
    await stage.until(JOB, POD, count=0)


async def test_pods_that_have_outlived_their_lease_are_adopted(stage: Stage) -> None:
    stage.course = Course(lost=True)
    wanted = lease()
    await up(stage.backend(kube_workers=2), wanted)
    await stage.cluster.delete(CONFIG_MAP, "windfall-site-a", stage.namespace)
    await stage.until(CONFIG_MAP, JOB, count=0)
    again = stage.backend()
    assert await again.adopt() == (Node.of(wanted),)
    await again.kill(Node.of(wanted))
    assert await gone(again, Node.of(wanted)) == -9
    await stage.until(POD, count=0)


async def test_an_older_lease_is_refused(stage: Stage) -> None:
    await up(stage.backend(), lease(token=5))
    with pytest.raises(Mistake, match=r"lease 5 is the youngest of site-a by the ConfigMap windfall-site-a, not 4"):
        await stage.backend().start(lease(token=4), ENVIRONMENT)
    assert await stage.names(JOB) == ["site-a-5-w0"]


async def test_of_two_leases_that_start_at_once_the_youngest_is_on_the_anchor(stage: Stage) -> None:
    backend = stage.backend()
    both = [backend.start(lease(token=token), ENVIRONMENT) for token in (7, 6, 8)]
    await asyncio.gather(*both, return_exceptions=True)
    anchor = await stage.cluster.get(CONFIG_MAP, "windfall-site-a", stage.namespace) or {}
    assert anchor["metadata"]["annotations"][TOKEN] == "8"
    with pytest.raises(Mistake, match="lease 8 is the youngest"):
        await backend.start(lease(token=7), ENVIRONMENT)


@pytest.mark.parametrize(
    ("course", "says"),
    [
        (Course(waits=("ErrImagePull", "no such image")), "ErrImagePull: no such image"),
        (Course(becomes_ready=False), ""),
    ],
)
async def test_what_keeps_a_node_is_told(stage: Stage, course: Course, says: str) -> None:
    stage.course = course
    backend = stage.backend()
    started = await backend.start(lease(), ENVIRONMENT)
    if says:
        async with asyncio.timeout(SECONDS):
            assert await anext(backend.troubles(started)) == says
    await backend.kill(started)
    assert await gone(backend, started) == -9


async def test_there_is_no_machine_for_it(stage: Stage) -> None:
    backend = stage.backend(kube_accelerators=64, kube_vendor="nvidia", kube_runtime_class="none")
    started = await backend.start(lease(), ENVIRONMENT)
    async with asyncio.timeout(SECONDS):
        assert (await anext(backend.troubles(started))).startswith("Unschedulable: 0/")
    await backend.drain(started)
    await gone(backend, started)
    await stage.until(JOB, POD, count=0)


async def test_a_pod_that_somebody_deletes_is_no_orderly_end(stage: Stage) -> None:
    backend = stage.backend()
    started = await up(backend, lease())
    (pod,) = await stage.all(POD)
    await stage.cluster.delete(POD, pod["metadata"]["name"], stage.namespace)
    assert await gone(backend, started) == -15
    await stage.until(JOB, POD, count=0)


async def test_one_worker_that_falls_takes_the_others_along(stage: Stage) -> None:
    backend = stage.backend(kube_workers=3)
    started = await up(backend, lease())
    pod = (await stage.all(POD))[1]
    await stage.cluster.delete(POD, pod["metadata"]["name"], stage.namespace, grace=timedelta(0))
    assert await gone(backend, started) == -15
    await stage.until(JOB, POD, count=0)


async def test_a_finalizer_that_sticks_does_not_hold_the_next_lease(stage: Stage) -> None:
    backend = stage.backend()
    started = await up(backend, lease())
    (pod,) = await stage.all(POD)
    stuck = {"metadata": {"finalizers": ["example.org/stuck"]}}
    await stage.cluster.patch(POD, pod["metadata"]["name"], stage.namespace, stuck)
    await backend.drain(started)
    assert await gone(backend, started) == 0, "its container has ended, whoever holds the pod"
    second = await up(backend, lease(token=2))
    await stage.cluster.patch(POD, pod["metadata"]["name"], stage.namespace, {"metadata": {"finalizers": None}})
    await backend.kill(second)


async def test_what_another_manager_holds_is_said(stage: Stage) -> None:
    wanted = lease()
    taken = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "site-a-1", "namespace": stage.namespace},
        "data": {"WINDFALL_SITE": "theirs"},
    }
    await stage.cluster.apply(CONFIG_MAP, taken, manager="somebody-else")
    with pytest.raises(Transient, match="somebody-else"):
        await stage.backend().start(wanted, ENVIRONMENT)
    assert (await stage.cluster.get(CONFIG_MAP, "site-a-1", stage.namespace) or {})["data"] == taken["data"]


async def test_a_namespace_that_is_not_there(stage: Stage) -> None:
    with pytest.raises(Mistake, match=r"there is no namespace nowhere. Create it, or set WINDFALL_KUBE_NAMESPACE"):
        await stage.backend(kube_namespace="nowhere").start(lease(), ENVIRONMENT)


async def test_a_site_that_is_not_there(stage: Stage) -> None:
    if stage.space.server.double is not None:
        pytest.skip("the double serves no such kind: another mistake")
    with pytest.raises(Mistake):
        await stage.backend(kube_owner="site-a").start(lease(), ENVIRONMENT)


async def test_a_dry_run_shows_what_it_would_write_and_writes_nothing(stage: Stage) -> None:
    shown = await stage.backend(kube_workers=2).plan(lease(), ENVIRONMENT)
    kinds = [
        "ConfigMap",
        "PersistentVolumeClaim",
        "ConfigMap",
        "Secret",
        "Service",
        "PodDisruptionBudget",
        "Job",
        "Job",
    ]
    assert [text.partition('"kind": "')[2].partition('"')[0] for text in shown] == kinds
    assert not any("hunter2" in text for text in shown)
    assert not await stage.all(CONFIG_MAP, PERSISTENT_VOLUME_CLAIM, SECRET, JOB)


async def test_dedicated_nodes_are_closed_while_nothing_is_held(stage: Stage) -> None:
    backend = stage.backend(kube_dedicated=True, kube_node_selector={"pool": stage.namespace})
    started = await up(backend, lease())
    await backend.drain(started)
    assert await gone(backend, started) == 0

    async def played_node() -> Object:
        return await stage.cluster.get(NODE, "played-0") or {}

    async def closed() -> bool:
        return bool((await played_node()).get("spec", {}).get("unschedulable"))

    await eventually(closed)
    assert (await played_node())["metadata"]["annotations"][CORDONED_BY] == "site-a"
    second = await up(backend, lease(token=2))
    assert not (await played_node()).get("spec", {}).get("unschedulable")
    await backend.kill(second)


async def test_a_lease_that_comes_while_the_last_one_goes_finds_its_nodes_open(stage: Stage) -> None:
    gate = Gate(stage.cluster, {"pool": stage.namespace}, "site-a")

    async def closed() -> bool:
        return bool(((await stage.cluster.get(NODE, "played-0") or {}).get("spec") or {}).get("unschedulable"))

    with gate.coming():
        await gate.close(lambda: True)
        assert not await closed()
    await asyncio.gather(gate.close(lambda: True), gate.open())
    assert not await closed(), "they take turns: what was asked last is so"
    await asyncio.gather(gate.open(), gate.close(lambda: True))
    assert await closed()
    await gate.open()


async def test_the_youngest_lease_is_on_the_anchor(stage: Stage) -> None:
    backend = stage.backend()
    await up(backend, lease(token=3))
    anchor = await stage.cluster.get(CONFIG_MAP, "windfall-site-a", stage.namespace) or {}
    assert anchor["metadata"]["annotations"][TOKEN] == "3"
    assert owned(anchor, anchor)["metadata"]["ownerReferences"][0]["name"] == "windfall-site-a"


class TestFaults:
    """What an API server can do, on the double alone."""

    @pytest.fixture
    async def faulty(self, stage: Stage, api_server: ApiServer) -> Stage:
        if api_server.double is None:
            pytest.skip("a real API server has no switches")
        return stage

    async def test_nobody_is_there(self, faulty: Stage) -> None:
        double = faulty.space.server.double
        assert double is not None
        backend = faulty.backend()
        double.faults.down = True
        with pytest.raises(Outage):
            await backend.start(lease(), ENVIRONMENT)
        double.faults.down = False
        await up(backend, lease())

    async def test_it_is_away_for_a_while(self, faulty: Stage) -> None:
        double = faulty.space.server.double
        assert double is not None
        backend = faulty.backend()
        started = await up(backend, lease())
        double.faults.down = True
        double.faults.cut_watches()
        with pytest.raises(Outage):
            await backend.drain(started)
        waiting = asyncio.create_task(backend.wait(started))
        await asyncio.sleep(0.2)
        assert not waiting.done(), "what cannot be asked is not gone"
        double.faults.down = False
        await backend.drain(started)
        async with asyncio.timeout(SECONDS):
            assert await waiting == 0

    async def test_it_throttles_and_forgets(self, faulty: Stage) -> None:
        double = faulty.space.server.double
        assert double is not None
        backend = faulty.backend()
        started = await up(backend, lease())
        double.faults.gone = True
        double.faults.cut_watches()
        await asyncio.sleep(0.1)
        double.faults.gone = False
        double.faults.throttled = 0.5
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    await backend.drain(started)
                    break
                except Transient:
                    await asyncio.sleep(0.01)
            double.faults.throttled = 0
            assert await backend.wait(started) == 0
