"""The charts: linted, refused with wrong values, and all that they render known to Kubernetes and its extensions.

Manifests are checked strictly against Kubernetes 1.28 to 1.37; those of Cluster API, k0smotron and k0rdent against the
projects' own schemas where these are beside the checkout (``WINDFALL_SCHEMAS`` says where else).
"""

import json
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import pytest
import yaml
from jsonschema import Draft202012Validator
from kubernetes_validate.utils import ValidationError, validate

from windfall.cli.gitops.charts import rendered, values_of
from windfall.cli.gitops.documents import Object
from windfall.cli.gitops.expansion import expanded, our_charts
from windfall.cli.gitops.render import fleet
from windfall.servicekit.errors import Mistake

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
STUDY = DEPLOY / "k0rdent/examples/study/fleet.yaml"
CHARTS = our_charts(DEPLOY)
SCHEMAS = Path(os.environ.get("WINDFALL_SCHEMAS", ROOT.parent / "shared" / "schemas"))
VERSIONS = [f"1.{minor}" for minor in range(28, 38)]
ELSEWHERE = ("ray.io/", "amd.com/", "source.toolkit.fluxcd.io/")
"""Groups whose schemas are nowhere here: their objects are compared with golden files alone."""

needs_schemas = pytest.mark.skipif(not SCHEMAS.is_dir(), reason="the upstream schemas are not beside the checkout")


@cache
def everything() -> tuple[tuple[str, Object], ...]:
    """Where it stands → each object of the study's fleet, of what it installs, and of each chart's example."""
    _, objects = fleet(STUDY)
    made = [(f"fleet/{obj['kind']}/{obj['metadata']['name']}", obj) for obj in objects]
    for where, found in expanded(objects, CHARTS).items():
        made += [(f"{where}/{obj['kind']}/{obj['metadata']['name']}", obj) for obj in found]
    for name in CHARTS:
        made += [(f"{name}/{obj['kind']}/{obj['metadata']['name']}", obj) for obj in example(name)]
    return tuple(made)


def example(name: str) -> tuple[Object, ...]:
    return rendered(CHARTS[name], example_values(name), "one", "windfall")


def example_values(name: str) -> dict[str, Any]:
    path = CHARTS[name] / "ci/example-values.yaml"
    return values_of(path) if path.exists() else {}


def of_kubernetes(obj: Object) -> bool:
    group, _, version = obj["apiVersion"].rpartition("/")
    return bool(version) and ("." not in group or group.endswith(".k8s.io")) and "x-k8s.io" not in group


def test_the_names_of_the_two_that_others_build_on_stay() -> None:
    assert CHARTS["windfall-hub"] == DEPLOY / "charts/hub" and CHARTS["windfall-site"] == DEPLOY / "charts/site"


