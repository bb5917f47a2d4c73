"""What is written for Cluster API and k0rdent, against the schemas that the projects publish: no field that they do not
know. Skipped where the schemas are not beside the checkout (``WINDFALL_SCHEMAS`` says where else)."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from windfall.provisioner.manifests import cluster_api, k0rdent
from windfall.provisioner.manifests.cluster_parameters import ClusterApiParameters
from windfall.provisioner.manifests.contracts import (
    CLUSTER,
    CLUSTER_API,
    MACHINE_DEPLOYMENT,
    NEWEST,
    OLDEST,
    Contract,
    Resource,
    chosen,
    offered,
)
from windfall.provisioner.manifests.k0rdent import Chart, Identity, K0rdentParameters, Service
from windfall.provisioner.manifests.labels import Manifest
from windfall.provisioner.manifests.pooled_machines import UNREACHABLE, Place, pooled
from windfall.servicekit.errors import Mistake

SCHEMAS = Path(os.environ.get("WINDFALL_SCHEMAS", Path(__file__).resolve().parents[4] / "shared" / "schemas"))
needs_schemas = pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the upstream schemas are not beside the checkout")

RICH = {
    "cluster": "quebec",
    "version": "v1.33.4-k0s.0",
    "controlPlane": {
        "replicas": 3,
        "service": "NodePort",
        "externalAddress": "cp.example",
        "k0sConfig": {"spec": {"network": {"provider": "custom"}}},
    },
    "network": {"pods": ["10.1.0.0/16"]},
    "machines": [
        {"name": "a", "address": "192.0.2.1", "sshKeySecret": "quebec-ssh", "cleanUp": ["rm -rf /scratch"]},
        {"name": "b", "address": "node-b.example", "port": 2222, "user": "ops", "useSudo": True, "sshKeySecret": "b"},
    ],
    "workers": {"args": ["--labels=gpu=a100"], "before": ["true"], "after": ["true"], "preInstalled": True},
}
DRAIN = timedelta(minutes=10)


def strict(schema: Any) -> Any:
    """The schema with unknown fields refused, except where the server keeps them."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(part) for key, part in schema.items() if key != "format"}
    named = isinstance(made.get("properties"), dict) and "type" in made
    if named and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


