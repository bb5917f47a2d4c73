"""The charts of hub and site: sound, and every object of every value set known to each version of Kubernetes."""

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import helm_python
import pytest
from jsonschema import Draft202012Validator
from kubernetes_validate.utils import ValidationError, validate

from tests.charts.other_kinds import SPECS
from tests.charts.value_sets import (
    CHARTS,
    INSECURE,
    NAMESPACE,
    RELEASE,
    ROOT,
    SETS,
    changed,
    objects,
    of_kind,
    pods,
    values,
)
from windfall.cli.gitops.charts import values_of
from windfall.cli.gitops.documents import Object, read
from windfall.servicekit.errors import Mistake

VERSIONS = [f"1.{minor}" for minor in range(28, 38)]


def test_each_chart_has_the_sets_that_people_start_from() -> None:
    both = {
        "minimal",
        "production",
        "air-gapped",
        "given-secrets",
        "cert-manager",
        "insecure",
        "own-nats",
        "prometheus",
    }
    for chart, more in (("hub", {"operator"}), ("site", {"nvidia", "amd", "k0rdent"})):
        assert both | more <= {name.partition("/")[2] for name in SETS if name.startswith(chart)}


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_sound(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(CHARTS / name.partition("/")[0], tmp_path / "chart")
    said = helm_python.lint(folder, values(name), strict=True, namespace=NAMESPACE)
    assert [each for each in said["messages"] if each["severity"] > 1] == []


@pytest.mark.parametrize("chart", ["hub", "site"])
def test_nothing_may_be_said_that_the_chart_does_not_know(chart: str) -> None:
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    open_ones = ["global", "taskSettings"]
    for name, part in schema["properties"].items():
        if part.get("type") == "object" and name not in open_ones:
            assert "additionalProperties" in part, name


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field(version: str) -> None:
    # The first and the last version see every set; what one in between does not know, the richest ones show.
    whole = version in (VERSIONS[0], VERSIONS[-1])
    seen = set()
    for name in SETS if whole else ("hub/production", "hub/prometheus", "site/production", "site/nvidia"):
        for obj in objects(name):
            # Dashboards, definitions and much else are the same in every set.
            if (text := json.dumps(obj, sort_keys=True)) in seen:
                continue
            seen.add(text)
            if kind(obj) in SPECS:
                assert mistakes(obj) == [], f"{name}: {obj['metadata']['name']}"
                continue
            try:
                validate(obj, version, strict=True)
            except ValidationError as error:
                pytest.fail(f"{name}: {obj['kind']}/{obj['metadata']['name']} on {version}: {error}")


PLAIN = {"insecure": True}
MUTUAL = {"clientSecret": "prometheus-tls", "serverName": "windfall.example.org"}


@pytest.mark.parametrize("kind", ["PodMonitor", "ServiceMonitor"])
@pytest.mark.parametrize(
    ("name", "door"),
    [
        *((f"{chart}/insecure", PLAIN) for chart in ("hub", "site")),
        *((name, MUTUAL) for name in ("hub/production", "hub/cert-manager", "site/production", "site/nvidia")),
    ],
)
def test_prometheus_operator_knows_every_field_of_a_monitor(name: str, door: dict[str, object], kind: str) -> None:
    asked = {"prometheus": {"enabled": True, **door}, kind[0].lower() + kind[1:]: {"enabled": True}, "interval": "90s"}
    monitors = [obj for obj in changed(name, {"metrics": asked}) if obj["kind"] == kind]
    assert len(monitors) == len({obj["metadata"]["name"] for obj in monitors}) > 0
    for obj in monitors:
        assert obj.keys() == {"apiVersion", "kind", "metadata", "spec"}
        assert (obj["apiVersion"], mistakes(obj)) == ("monitoring.coreos.com/v1", [])


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        ("PodMonitor", ("podMetricsEndpoints", 0, "tlsConfig", "caFile"), "/ca.crt"),
        ("PodMonitor", ("podMetricsEndpoints", 0, "port"), 9464),
        ("ServiceMonitor", ("endpoints", 0, "interval"), "30 s"),
        ("ServiceMonitor", ("endpoints", 0, "relabelings", 0, "target_label"), "job"),
        ("ServiceMonitor", ("endpoints", 0, "tlsConfig", "keySecret", "secret"), {"name": "a", "key": "b"}),
        ("ServiceMonitor", ("selector", "app"), "windfall"),
    ],
)
def test_a_slip_in_a_monitor_is_seen(kind: str, place: tuple[str | int, ...], value: object) -> None:
    asked = {f"{one[0].lower()}{one[1:]}": {"enabled": one == kind} for one in ("PodMonitor", "ServiceMonitor")}
    slipped: Any = deepcopy(next(obj for obj in changed("hub/prometheus", {"metrics": asked}) if obj["kind"] == kind))
    part = slipped["spec"]
    for step in place[:-1]:
        part = part[step]
    part[place[-1]] = value
    assert len(mistakes(slipped)) == 1