@pytest.mark.parametrize("name", sorted(CHARTS))
def test_a_chart_is_sound(name: str) -> None:
    said = helm_python.lint(CHARTS[name], example_values(name), strict=True, namespace="windfall")
    assert [each for each in said["messages"] if each["severity"] > 1] == []
    schema = json.loads((CHARTS[name] / "values.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    values = yaml.safe_load((CHARTS[name] / "values.yaml").read_text())
    assert (values or {}).keys() <= schema["properties"].keys()


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_knows_every_field(version: str) -> None:
    checked = 0
    # Between the first and the last version, each chart's example stands for its installations.
    whole = version in (VERSIONS[0], VERSIONS[-1])
    for where, obj in everything():
        if not whole and not where.startswith("windfall-"):
            continue
        if of_kubernetes(obj):
            try:
                validate(obj, version, strict=True)
            except ValidationError as error:
                pytest.fail(f"{where} on {version}: {error}")
            checked += 1
    assert checked >= (40 if whole else 15)


def strict(schema: Any) -> Any:
    """The schema with unknown fields refused, except where the server keeps them."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(part) for key, part in schema.items() if key != "format"}
    if "properties" in made and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    if made.pop("x-kubernetes-int-or-string", False):
        made.pop("type", None)
    return made


@cache
def validators() -> Mapping[tuple[str, str], Draft202012Validator]:
    found = {}
    for path in SCHEMAS.glob("*.json"):
        kind = json.loads(path.read_text())
        if kind["served"] is not False and kind["storage"]:
            schema = strict(kind["schema"])
            schema["properties"]["metadata"] = {"type": "object"}
            found[f"{kind['group']}/{kind['version']}", kind["kind"]] = Draft202012Validator(schema)
    return found


@needs_schemas
def test_the_extensions_know_every_field() -> None:
    checked = set()
    for where, obj in everything():
        if of_kubernetes(obj) or obj["apiVersion"].startswith(ELSEWHERE):
            continue
        known = validators()[obj["apiVersion"], obj["kind"]]
        assert [f"{where}: {error.json_path} {error.message}" for error in known.iter_errors(obj)] == []
        checked.add(obj["kind"])
    assert {"ClusterTemplate", "ServiceTemplate", "MultiClusterService", "ClusterDeployment", "Credential"} <= checked
    assert {"Cluster", "K0smotronControlPlane", "RemoteCluster", "RemoteMachine", "K0sWorkerConfig"} <= checked


def test_no_chart_holds_a_credential() -> None:
    assert [where for where, obj in everything() if obj["kind"] == "Secret"] == []
    for _, obj in everything():
        assert "BEGIN" not in json.dumps(obj) and "kubeconfig" not in json.dumps(obj)


def containers() -> Iterator[tuple[str, Mapping[str, Any], Mapping[str, Any]]]:
    for where, obj in everything():
        if obj["kind"] in ("StatefulSet", "Deployment"):
            pod = obj["spec"]["template"]["spec"]
            yield from ((where, pod, container) for container in pod["containers"])


def test_workloads_have_no_rights_that_they_do_not_need() -> None:
    found = list(containers())
    assert len(found) > 8
    for where, pod, container in found:
        assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault", where
        assert container["securityContext"]["allowPrivilegeEscalation"] is False, where
        assert container["securityContext"]["capabilities"]["drop"] == ["ALL"], where
        assert ":" in container["image"] and not container["image"].endswith(":latest"), where
        if "ghcr.io/windfall" in container["image"]:
            assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]


def test_torchrun_meets_at_the_first_node_over_c10d() -> None:
    by_kind = {obj["kind"]: obj for obj in example("windfall-torch-elastic")}
    (container,) = by_kind["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["torchrun"]
    assert container["args"] == [
        "--nnodes=2:4",
        "--nproc-per-node=8",
        "--max-restarts=100",
        "--rdzv-id=one",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=one-0.one.windfall.svc:29400",
        "--module",
        "study.train",
        "--epochs=3",
    ]
    assert container["resources"]["limits"]["amd.com/gpu"] == 8
    assert by_kind["StatefulSet"]["spec"]["podManagementPolicy"] == "Parallel"
    assert by_kind["Service"]["spec"]["publishNotReadyAddresses"] is True


def test_our_images_take_the_site_of_their_cluster() -> None:
    _, objects = fleet(STUDY)
    made = expanded(objects, CHARTS)
    assert sorted(made) == [
        "study-amd",
        "study-amd/amd-devices",
        "study-amd/ray",
        "study-amd/torch-elastic",
        "study-amd/windfall",
        "study-control-plane",
        "study-control-plane/windfall-hub",
        "study-nvidia",
        "study-nvidia/torch-elastic",
        "study-nvidia/vllm",
        "study-nvidia/windfall",
    ]
    watcher = next(
        obj
        for obj in made["study-amd/windfall"]
        if (obj["kind"], obj["metadata"]["name"]) == ("StatefulSet", "windfall-energy-watcher")
    )
    (container,) = watcher["spec"]["template"]["spec"]["containers"]
    told = {each["name"]: each.get("value", "") for each in container["env"]}
    assert told["WINDFALL_SITE"] == "amd" and json.loads(told["WINDFALL_SIGNALS"])["carbon"]["provider"] == "watttime"
    for vendor, site in (("amd", "study-amd"), ("nvidia", "study-nvidia")):
        run = next(obj for obj in made[f"{site}/torch-elastic"] if obj["kind"] == "StatefulSet")
        assert f"{vendor}.com/gpu" in run["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]


WRONG: Mapping[str, tuple[str, dict[str, Any], str]] = {
    "a key as an argument": ("windfall-vllm", {"arguments": ["--api-key=x"]}, "/arguments/0"),
    "a model on nothing": ("windfall-vllm", {"gpu": {"vendor": "none"}}, "/gpu/vendor"),
    "no such vendor": ("windfall-ray", {"gpu": {"vendor": "intel"}}, "/gpu/vendor"),
    "fewer than the fewest": ("windfall-torch-elastic", {"nodes": {"minimum": 3, "maximum": 2}}, "nodes.maximum"),
    "a shell for a module": ("windfall-torch-elastic", {"module": "x; rm -rf /"}, "/module"),
    "no machine": ("windfall-site-cluster", {"machines": []}, "/machines"),
    "a version that is none": ("windfall-site-cluster", {"k0s": {"version": "1.36"}}, "/k0s/version"),
    "a typo": ("windfall-amd-devices", {"drivers": True}, "drivers"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_refused_where_they_are_rendered(name: str) -> None:
    chart, change, where = WRONG[name]
    with pytest.raises(Mistake) as refused:
        rendered(CHARTS[chart], {**example_values(chart), **change}, "one", "windfall")
    assert where in str(refused.value) and "\n" not in str(refused.value)
