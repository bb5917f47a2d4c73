"""A lease as objects of a cluster: every supported version of Kubernetes takes them, and no secret is told."""

import json
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from kubernetes_validate.utils import validate

from windfall.provisioner.holdings import Lease
from windfall.provisioner.kube_settings import TrainerSettings
from windfall.provisioner.manifests import workload as manifests
from windfall.provisioner.manifests.labels import (
    LEASE,
    MANAGED_BY,
    SITE,
    TOKEN,
    WINDOW,
    Manifest,
    fenced,
    node_of,
    owned,
    site_labels,
)
from windfall.provisioner.manifests.workload import Made
from windfall.servicekit.errors import Mistake
from windfall.servicekit.settings import load

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
VERSIONS = [f"1.{minor}" for minor in range(28, 38)]
SECRET = "nats://trainer:hunter2@leaf:4222"
ENVIRONMENT = {
    "PATH": "/usr/bin",
    "HOME": "/root",
    "WINDFALL_SITE": "site-a",
    "WINDFALL_NATS_URL": SECRET,
    "WINDFALL_STATE_DIR": "/srv/provisioner/trainer",
    "WINDFALL_TRACES_FILE": "/srv/traces.jsonl",
    "WINDFALL_COORDINATOR": "hub:7000",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
    "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer hunter2",
    "TRACEPARENT": "of this attempt",
}
PLAIN = TrainerSettings(kube_image="trainer:1")
NVIDIA = TrainerSettings(
    kube_image="registry.example/trainer@sha256:00",
    kube_namespace="windfall",
    kube_pull_secrets=("pull",),
    kube_workers=3,
    kube_accelerators=8,
    kube_vendor="nvidia",
    kube_node_selector={"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
    kube_tolerations=({"key": "windfall.dev/site", "operator": "Exists"},),
    kube_dedicated=True,
    kube_cpu="16",
    kube_memory="256Gi",
    kube_storage_class="fast",
    kube_data_claim="corpus",
    kube_secrets=("hub-credentials",),
    kube_tls_secret="trainer-tls",
    kube_service_account="trainer",
    kube_metrics_port=9464,
)
AMD = TrainerSettings(kube_image="trainer:rocm", kube_accelerators=1, kube_vendor="amd")
SHAPES = {"plain": PLAIN, "nvidia": NVIDIA, "amd": AMD}


def lease(**changes: Any) -> Lease:
    said = {
        "lease_id": UUID(int=7),
        "site": "site-a",
        "window_id": UUID(int=1),
        "token": 4,
        "node": "site-a-4",
        "opened_at": NOON,
        "requested_at": NOON,
        "changed_at": NOON,
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    }
    return Lease.model_validate({**said, **changes})


def made(settings: TrainerSettings = PLAIN, drain: float = 42.3) -> Made:
    return Made(settings, "windfall.site_trainer", timedelta(seconds=drain))


def rendered(settings: TrainerSettings = PLAIN, of: Lease | None = None) -> tuple[Manifest, ...]:
    of = of or lease()
    how = made(settings)
    return (
        manifests.site_anchor(of, how),
        manifests.state_claim(of, how),
        manifests.lease_map(of, ENVIRONMENT, how),
        *manifests.workload(of, ENVIRONMENT, how),
    )


def of_kind(kind: str, settings: TrainerSettings = PLAIN, of: Lease | None = None) -> list[Manifest]:
    return [manifest for manifest in rendered(settings, of) if manifest["kind"] == kind]


def pod(settings: TrainerSettings = PLAIN, worker: int = 0, of: Lease | None = None) -> Manifest:
    spec: Manifest = of_kind("Job", settings, of)[worker]["spec"]["template"]["spec"]
    return spec | {"container": spec["containers"][0]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_every_supported_version_takes_them(version: str, shape: str) -> None:
    for manifest in rendered(SHAPES[shape]):
        whole = owned(manifest, {**rendered()[0], "metadata": {"name": "windfall-site-a", "uid": "u"}})
        validate(whole, version, strict=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_rendered_twice_is_the_same(shape: str) -> None:
    assert json.dumps(rendered(SHAPES[shape])) == json.dumps(rendered(SHAPES[shape]))


def test_everything_says_whose_it_is() -> None:
    for manifest in rendered(NVIDIA):
        labels = manifest["metadata"]["labels"]
        assert (labels[MANAGED_BY], labels[SITE]) == ("windfall", "site-a")
        if manifest["kind"] == "PersistentVolumeClaim" or manifest["metadata"]["name"] == "windfall-site-a":
            assert labels == site_labels("site-a"), "it outlives the lease"
            continue
        assert (labels[LEASE], labels[WINDOW]) == (str(UUID(int=7)), str(UUID(int=1)))
        assert manifest["metadata"]["annotations"][TOKEN] == "4"
        node = node_of(manifest)
        assert node is not None
        assert (node.token, node.name) == (4, "site-a-4")


def test_what_is_secret_stands_in_a_secret() -> None:
    everything = rendered(NVIDIA)
    (secret,) = [manifest for manifest in everything if manifest["kind"] == "Secret"]
    told = {name: b64decode(value).decode() for name, value in secret["data"].items()}
    assert told == {
        "WINDFALL_NATS_URL": SECRET,
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer hunter2",
    }
    assert "hunter2" not in json.dumps([manifest for manifest in everything if manifest is not secret])
    assert "hunter2" not in manifests.shown(secret)
    assert b64decode(secret["data"]["WINDFALL_NATS_URL"]).decode() not in manifests.shown(secret)
    sources = pod(NVIDIA)["container"]["envFrom"]
    names = [next(iter(source.values()))["name"] for source in sources]
    assert names == ["site-a-4", "site-a-4", "hub-credentials"], "whatever a person's Secret says comes last and counts"


def test_a_worker_hears_nothing_of_the_machine_that_asked_for_it() -> None:
    (told,) = [each["data"] for each in of_kind("ConfigMap") if "WINDFALL_SITE" in each["data"]]
    assert told == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
        "TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "WINDFALL_COORDINATOR": "hub:7000",
        "WINDFALL_LEASE_ID": str(UUID(int=7)),
        "WINDFALL_LEASE_TOKEN": "4",
        "WINDFALL_NODE": "site-a-4",
        "WINDFALL_SITE": "site-a",
        "WINDFALL_STATE_DIR": "/var/lib/windfall",
        "WINDFALL_WINDOW_ID": str(UUID(int=1)),
    }


def test_a_pod_has_as_little_power_as_pods_can_have() -> None:
    spec = pod()
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert spec["container"]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
    assert not any("hostPath" in volume for volume in spec["volumes"])


def test_prometheus_finds_the_port_of_a_pod_where_it_is_said() -> None:
    container = pod(NVIDIA)["container"]
    assert container["ports"] == [{"name": "metrics", "containerPort": 9464, "protocol": "TCP"}]
    told = {each["name"]: each["value"] for each in container["env"]}
    assert told["OTEL_EXPORTER_PROMETHEUS_HOST"] == "0.0.0.0"
    assert told["OTEL_EXPORTER_PROMETHEUS_PORT"] == "9464"
    assert "ports" not in pod(PLAIN)["container"]


def test_gpus_by_vendor() -> None:
    nvidia, amd, none = pod(NVIDIA), pod(AMD), pod()
    assert nvidia["container"]["resources"] == {
        "requests": {"cpu": "16", "memory": "256Gi", "nvidia.com/gpu": "8"},
        "limits": {"memory": "256Gi", "nvidia.com/gpu": "8"},
    }
    assert nvidia["runtimeClassName"] == "nvidia"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in nvidia["tolerations"]
    assert amd["container"]["resources"]["limits"] == {"amd.com/gpu": "1"}
    assert "runtimeClassName" not in amd
    assert amd["securityContext"]["supplementalGroups"] == [44, 109]
    assert "resources" not in none["container"] or not none["container"]["resources"]
    asked = pod(NVIDIA, of=lease(accelerators=2, workers=1))
    assert asked["container"]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    without = pod(NVIDIA, of=lease(accelerators=0, workers=1))
    assert "runtimeClassName" not in without


def test_several_workers_find_each_other() -> None:
    assert not of_kind("Service")
    (service,) = of_kind("Service", NVIDIA)
    assert service["spec"]["publishNotReadyAddresses"] is True
    jobs = of_kind("Job", NVIDIA)
    assert [job["metadata"]["name"] for job in jobs] == ["site-a-4-w0", "site-a-4-w1", "site-a-4-w2"]
    for worker in range(3):
        spec = pod(NVIDIA, worker)
        told = {each["name"]: each["value"] for each in spec["container"]["env"]}
        assert (spec["hostname"], spec["subdomain"]) == (f"site-a-4-w{worker}", "site-a-4")
        assert (told["PET_NNODES"], told["PET_NODE_RANK"]) == ("3", str(worker))
        assert told["MASTER_ADDR"] == "site-a-4-w0.site-a-4.windfall.svc"
    claims = ["persistentVolumeClaim" in pod(NVIDIA, worker)["volumes"][0] for worker in range(3)]
    assert claims == [True, False, False], "one worker writes the site's state"


@pytest.mark.parametrize(("workers", "least"), [(1, 0), (3, 2)])
def test_machines_are_emptied_one_worker_at_a_time(workers: int, least: int) -> None:
    asked = lease(workers=workers)
    assert manifests.disruption_budget(asked, made())["spec"]["minAvailable"] == least


def test_a_pod_may_take_as_long_to_go_as_nodes_take() -> None:
    assert pod()["terminationGracePeriodSeconds"] == 43


@pytest.mark.parametrize(
    ("found", "token", "verdict"),
    [
        (None, 1, False),
        ({"metadata": {}}, 1, False),
        ({"metadata": {"annotations": {TOKEN: "4"}}}, 4, False),
        ({"metadata": {"annotations": {TOKEN: "5"}}}, 4, True),
        ({"metadata": {"annotations": {TOKEN: "nonsense"}}}, 4, False),
    ],
)
def test_an_older_lease_is_fenced_off(found: Manifest | None, token: int, verdict: bool) -> None:
    assert fenced(found, token) is verdict


def test_settings_come_from_variables() -> None:
    settings = load(
        TrainerSettings,
        {
            "WINDFALL_KUBE_IMAGE": "trainer:1",
            "WINDFALL_KUBE_NAMESPACE": "windfall",
            "WINDFALL_KUBE_NODE_SELECTOR": "pool=gpu, zone=north",
            "WINDFALL_KUBE_TOLERATIONS": '[{"key": "gpu", "operator": "Exists"}]',
            "WINDFALL_KUBE_SECRETS": "a, b",
            "WINDFALL_KUBE_VENDOR": "amd",
            "WINDFALL_KUBE_GROUPS": "44,992",
        },
    )
    assert settings.kube_node_selector == {"pool": "gpu", "zone": "north"}
    assert settings.kube_tolerations == ({"key": "gpu", "operator": "Exists"},)
    assert (settings.kube_secrets, settings.groups) == (("a", "b"), (44, 992))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "WINDFALL_KUBE_IMAGE: "),
        ({"WINDFALL_KUBE_IMAGE": "a", "WINDFALL_KUBE_ACCELERATORS": "1"}, "needs WINDFALL_KUBE_VENDOR"),
        ({"WINDFALL_KUBE_IMAGE": "a", "WINDFALL_KUBE_DEDICATED": "true"}, "needs WINDFALL_KUBE_NODE_SELECTOR"),
        ({"WINDFALL_KUBE_IMAGE": "a", "WINDFALL_KUBE_NODE_SELECTOR": "pool"}, "is not like 'name=value"),
        ({"WINDFALL_KUBE_IMAGE": "a", "WINDFALL_KUBE_TOLERATIONS": "gpu"}, "is not JSON"),
        ({"WINDFALL_KUBE_IMAGE": "a", "WINDFALL_KUBE_NAMESPACE": "No_Such"}, "WINDFALL_KUBE_NAMESPACE: "),
    ],
)
def test_a_mistake_names_its_variable(given: dict[str, str], says: str) -> None:
    with pytest.raises(Mistake, match="settings are wrong") as mistaken:
        load(TrainerSettings, given)
    assert says in str(mistaken.value)