def mistakes(obj: Object) -> list[str]:
    """Where an object of another's kind is not what that kind takes."""
    return [error.message for error in Draft202012Validator(SPECS[kind(obj)]).iter_errors(obj["spec"])]


def kind(obj: Object) -> str:
    return f"{obj['apiVersion']}/{obj['kind']}"


@pytest.mark.parametrize("name", SETS)
def test_every_object_says_whose_it_is_and_none_is_there_twice(name: str) -> None:
    seen = set()
    for obj in objects(name):
        metadata = obj["metadata"]
        assert metadata["labels"]["app.kubernetes.io/part-of"] == "windfall"
        if obj["kind"] not in ("ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"):
            assert metadata["namespace"] == NAMESPACE
        assert (obj["kind"], metadata["name"]) not in seen, (obj["kind"], metadata["name"])
        seen.add((obj["kind"], metadata["name"]))


@pytest.mark.parametrize("name", SETS)
def test_what_keeps_a_journal_or_a_store_is_a_stateful_set_with_a_volume(name: str) -> None:
    for workload, obj, pod in pods(name):
        container = pod["containers"][0]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        if workload.endswith("-operator"):
            # Its state is the objects themselves, and its lease.
            assert obj["kind"] == "Deployment"
            continue
        if name == "hub/standby" and workload.endswith("-coordinator"):
            (state,) = (each for each in pod["volumes"] if each["name"] == mounts["/var/lib/windfall"])
            (claim,) = of_kind(name, "PersistentVolumeClaim")
            assert state["persistentVolumeClaim"] == {"claimName": claim["metadata"]["name"]}
            assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
            continue
        assert obj["kind"] == "StatefulSet"
        claims = {claim["metadata"]["name"] for claim in obj["spec"]["volumeClaimTemplates"]}
        assert {mounts.get("/var/lib/windfall"), mounts.get("/data")} & claims, workload


def test_no_set_holds_a_credential() -> None:
    for name in SETS:
        assert of_kind(name, "Secret") == []
        text = json.dumps(objects(name))
        assert "BEGIN" not in text and '"SU' not in text


def test_another_configuration_of_nats_is_another_pod_and_the_same_one_is_not() -> None:
    def said(change: dict[str, object]) -> str:
        (nats,) = (
            obj
            for obj in changed("hub/example", change)
            if obj["kind"] == "StatefulSet" and obj["metadata"]["name"].endswith("-nats")
        )
        return str(nats["spec"]["template"]["metadata"]["annotations"]["windfall.dev/config"])

    assert said({}) == said({"task": "resnet"})
    assert said({}) != said({"nats": {"storage": {"maxBytes": "9GB"}}})
    # Who may speak is read again.
    public = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"
    assert said({}) == said({"nats": {"users": {"admin": public}}})
    assert said({}) == said({"nats": {"tenants": {"lab": {"users": {"admin": public}}}}})
    assert said({}) == said({"nats": {"tenants": {"lab": {"users": {"admin": public}}}}})
    assert said({"nats": {"reload": False}}) != said({"nats": {"reload": False, "users": {"admin": public}}})


def test_images_go_by_digest_where_there_is_one_and_come_from_one_registry_where_there_is_no_other() -> None:
    images = {workload: pod["containers"][0]["image"] for workload, _, pod in pods("hub/production")}
    assert images["one-federation-coordinator"] == f"ghcr.io/windfall-dev/federation-coordinator@sha256:{'a' * 64}"
    assert images["one-nats"].endswith(f"nats@sha256:{'b' * 64}")
    for name in ("hub/air-gapped", "site/air-gapped"):
        for _, _, pod in pods(name):
            assert all(each["image"].startswith("registry.example.internal:5000/") for each in pod["containers"])
            assert pod["imagePullSecrets"] == [{"name": "registry"}]
    (provisioner,) = (pod for workload, _, pod in pods("site/air-gapped") if workload == "one-provisioner")
    told = {each["name"]: each.get("value") for each in provisioner["containers"][0]["env"]}
    assert told["WINDFALL_KUBE_IMAGE"] == "registry.example.internal:5000/windfall/site-trainer:0.1.0"
    assert told["WINDFALL_KUBE_PULL_SECRETS"] == "registry"


