"""Where the kubernetes backend puts a lease's pods: on the double, and on a real API server where there is one."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from windfall.provisioner.backend import NoRoom
from windfall.provisioner.dedicated import CORDONED_BY
from windfall.provisioner.holdings import Node
from windfall.provisioner.kubernetes import KubernetesBackend
from windfall.provisioner.manifests.chosen import CHOSEN
from windfall.provisioner.testing.pod_stage import ENVIRONMENT, Stage, eventually, gone, lease, untainted, up
from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Object
from windfall.servicekit.kube.kinds import CONFIG_MAP, JOB, NODE, POD, SECRET
from windfall.servicekit.testing.kube_examples import Space, created_pod
from windfall.servicekit.testing.kube_examples import pod as foreign
from windfall.servicekit.testing.kube_played import Kubelet, node, played

PRODUCT = "nvidia.com/gpu.product"
A100 = {PRODUCT: "NVIDIA-A100-SXM4-80GB", "nvidia.com/gpu.memory": "81920"}


@pytest.fixture
async def stage(space: Space) -> AsyncIterator[Stage]:
    """Two machines of four GPUs each, and whatever else the server has."""
    stage, pool = Stage(space), {"pool": space.namespace}
    machines = tuple(node(f"{space.namespace}-{letter}", pool | A100, nvidia=4) for letter in "ab")
    async with played(space.server.kubeconfig, Kubelet(lambda pod: stage.course, machines)):
        await untainted(space)
        yield stage
        for backend in stage.lives:
            await backend.close()
    for machine in machines:
        await space.cluster.delete(NODE, machine["metadata"]["name"])


def asking(stage: Stage, need: dict[str, Any], **settings: Any) -> KubernetesBackend:
    return stage.backend(
        kube_vendor="nvidia",
        kube_runtime_class="none",
        kube_node_selector={"pool": stage.namespace},
        kube_need=json.dumps(need),
        **settings,
    )


async def machines(stage: Stage) -> list[str]:
    """On which machines the site's pods are, by the last letters of their names."""
    return sorted(pod["spec"]["nodeName"].removeprefix(f"{stage.namespace}-") for pod in await stage.all(POD))


async def refused(backend: KubernetesBackend, stage: Stage, **changes: Any) -> dict[str, str]:
    """Of each machine of the stage, why it does not do."""
    with pytest.raises(NoRoom) as no_room:
        await backend.start(lease(**changes), ENVIRONMENT)
    assert not await stage.all(JOB, POD)
    assert f"{stage.namespace}-" not in no_room.value.why, "which machines they are is for who runs the site"
    lines = [line.partition(": ") for line in no_room.value.machines]
    return {name.removeprefix(f"{stage.namespace}-"): why for name, _, why in lines if stage.namespace in name}


async def hold(stage: Stage, letter: str, gpus: int) -> None:
    """Somebody else's pod on a machine."""
    wanted = foreign(stage.space, f"theirs-{letter}", f"{stage.namespace}-{letter}")
    wanted["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": str(gpus)}}
    await created_pod(stage.space, wanted)


async def test_four_free_on_each_of_two_machines_are_no_room_for_eight(stage: Stage) -> None:
    whys = await refused(asking(stage, {"gpus": 8}), stage)
    assert whys == dict.fromkeys("ab", "has 4 nvidia.com/gpu free, a worker needs 8")


async def test_a_gang_takes_what_each_machine_has(stage: Stage) -> None:
    backend = asking(stage, {"gpus": 2}, kube_workers=3)
    await up(backend, lease())
    assert await machines(stage) == ["a", "a", "b"]


async def test_spread_means_on_as_many_as_there_are(stage: Stage) -> None:
    await up(asking(stage, {"gpus": 1, "arrangement": "spread"}, kube_workers=2), lease())
    assert await machines(stage) == ["a", "b"]


