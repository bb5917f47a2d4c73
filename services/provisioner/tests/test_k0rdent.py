"""What k0rdent alone has: templates, credentials, pauses, trials, upgrades, add-ons."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from windfall.provisioner.backend import Outage
from windfall.provisioner.manifests.contracts import (
    CLUSTER_DEPLOYMENT,
    CLUSTER_TEMPLATE,
    CREDENTIAL,
    MULTI_CLUSTER_SERVICE,
    SERVICE_SET,
    Resource,
)
from windfall.provisioner.testing.machine_ground import SITE, Ground, grounded, lease, started, until
from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Object
from windfall.servicekit.kube.kinds import CONFIG_MAP
from windfall.servicekit.testing.kube_api import kube_api

# --- k0rdent alone ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def kcm(tmp_path: Path) -> AsyncIterator[Ground]:
    async with kube_api(tmp_path) as (_, kubeconfig), grounded(kubeconfig, "k0rdent", "v1beta2") as ground:
        yield ground


async def tell(ground: Ground, resource: Resource, name: str, status: Object) -> None:
    kind = resource.at("v1beta1")
    await ground.cluster.patch(kind, name, ground.namespace, {"status": status}, subresource="status")


def condition(kind: str, status: str, reason: str, message: str) -> Object:
    made = {"type": kind, "status": status, "reason": reason, "message": message}
    return {**made, "lastTransitionTime": "2026-01-01T00:00:00Z"}


async def test_a_template_must_be_there_and_valid(kcm: Ground) -> None:
    await tell(kcm, CLUSTER_TEMPLATE, "remote-1-0-0", {"valid": False, "validationError": "chart not found"})
    with pytest.raises(Mistake, match="ClusterTemplate remote-1-0-0 is not valid: chart not found"):
        await kcm.backend.start(lease(), {})
    await kcm.cluster.delete(CLUSTER_TEMPLATE.at("v1beta1"), "remote-1-0-0", kcm.namespace)
    with pytest.raises(Mistake, match="there is no ClusterTemplate remote-1-0-0"):
        await kcm.backend.start(lease(), {})


async def test_a_credential_must_be_there_and_is_waited_for(kcm: Ground) -> None:
    said = [condition("CredentialReady", "False", "Failed", "identity not found")]
    await tell(kcm, CREDENTIAL, "cred", {"ready": False, "conditions": said})
    with pytest.raises(Outage, match="identity not found"):
        await kcm.backend.start(lease(), {})
    await kcm.cluster.delete(CREDENTIAL.at("v1beta1"), "cred", kcm.namespace)
    with pytest.raises(Mistake, match="there is no Credential cred"):
        await kcm.backend.start(lease(), {})


async def test_a_pause_that_k0rdent_passes_on_from_a_region_is_waited_out(kcm: Ground) -> None:
    node = await kcm.backend.start(lease(), {})
    assert await kcm.backend.ready(node)
    paused = condition("Paused", "True", "Paused", "Related Region east is paused")
    await tell(kcm, CLUSTER_DEPLOYMENT, SITE, {"conditions": [paused]})
    with pytest.raises(Outage, match="Related Region east is paused"):
        await kcm.backend.start(lease(2), {})
    assert await kcm.backend.ready(node), "what runs goes on"


async def test_upgrades_are_shown_and_not_taken(kcm: Ground) -> None:
    node = await kcm.backend.start(lease(), {})
    assert await kcm.backend.ready(node)
    await tell(kcm, CLUSTER_DEPLOYMENT, SITE, {"availableUpgrades": ["remote-1-0-1"]})
    await kcm.backend.start(lease(2), {})
    assert kcm.backend.describe().endswith("; upgrades that wait for a person: remote-1-0-1")
    assert (await kcm.object())["spec"]["template"] == "remote-1-0-0"


async def test_a_trial_makes_nothing(kcm: Ground) -> None:
    kcm.said = {"dryRun": True}
    kcm.backend = kcm.make()
    with pytest.raises(Mistake, match="is on trial"):
        await kcm.backend.start(lease(), {})
    assert (await kcm.object())["spec"]["dryRun"] is True
    assert not kcm.controllers.created
    await kcm.backend.close()
    kcm.said = {}
    kcm.backend = kcm.make()
    node = await kcm.backend.start(lease(), {})
    assert "dryRun" not in (await kcm.object())["spec"]
    assert await kcm.backend.ready(node)


async def test_an_idle_cluster_is_deleted_when_asked_for_and_waited_for(kcm: Ground) -> None:
    kcm.said = {"whenIdle": "delete"}
    kcm.backend = kcm.make()
    node = await kcm.backend.start(lease(), {})
    assert await kcm.backend.ready(node)
    await kcm.backend.drain(node)
    assert await kcm.backend.wait(node) == 0
    await until(lambda: kcm.cluster.get(kcm.kind, SITE, kcm.namespace), None)
    # Again, with a controller that takes its time.
    node = await kcm.backend.start(lease(2), {})
    assert await kcm.backend.ready(node)
    kcm.controllers.k0rdent.uninstalled.clear()
    await kcm.backend.drain(node)
    assert await kcm.backend.wait(node) == 0
    await until(lambda: going(kcm), True)
    with pytest.raises(Outage, match="is still being deleted"):
        await kcm.backend.start(lease(3), {})
    kcm.controllers.k0rdent.uninstalled.set()
    kcm.controllers.nudge()
    node = await started(kcm, lease(3))
    assert await kcm.backend.ready(node)


async def going(ground: Ground) -> bool:
    return "deletionTimestamp" in (await ground.object())["metadata"]


async def test_services_are_paused_by_ours_alone(kcm: Ground) -> None:
    kind = SERVICE_SET.at("v1beta1")
    for name, cluster in (("mine", SITE), ("theirs", "other")):
        metadata = {"name": name, "namespace": kcm.namespace}
        spec = {"cluster": cluster, "provider": {"name": "sveltos"}}
        whole = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}
        await kcm.cluster.create(kind, whole)
    kcm.said = {"paused": True}
    kcm.backend = kcm.make()
    with pytest.raises(Outage, match="paused by its parameters"):
        await kcm.backend.start(lease(), {})
    assert [await is_paused(kcm, name) for name in ("mine", "theirs")] == [True, False]
    await kcm.backend.close()
    kcm.said = {}
    kcm.backend = kcm.make()
    await kcm.backend.start(lease(), {})
    assert [await is_paused(kcm, name) for name in ("mine", "theirs")] == [False, False]


async def is_paused(ground: Ground, name: str) -> bool:
    found = await ground.cluster.get(SERVICE_SET.at("v1beta1"), name, ground.namespace)
    assert found is not None
    return "k0rdent.mirantis.com/service-set-paused" in (found["metadata"].get("annotations") or {})


async def test_credential_and_add_ons_are_made_when_said(kcm: Ground) -> None:
    service = {"name": "cilium", "namespace": "kube-system", "template": "cilium-1-16-3"}
    kcm.said = {
        "credential": "made",
        "identity": {"apiVersion": "v1", "kind": "Secret", "name": "ssh", "namespace": kcm.namespace},
        "addOns": [service],
        "labels": {"gpu": "amd"},
    }
    kcm.backend = kcm.make()
    node = await started(kcm, lease())
    assert await kcm.backend.ready(node)
    made = await kcm.cluster.get(CREDENTIAL.at("v1beta1"), "made", kcm.namespace)
    assert made and made["metadata"]["ownerReferences"]
    add_ons = await kcm.cluster.get(MULTI_CLUSTER_SERVICE.at("v1beta1"), f"windfall-{SITE}")
    assert add_ons and add_ons["spec"]["serviceSpec"]["services"] == [service]
    assert (await kcm.object())["metadata"]["labels"]["gpu"] == "amd"
    references = await kcm.cluster.get(CONFIG_MAP, f"windfall-{SITE}-kubeconfigs", kcm.namespace)
    assert references and references["data"] == {SITE: f"{kcm.namespace}/{SITE}-kubeconfig#value"}