def test_alerts_and_dashboards_are_those_of_the_repository() -> None:
    (rule,) = of_kind("hub/production", "PrometheusRule")
    alerts = [one["alert"] for group in rule["spec"]["groups"] for one in group["rules"] if "alert" in one]
    assert "WindowOpenSiteIdle" in alerts
    boards = {
        name: text
        for obj in of_kind("hub/production", "ConfigMap")
        if "dashboard" in obj["metadata"]["name"]
        for name, text in obj["data"].items()
    }
    assert boards == {
        path.name: path.read_text(encoding="utf-8") for path in (ROOT / "deploy/grafana/dashboards").glob("*.json")
    }


def test_definitions_stay_when_the_release_goes() -> None:
    definitions = of_kind("hub/operator", "CustomResourceDefinition")
    assert {obj["spec"]["names"]["kind"] for obj in definitions} == {"Site", "Federation"}
    assert {obj["metadata"]["annotations"]["helm.sh/resource-policy"] for obj in definitions} == {"keep"}
    assert of_kind("hub/minimal", "CustomResourceDefinition") == []


@pytest.mark.parametrize("chart", ["hub", "site"])
def test_a_fleet_asks_for_the_chart_that_lies_here(chart: str) -> None:
    catalogue = values_of(ROOT / "deploy/k0rdent/charts/fleet/values.yaml")["serviceCharts"]
    assert catalogue[chart]["versions"][0] == values_of(CHARTS / chart / "Chart.yaml")["version"]


@pytest.mark.parametrize("chart", ["hub", "site"])
def test_a_package_holds_what_the_links_name(chart: str, tmp_path: Path) -> None:
    """As it is pushed to a registry, without the repository around it."""
    package = helm_python.package(CHARTS / chart, destination=tmp_path)
    name = f"{chart}/example"
    with helm_python.Chart.load(package) as loaded:
        files = loaded.render(values(name), name=RELEASE, namespace=NAMESPACE)
    made = [obj for file in sorted(files) if file.endswith(".yaml") for obj in read(files[file], file)]
    assert made == list(objects(name))


def test_both_charts_share_one_text_for_what_is_alike() -> None:
    for path in (CHARTS / "shared").glob("*.tpl"):
        for chart in ("hub", "site"):
            assert (CHARTS / chart / "templates" / path.name).resolve() == path.resolve()


@pytest.mark.parametrize("name", SETS)
def test_a_person_is_told_what_to_do_next(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(CHARTS / name.partition("/")[0], tmp_path / "chart")
    with helm_python.Chart.load(folder) as chart:
        files = chart.render(values(name), name=RELEASE, namespace=NAMESPACE)
    (notes,) = (text for path, text in files.items() if path.endswith("NOTES.txt"))
    assert "kubectl -n windfall get pods -l app.kubernetes.io/instance=one" in notes
    assert ("INSECURE" in notes) is (name in INSECURE)
    assert "<no value>" not in notes and "%!" not in notes
    # Each Secret that a pod waits for is named, but those that cert-manager makes.
    made = {obj["spec"]["secretName"] for obj in of_kind(name, "Certificate")}
    waited_for = {
        volume["secret"]["secretName"] for _, _, pod in pods(name) for volume in pod["volumes"] if "secret" in volume
    }
    assert all(secret in notes for secret in waited_for - made - {"management"})
    if name.startswith("hub/"):
        services = {obj["metadata"]["name"] for obj in of_kind(name, "Service") if "annotations" not in obj}
        told = {word for line in notes.splitlines() if "get service" in line for word in line.split()}
        assert told & services


def test_a_standby_shares_the_folder_and_a_rollout_does_not_wait_for_it() -> None:
    (deployment,) = of_kind("hub/standby", "Deployment")
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": "100%"}
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert {"name": "WINDFALL_STANDBY", "value": "true"} in container["env"]
    assert "readinessProbe" in container, "so that the Service leads to the one that works"
    given = changed("hub/standby", {"coordinator": {"stateClaim": "models"}})
    assert not [each for each in given if each["kind"] == "PersistentVolumeClaim"]
    with pytest.raises(Mistake, match=r"coordinator\.stateClaim: one coordinator has a claim of its own"):
        changed("hub/example", {"coordinator": {"stateClaim": "models"}})