async def test_what_somebody_else_holds_is_not_free(stage: Stage) -> None:
    await hold(stage, "a", 1)
    backend = asking(stage, {"gpus": 4})
    started = await up(backend, lease())
    assert await machines(stage) == ["b"]
    await backend.kill(started)
    assert await gone(backend, started) == -9
    await hold(stage, "b", 3)
    await stage.until(JOB, POD, count=0)
    whys = await refused(backend, stage, token=2)
    assert whys == {
        "a": "has 3 nvidia.com/gpu free, a worker needs 4",
        "b": "has 1 nvidia.com/gpu free, a worker needs 4",
    }


@pytest.mark.parametrize(
    ("need", "why"),
    [
        ({"models": ["H100"]}, "has nvidia a100, needed is h100"),
        ({"gpu_memory_bytes": 96 * 2**30}, "its GPUs have 80 GiB, 96 GiB are needed"),
        ({"interconnects": ["pcie"]}, "its GPUs are joined by nvlink, needed is pcie"),
        ({"samples_per_s": 10}, "its throughput was not measured"),
        ({"interconnect_gb_per_s": 100}, "its interconnect was not measured"),
        ({"pools": [{"name": "h100", "model": "H100"}]}, "is in no pool that the site lends (h100)"),
    ],
)
async def test_a_machine_of_the_wrong_kind_is_not_used(stage: Stage, need: dict[str, Any], why: str) -> None:
    assert await refused(asking(stage, {"gpus": 1} | need), stage) == dict.fromkeys("ab", why)


async def test_a_pool_lends_no_more_gpus_than_it_says(stage: Stage) -> None:
    lends = {"gpus": 2, "pools": [{"name": "a100", "vendor": "nvidia", "count": 3}]}
    with pytest.raises(NoRoom, match=r"has room for 1 of 2 workers.*the pool a100 lends 3 GPUs, of which 0 are held"):
        await asking(stage, lends, kube_workers=2).start(lease(), ENVIRONMENT)
    await up(asking(stage, lends), lease(token=2))
    # What the last lease holds is on its way back: the next one is not refused for it.
    await up(asking(stage, lends), lease(token=3))


async def test_the_profile_of_a_machine_counts_once_it_is_labelled(stage: Stage) -> None:
    measured = {"windfall.dev/samples-per-s": "25.0", "windfall.dev/gpu.interconnect-gb-per-s": "250.0"}
    slow = {"windfall.dev/samples-per-s": "5.0", "windfall.dev/gpu.interconnect-gb-per-s": "250.0"}
    for letter, labels in (("a", slow), ("b", measured)):
        await stage.cluster.patch(NODE, f"{stage.namespace}-{letter}", None, {"metadata": {"labels": labels}})
    await up(asking(stage, {"gpus": 1, "samples_per_s": 10, "interconnect_gb_per_s": 200}), lease())
    assert await machines(stage) == ["b"]


async def test_a_site_outside_the_allowed_jurisdictions_is_never_used(stage: Stage) -> None:
    with pytest.raises(Mistake, match="site-a may not be used: jurisdiction: US-GA is not within CA"):
        await asking(stage, {"jurisdictions": ["CA"]}, jurisdiction="US-GA").start(lease(), ENVIRONMENT)
    with pytest.raises(Mistake, match="it says under no law"):
        await asking(stage, {"jurisdictions": ["CA"]}).start(lease(), ENVIRONMENT)
    assert not await stage.all(JOB, POD)
    await up(asking(stage, {"jurisdictions": ["CA"]}, jurisdiction="CA-QC"), lease(token=2))


async def test_a_restarted_provisioner_writes_the_same_bytes(stage: Stage) -> None:
    wanted, need = lease(), {"gpus": 4}
    await up(asking(stage, need), wanted)

    async def counted() -> bool:
        return all((job.get("status") or {}).get("active") == 1 for job in await stage.all(JOB))

    await eventually(counted)
    before = await written(stage)
    # Asked again it would choose the other machine: this one is held, by the pod of the lease itself.
    again = asking(stage, need)
    assert await again.start(wanted, ENVIRONMENT) == Node.of(wanted)
    assert await written(stage) == before
    assert await machines(stage) == ["a"]


