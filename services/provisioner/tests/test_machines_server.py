"""Leases that are machines on an API server that is away, throttles or forgets, and among other people's objects."""

from pathlib import Path

import pytest

from windfall.provisioner.backend import Outage
from windfall.provisioner.machine import DELETE_FIRST
from windfall.provisioner.manifests.contracts import (
    CLUSTER,
)
from windfall.provisioner.manifests.labels import TOKEN
from windfall.provisioner.testing.machine_ground import (
    SITE,
    Ground,
    gone_within,
    grounded,
    lease,
    nothing_left,
    started,
    token_of,
    until,
    versions,
)
from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube.kinds import CRD
from windfall.servicekit.testing.kube_api import kube_api

PLATFORMS = [("cluster-api", "v1beta2"), ("k0rdent", "v1beta2"), ("cluster-api", "v1beta1")]
"""The backend, and the contract that its server speaks."""


# --- what a server may do ---------------------------------------------------------------------------------------------


async def test_a_server_that_is_down_costs_no_attempt(bare: Ground) -> None:
    assert bare.api is not None
    bare.api.faults.down = True
    with pytest.raises(Outage):
        await bare.backend.start(lease(), {})
    bare.api.faults.down = False
    node = await bare.backend.start(lease(), {})
    assert await bare.backend.ready(node)
    bare.api.faults.down = True
    await bare.backend.drain(node)
    assert await gone_within(bare, node, 0.5) == "still there"
    bare.api.faults.down = False
    assert await bare.backend.wait(node) == 0
    await nothing_left(bare)


async def test_a_server_that_throttles_fails_and_forgets_loses_nothing(bare: Ground) -> None:
    assert bare.api is not None
    faults = bare.api.faults
    faults.throttled, faults.failing, faults.deaf = 0.1, 0.1, 0.1
    faults.retry_after_s = 0
    for token in (1, 2, 3):
        wanted = lease(token)
        node = await started(bare, wanted)
        assert await bare.backend.ready(node)
        faults.cut_watches()
        await bare.backend.drain(node)
        assert await bare.backend.wait(node) == 0
    faults.throttled = faults.failing = faults.deaf = 0.0
    await nothing_left(bare)


async def test_a_server_that_does_not_know_its_definitions_yet_costs_no_attempt(bare: Ground) -> None:
    node = await bare.backend.start(lease(1), {})
    assert await bare.backend.ready(node)
    served = await serve(bare, served=False)
    with pytest.raises(Outage, match="not served now"):
        await bare.backend.start(lease(2), {})
    await bare.backend.drain(node)
    assert await gone_within(bare, node, 0.3) == "still there"
    await serve(bare, served=True)
    assert served, "its definition was there all the time"
    assert await bare.backend.wait(node) == 0
    await nothing_left(bare)


async def serve(ground: Ground, *, served: bool) -> bool:
    """Whether the version of the object that counts was served until now."""
    name = f"{ground.kind.plural}.{ground.kind.group}"
    found = await ground.cluster.get(CRD, name)
    assert found is not None
    versions = found["spec"]["versions"]
    (mine,) = (version for version in versions if version["name"] == ground.kind.version)
    before: bool = mine["served"]
    mine["served"] = served
    await ground.cluster.patch(CRD, name, None, {"spec": {"versions": versions}})
    await until(lambda: ground.cluster.serves(ground.kind), served)
    return before


async def test_a_machine_of_a_younger_lease_is_not_touched(bare: Ground) -> None:
    node = await bare.backend.start(lease(2), {})
    assert await bare.backend.ready(node)
    found = await bare.machine_of(node)
    name = found["metadata"]["name"]
    younger = {"metadata": {"annotations": {TOKEN: "9"}}}
    await bare.cluster.patch(bare.controllers.machines, name, bare.namespace, younger)
    await until(lambda: token_of(bare, name), "9")
    await bare.backend.drain(node)
    await until(bare.count, 0)
    after = await bare.cluster.get(bare.controllers.machines, name, bare.namespace)
    assert after is None or DELETE_FIRST not in after["metadata"]["annotations"]


async def test_what_is_somebody_elses_is_a_mistake(bare: Ground) -> None:
    node = await bare.backend.start(lease(), {})
    assert await bare.backend.ready(node)
    await bare.backend.kill(node)
    await bare.backend.wait(node)
    kind = bare.kind if bare.platform == "k0rdent" else CLUSTER.at(bare.version)
    theirs = {"metadata": {"labels": {"windfall.dev/site": "site-b"}}}
    await bare.cluster.patch(kind, SITE, bare.namespace, theirs)
    with pytest.raises(Mistake, match="is not this site's"):
        await bare.backend.start(lease(2), {})


# --- Cluster API alone ------------------------------------------------------------------------------------------------


async def test_a_cluster_that_others_keep_lends_its_machines(tmp_path: Path) -> None:
    async with kube_api(tmp_path) as (_, kubeconfig), grounded(kubeconfig, "cluster-api", "v1beta2") as ground:
        first = await ground.backend.start(lease(1), {})
        assert await ground.backend.ready(first)
        await ground.backend.kill(first)
        await ground.backend.wait(first)
        before = await versions(ground)
        await ground.backend.close()
        ground.said = {"manage": False, "version": None, "machines": []}
        ground.backend = ground.make()
        node = await ground.backend.start(lease(2), {})
        assert await ground.backend.ready(node)
        await ground.backend.drain(node)
        assert await ground.backend.wait(node) == 0
        after = await versions(ground)
        changed = {key for key in before.keys() & after.keys() if before[key] != after[key]}
        theirs = {key for key in changed if key[0] == "PooledRemoteMachine"}
        assert len(theirs) == 1, "the one that k0smotron took and gave back"
        assert changed - theirs == {("MachineDeployment", f"{SITE}-workers")}


async def test_a_cluster_that_is_not_there_a_paused_one_and_one_that_goes(tmp_path: Path) -> None:
    async with kube_api(tmp_path) as (_, kubeconfig), grounded(kubeconfig, "cluster-api", "v1beta2") as ground:
        ground.said = {"manage": False, "version": None, "machines": []}
        ground.backend = ground.make()
        with pytest.raises(Mistake, match=f"there is no MachineDeployment {SITE}-workers"):
            await ground.backend.start(lease(1), {})
        await ground.backend.close()
        ground.said = {}
        ground.backend = ground.make()
        node = await ground.backend.start(lease(1), {})
        kind = CLUSTER.at("v1beta2")
        await ground.cluster.patch(kind, SITE, ground.namespace, {"spec": {"paused": True}})
        with pytest.raises(Outage, match=f"the Cluster {SITE} is paused"):
            await ground.backend.start(lease(2), {})
        held = {"spec": {"paused": False}, "metadata": {"finalizers": ["cluster.cluster.x-k8s.io"]}}
        await ground.cluster.patch(kind, SITE, ground.namespace, held)
        await ground.cluster.delete(kind, SITE, ground.namespace)
        with pytest.raises(Outage, match=f"the Cluster {SITE} is being deleted"):
            await ground.backend.start(lease(2), {})
        await ground.backend.kill(node)
        await ground.backend.wait(node)