def faults(manifest: Manifest) -> list[str]:
    group, _, version = manifest["apiVersion"].rpartition("/")
    found = json.loads((SCHEMAS / f"{group}_{version}_{manifest['kind'].lower()}.json").read_text())
    assert found["served"], f"{manifest['apiVersion']} of {manifest['kind']} is not served"
    schema = strict(found["schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return [f"{error.json_path}: {error.message}" for error in Draft202012Validator(schema).iter_errors(manifest)]


def rendered(said: ClusterApiParameters, spoken: Contract) -> Iterator[Manifest]:
    named = said.named("site-a")
    yield cluster_api.cluster("site-a", "energy", named, spoken)
    for _, manifest in cluster_api.parts("site-a", "energy", named, spoken, DRAIN):
        yield manifest


@needs_schemas
@pytest.mark.parametrize("spoken", [NEWEST, OLDEST], ids=["v1beta2", "v1beta1"])
@pytest.mark.parametrize("said", [RICH, {"version": "v1.33.4+k0s.0"}], ids=["rich", "plain"])
def test_a_cluster_is_valid_in_both_contracts(spoken: Contract, said: Mapping[str, Any]) -> None:
    manifests = list(rendered(ClusterApiParameters.model_validate(said), spoken))
    assert [(manifest["kind"], faults(manifest)) for manifest in manifests if faults(manifest)] == []
    assert {manifest["kind"] for manifest in manifests} >= {
        "Cluster",
        "K0smotronControlPlane",
        "RemoteCluster",
        "RemoteMachineTemplate",
        "K0sWorkerConfigTemplate",
        "MachineDeployment",
    }


@needs_schemas
def test_the_check_itself_refuses_an_unknown_field() -> None:
    manifest = next(rendered(ClusterApiParameters(version="v1.33.4+k0s.0"), NEWEST))
    manifest["spec"]["clusterNetwork"]["podz"] = {}
    assert "podz" in str(faults(manifest))


@needs_schemas
def test_mixed_contracts_name_each_other_in_the_way_of_whoever_names() -> None:
    core_is_old: Contract = {**NEWEST, CLUSTER: CLUSTER.at("v1beta1")}
    manifest = next(rendered(ClusterApiParameters(version="v1.33.4+k0s.0"), core_is_old))
    assert manifest["spec"]["controlPlaneRef"]["apiVersion"] == "controlplane.cluster.x-k8s.io/v1beta2"
    assert faults(manifest) == []


def test_the_pool_and_its_keys_are_references() -> None:
    manifests = list(rendered(ClusterApiParameters.model_validate(RICH), NEWEST))
    pooled = [manifest for manifest in manifests if manifest["kind"] == "PooledRemoteMachine"]
    assert [manifest["metadata"]["name"] for manifest in pooled] == ["quebec-a", "quebec-b"]
    assert pooled[0]["spec"]["machine"]["sshKeyRef"] == {"name": "quebec-ssh"}
    assert {manifest["spec"]["pool"] for manifest in pooled} == {"quebec"}


@needs_schemas
@pytest.mark.parametrize("spoken", [NEWEST, OLDEST], ids=["v1beta2", "v1beta1"])
def test_a_machine_that_did_not_answer_stands_elsewhere_and_says_why(spoken: Contract) -> None:
    said = ClusterApiParameters.model_validate(RICH).named("site-a")
    places = {"quebec-a": Place("quebec-unreachable", "no answer")}
    a, b = (pooled("site-a", "energy", said, spoken, machine, places) for machine in said.machines)
    assert (a["spec"]["pool"], b["spec"]["pool"]) == ("quebec-unreachable", "quebec")
    assert a["metadata"]["annotations"] == {UNREACHABLE: "no answer"}
    assert "annotations" not in b["metadata"]
    assert faults(a) == faults(b) == []


def test_a_machine_that_leaves_is_drained_for_the_grace_and_never_for_ever() -> None:
    said = ClusterApiParameters(version="v1.33.4+k0s.0").named("site-a")
    old = cluster_api.machine_deployment("site-a", "n", said, OLDEST, DRAIN)["spec"]["template"]["spec"]
    new = cluster_api.machine_deployment("site-a", "n", said, NEWEST, timedelta())["spec"]["template"]["spec"]
    assert old["nodeDrainTimeout"] == "600s"
    assert new["deletion"] == {"nodeDrainTimeoutSeconds": 1, "nodeVolumeDetachTimeoutSeconds": 120}


def test_the_count_is_nobodys_but_the_rosters() -> None:
    for manifest in rendered(ClusterApiParameters(version="v1.33.4+k0s.0"), NEWEST):
        assert manifest["kind"] != "MachineDeployment" or "replicas" not in manifest["spec"]


def test_rendering_twice_is_rendering_once() -> None:
    said = ClusterApiParameters.model_validate(RICH)
    assert list(rendered(said, NEWEST)) == list(rendered(said, NEWEST))


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ({}, "version is needed"),
        ({"version": "1.33"}, "'1.33' is not a version of k0s like v1.33.4"),
        ({"version": "v1.33.4+k0s.0", "cluster": "Québec"}, "cluster"),
        ({"manage": False, "machines": RICH["machines"]}, "machines belong to a managed cluster"),
        ({**RICH, "machines": [{"name": "a", "address": "root@host", "sshKeySecret": "s"}]}, "address"),
        ({**RICH, "machines": [*RICH["machines"], RICH["machines"][0]]}, "two machines have the name a"),  # type: ignore[index]
        ({**RICH, "sshKey": "-----BEGIN"}, "sshKey"),
    ],
)
def test_a_mistake_in_the_parameters_is_named(said: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        ClusterApiParameters.model_validate(said)


# --- which version is spoken ------------------------------------------------------------------------------------------


def definition(**versions: tuple[bool, bool]) -> dict[str, Any]:
    return {
        "spec": {
            "versions": [
                {"name": name, "served": served, "storage": storage} for name, (served, storage) in versions.items()
            ]
        }
    }


@pytest.mark.parametrize(
    ("versions", "version"),
    [
        ({"v1beta1": (True, False), "v1beta2": (True, True)}, "v1beta2"),
        ({"v1beta1": (True, True), "v1beta2": (True, False)}, "v1beta1"),
        ({"v1beta1": (True, False), "v1beta2": (False, True)}, "v1beta1"),
        ({"v1alpha4": (True, False), "v1beta1": (True, True)}, "v1beta1"),
        ({"v1beta1": (True, False), "v1beta2": (True, False), "v1": (True, True)}, "v1beta2"),
    ],
)
def test_the_stored_version_is_spoken_and_an_unserved_one_never(
    versions: dict[str, tuple[bool, bool]], version: str
) -> None:
    assert chosen(MACHINE_DEPLOYMENT, offered(definition(**versions))).version == version


def test_a_server_of_other_versions_is_a_mistake() -> None:
    with pytest.raises(Mistake, match=r"serves v1alpha4 of machinedeployments\.cluster\.x-k8s\.io"):
        chosen(MACHINE_DEPLOYMENT, offered(definition(v1alpha4=(True, True), v1beta2=(False, False))))


@needs_schemas
@pytest.mark.parametrize("resource", CLUSTER_API, ids=lambda resource: resource.kind)
def test_upstream_stores_what_is_called_the_newest(resource: Resource) -> None:
    published = [
        json.loads((SCHEMAS / f"{resource.group}_{version}_{resource.kind.lower()}.json").read_text())
        for version in resource.versions
    ]
    offers = [(found["version"], found["storage"]) for found in published if found["served"]]
    assert chosen(resource, offers) == NEWEST[resource]


# --- k0rdent ----------------------------------------------------------------------------------------------------------

SERVICE = Service(name="cilium", namespace="kube-system", template="cilium-1-16-3", values="encryption: {}")
CHART = Chart(name="remote-cluster", version="1.0.19", repository="kcm-templates")


def k0rdent_parameters(**changed: Any) -> K0rdentParameters:
    said = {
        "template": "remote-cluster-1-0-19",
        "credential": "quebec",
        "config": {"clusterNetwork": {"pods": {"cidrBlocks": ["10.1.0.0/16"]}}},
        "services": [SERVICE],
        **changed,
    }
    return K0rdentParameters.model_validate(said).named("site-a")


@needs_schemas
def test_k0rdent_objects_are_valid() -> None:
    identity = Identity(api_version="v1", kind="Secret", name="quebec-ssh", namespace="energy")
    manifests = [
        k0rdent.cluster_deployment("site-a", "energy", k0rdent_parameters(dryRun=True, labels={"gpu": "amd"})),
        k0rdent.credential("site-a", "energy", "quebec", identity),
        k0rdent.multi_cluster_service("site-a", "windfall-site-a", [SERVICE]),
        k0rdent.cluster_template("site-a", "energy", CHART),
        k0rdent.service_template("site-a", "energy", CHART),
        k0rdent.cluster_template_chain("site-a", "energy", "remote", {"a-1-0-0": ["a-1-0-1"], "a-1-0-1": []}),
    ]
    assert [(manifest["kind"], faults(manifest)) for manifest in manifests if faults(manifest)] == []


def test_a_template_is_named_by_its_version() -> None:
    assert CHART.template_name == "remote-cluster-1-0-19"
    assert Chart(name="cilium", version="1.16.3-rc.1", repository="r").template_name == "cilium-1-16-3-rc-1"


def test_the_number_of_workers_is_at_the_path() -> None:
    nested = k0rdent_parameters(workers="worker.pools.number", config={"worker": {"pools": {"flavor": "big"}}})
    made = k0rdent.cluster_deployment("site-a", "energy", nested)
    assert made["spec"]["config"] == {"worker": {"pools": {"flavor": "big"}}}
    assert k0rdent.counted(nested.workers, 2) == {"config": {"worker": {"pools": {"number": 2}}}}
    assert k0rdent.count_of({"spec": k0rdent.counted(nested.workers, 2)}, nested.workers) == 2
    assert k0rdent.count_of(made, nested.workers) is None


def test_a_kubeconfig_is_a_reference() -> None:
    made = k0rdent.cluster_deployment("site-a", "energy", k0rdent_parameters())
    assert made["metadata"]["annotations"][k0rdent.KUBECONFIG] == "energy/site-a-kubeconfig#value"
    aggregate = k0rdent.kubeconfig_references("site-a", "energy", ["b", "a"])
    assert aggregate["kind"] == "ConfigMap"
    assert aggregate["data"] == {"a": "energy/a-kubeconfig#value", "b": "energy/b-kubeconfig#value"}


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"template": ""}, "template"),
        ({"config": {"workersNumber": 3}}, "config.workersNumber is the number of leases"),
        ({"config": {"worker": 3}, "workers": "worker.number"}, "leads through a value"),
        ({"workers": "worker..number"}, "workers"),
        ({"services": [SERVICE, SERVICE]}, "services names a service twice"),
        ({"labels": {"windfall.dev/site": "b"}}, "is said by Windfall itself"),
        ({"kubeconfig": "apiVersion: v1"}, "kubeconfig"),
    ],
)
def test_a_mistake_in_k0rdents_parameters_is_named(changed: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        k0rdent_parameters(**changed)


# --- what the documentation shows -------------------------------------------------------------------------------------

PAGE = Path(__file__).resolve().parents[3] / "docs" / "capacity.md"


def examples(backend: str) -> list[str]:
    return re.findall(rf"```json {backend}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@needs_schemas
def test_the_documented_examples_are_valid() -> None:
    managed, lent = (ClusterApiParameters.model_validate_json(text) for text in examples("cluster-api"))
    assert [faults(manifest) for manifest in rendered(managed, NEWEST) if faults(manifest)] == []
    assert (lent.manage, lent.trainer) == (False, "apply")
    (said,) = (K0rdentParameters.model_validate_json(text) for text in examples("k0rdent"))
    assert faults(k0rdent.cluster_deployment("site-a", "energy", said.named("site-a"))) == []


def test_every_parameter_is_documented() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for model in (ClusterApiParameters, K0rdentParameters):
        for name, field in model.model_fields.items():
            assert f"`{field.alias or name}`" in page, f"{field.alias} of {model.__name__} is not in {PAGE.name}"