async def written(stage: Stage) -> dict[str, Any]:
    """Of each object of the lease, what it says; who wrote it and when is left out."""
    found = await stage.all(CONFIG_MAP, SECRET, JOB)
    return {
        each["metadata"]["uid"]: (each["metadata"]["annotations"], each.get("spec"), each.get("data")) for each in found
    }


async def test_a_choice_is_finished_where_its_machine_has_filled_up_since(stage: Stage) -> None:
    wanted, backend = lease(), asking(stage, {"gpus": 4})
    await up(backend, wanted)
    (job,) = await stage.all(JOB)
    await backend.close()
    # As after a crash between the lease's ConfigMap and its Job.
    await stage.cluster.delete(JOB, job["metadata"]["name"], stage.namespace)
    await stage.until(JOB, POD, count=0)
    await hold(stage, "a", 1)
    again = asking(stage, {"gpus": 4})
    started = await again.start(wanted, ENVIRONMENT)
    (job,) = await stage.all(JOB)
    assert placed_on(job) == f"{stage.namespace}-a"
    # Nobody can come up there: the next attempt is chosen for anew.
    await again.kill(started)
    assert await gone(again, started) == -9
    await stage.until(JOB, POD, count=0)
    await up(again, wanted.model_copy(update={"attempts": 2}))
    assert await machines(stage) == ["b"]


def placed_on(job: Object) -> str:
    towards = job["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    (term,) = towards["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    name: str = term["matchFields"][0]["values"][0]
    return name


async def test_the_choice_goes_with_its_lease(stage: Stage) -> None:
    backend = asking(stage, {"gpus": 4})
    for token in (1, 2):
        started = await up(backend, lease(token=token))
        (found,) = [each for each in await stage.all(CONFIG_MAP) if CHOSEN in each["metadata"]["annotations"]]
        assert json.loads(found["metadata"]["annotations"][CHOSEN])["nodes"] == [f"{stage.namespace}-a"]
        await backend.drain(started)
        assert await gone(backend, started) == 0
        await stage.until(JOB, POD, count=0)
        await stage.until(CONFIG_MAP, count=1)


async def test_the_next_lease_takes_what_the_last_one_gives_back(stage: Stage) -> None:
    backend = asking(stage, {"gpus": 4}, kube_workers=2)
    first = await up(backend, lease())
    second = await backend.start(lease(token=2), ENVIRONMENT)
    await backend.drain(first)
    assert await gone(backend, first) == 0
    assert await backend.ready(second)
    await stage.until(JOB, POD, count=4)
    assert await machines(stage) == ["a", "b"]


async def test_nodes_of_the_sites_own_are_closed_and_have_room_all_the_same(stage: Stage) -> None:
    backend = asking(stage, {"gpus": 4}, kube_dedicated=True)
    for token in (1, 2):
        started = await up(backend, lease(token=token))
        await backend.drain(started)
        assert await gone(backend, started) == 0

        async def closed() -> bool:
            found = (await stage.cluster.list(NODE, labels=f"pool={stage.namespace}")).items
            return all((each.get("spec") or {}).get("unschedulable") for each in found)

        await eventually(closed)
    person = {"spec": {"unschedulable": True}, "metadata": {"annotations": {CORDONED_BY: None}}}
    for letter in "ab":
        await stage.cluster.patch(NODE, f"{stage.namespace}-{letter}", None, person)
    assert await refused(backend, stage, token=3) == dict.fromkeys("ab", "is cordoned")


async def test_a_plan_says_where_and_why_not(stage: Stage) -> None:
    shown = await asking(stage, {"gpus": 4}).plan(lease(), ENVIRONMENT)
    assert placed_on(json.loads(shown[-1])) == f"{stage.namespace}-a"
    with pytest.raises(NoRoom, match="has room for 0 of 1 workers"):
        await asking(stage, {"gpus": 5}).plan(lease(), ENVIRONMENT)
