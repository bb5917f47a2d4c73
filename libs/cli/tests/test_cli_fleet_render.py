"""``windfall fleet render``: one values file in, a fleet out, the same every time; and what is wrong with it in a line.

Write the golden file anew with ``WINDFALL_WRITE_GOLDEN=1`` when the fleet is meant to change.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from windfall.cli.__main__ import windfall
from windfall.cli.gitops.charts import values_of
from windfall.cli.gitops.documents import in_order, in_yaml, write
from windfall.cli.gitops.render import fleet
from windfall.servicekit.errors import Mistake

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
STUDY = DEPLOY / "k0rdent/examples/study/fleet.yaml"
GOLDEN = STUDY.with_name("rendered.yaml")


def test_the_study_renders_to_its_golden_file() -> None:
    _, objects = fleet(STUDY)
    made = f"# Rendered from fleet.yaml by: windfall fleet render -f fleet.yaml\n{in_yaml(objects)}"
    if os.environ.get("WINDFALL_WRITE_GOLDEN"):
        GOLDEN.write_text(made)
    assert made == GOLDEN.read_text(), "write it anew with WINDFALL_WRITE_GOLDEN=1"


def test_what_k0rdent_fills_in_stands_on_one_line() -> None:
    for line in GOLDEN.read_text().splitlines():
        assert line.count("{{") == line.count("}}"), line


def test_the_whole_stack_of_the_study_is_there() -> None:
    _, objects = fleet(STUDY)
    named = {(obj["kind"], obj["metadata"]["name"]): obj for obj in objects}
    assert {name for kind, name in named if kind == "ClusterDeployment"} == {
        "study-control-plane",
        "study-nvidia",
        "study-amd",
    }
    used: dict[str, set[str]] = {}
    for (kind, _), obj in named.items():
        if kind == "MultiClusterService":
            chosen = json.dumps(obj["spec"]["clusterSelector"]["matchLabels"], sort_keys=True)
            used.setdefault(chosen, set()).update(each["name"] for each in obj["spec"]["serviceSpec"]["services"])
    by_selector = {
        tuple(sorted(json.loads(key).items() - {("windfall.dev/fleet", "study")})): services
        for key, services in used.items()
    }
    assert by_selector == {
        (): {"cilium"},
        (("windfall.dev/gpu", "nvidia"),): {"nvidia-gpu-operator"},
        (("windfall.dev/gpu", "amd"),): {"cert-manager", "amd-gpu-operator", "amd-devices"},
        (("windfall.dev/role", "hub"),): {"nats", "windfall-hub"},
        (("windfall.dev/role", "site"),): {"nats", "windfall"},
        (("windfall.dev/workload-torch-elastic", "true"),): {"torch-elastic"},
        (("windfall.dev/workload-ray", "true"),): {"kuberay-operator", "ray"},
        (("windfall.dev/workload-vllm", "true"),): {"vllm"},
    }
    cilium = named["MultiClusterService", "study-network"]["spec"]["serviceSpec"]["services"][0]
    assert yaml.safe_load(cilium["values"])["encryption"] == {
        "enabled": True,
        "type": "wireguard",
        "nodeEncryption": True,
    }
    for services in (obj["spec"]["serviceSpec"]["services"] for (kind, _), obj in named.items() if "Multi" in kind):
        assert all(("ServiceTemplate", each["template"]) in named for each in services)


def test_every_version_is_pinned_and_upgrades_lead_to_the_newest(tmp_path: Path) -> None:
    newer = changed(tmp_path, lambda values: values.update(serviceCharts={"ray": ray_of(["1.1.0", "1.0.0"])}))
    _, objects = fleet(newer)
    templates = {obj["metadata"]["name"]: obj["spec"] for obj in objects if obj["kind"] == "ServiceTemplate"}
    assert all(re.match(r"v?\d+\.\d+\.\d+$", spec["helm"]["chartSpec"]["version"]) for spec in templates.values())
    assert {"windfall-ray-1-1-0", "windfall-ray-1-0-0"} <= templates.keys()
    chains = [obj for obj in objects if obj["metadata"]["name"].startswith("windfall-ray-") and "Chain" in obj["kind"]]
    assert chains[0]["spec"]["supportedTemplates"] == [
        {"name": "windfall-ray-1-1-0"},
        {"name": "windfall-ray-1-0-0", "availableUpgrades": [{"name": "windfall-ray-1-1-0"}]},
    ]


def ray_of(versions: list[str]) -> dict[str, Any]:
    return {"chart": "windfall-ray", "repository": "windfall", "versions": versions}


def changed(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    values = values_of(STUDY)
    change(values)
    path = folder / "fleet.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def site(number: int, **told: object) -> Callable[[dict[str, Any]], object]:
    return lambda values: values["sites"][number].update(told)


def services(name: str, **told: object) -> Callable[[dict[str, Any]], object]:
    return lambda values: values["values"][name].update(told)


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no name": (lambda values: values.pop("fleet"), "missing property 'fleet'"),
    "a typo": (lambda values: values.update(flet="x"), "additional properties 'flet' not allowed"),
    "a key in the file": (
        lambda values: values["credentials"]["ssh-oregon"].update(value="-----BEGIN"),
        "/credentials/ssh-oregon",
    ),
    "a password in a url": (
        lambda values: values.update(repositories={"windfall": {"url": "https://me:pw@charts.example.org"}}),
        "/repositories/windfall/url",
    ),
    "a range of versions": (
        lambda values: values.update(serviceCharts={"ray": ray_of([">=1.0.0"])}),
        "/serviceCharts/ray/versions/0",
    ),
    "no such vendor": (site(1, gpu="intel"), "/sites/1/gpu"),
    "no such workload": (site(1, workloads=["slurm"]), "/sites/1/workloads/0"),
    "a label that is ours": (site(1, labels={"windfall.dev/role": "hub"}), "invalid propertyName 'windfall.dev/role'"),
    "two of one name": (site(2, name="nvidia"), "sites[2] (nvidia): there is another site of this name"),
    "no such credential": (site(2, credential="lost"), 'sites[2] (amd): credential "lost" is not one of credentials'),
    "outside the law": (site(2, jurisdiction="CN"), "sites[2] (amd): jurisdiction CN is not within DE, US"),
    "two hubs": (site(2, role="hub"), "sites: one of them has the role hub, these have 2"),
    "a model without a GPU": (site(0, workloads=["vllm"]), "vllm needs a GPU"),
    "no such repository": (
        lambda values: values.update(serviceCharts={"ray": {**ray_of(["1.0.0"]), "repository": "lost"}}),
        "repository lost is not one of repositories",
    ),
    "values of nothing": (lambda values: values["values"].update(slurm={}), "values.slurm: no service is called so"),
    "a cluster's own": (
        site(1, controlPlane={"replicas": 0}),
        "the cluster study-nvidia: the values are wrong at '/controlPlane/replicas'",
    ),
    "a service's own": (
        services("vllm", modle="x"),
        "the service vllm of the cluster study-nvidia: the values are wrong at '': additional properties 'modle'",
    ),
    "a token among the signals": (
        services("site", signals={"carbon": {"provider": "watttime", "token": "t"}}),
        "the service windfall of the cluster study-",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_values_are_told_with_their_place(name: str, tmp_path: Path) -> None:
    change, said = WRONG[name]
    with pytest.raises(Mistake) as refused:
        fleet(changed(tmp_path, change))
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fleet: a\nfleet: b\n", "'fleet' is there twice"),
        ("- fleet", "holds no mapping"),
        ("fleet: [", "is no YAML"),
    ],
)
def test_a_file_that_is_none_is_told(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    path.write_text(text)
    with pytest.raises(Mistake, match=re.escape(said)):
        fleet(path)
    with pytest.raises(Mistake, match="cannot read"):
        fleet(tmp_path / "gone.yaml")
    with pytest.raises(Mistake, match="no charts in"):
        fleet(STUDY, tmp_path)


def test_output_is_yaml_or_json_or_files(tmp_path: Path) -> None:
    def run(*more: str) -> str:
        ended = CliRunner().invoke(windfall, ["fleet", "render", "-f", str(STUDY), *more], catch_exceptions=False)
        assert ended.exit_code == 0
        return ended.output

    as_yaml = list(yaml.safe_load_all(run()))
    assert json.loads(run("-o", "json"))["items"] == as_yaml
    folder = tmp_path / "out"
    assert f"wrote {len(as_yaml)} manifests" in run("-o", str(folder))
    kept = folder / "mine.yaml"
    kept.write_text("kind: Mine\n")
    (folder / "clusterdeployment-gone.yaml").write_text(
        "metadata:\n  labels:\n    app.kubernetes.io/managed-by: windfall\n"
    )
    assert "took away 1" in run("-o", str(folder))
    read = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yaml")) if path != kept]
    assert in_order(read) == tuple(as_yaml) and kept.exists()
    assert write({}, tmp_path / "none") == ()


def test_the_page_s_commands_are_the_command_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (DEPLOY.parent / "docs/gitops.md").read_text()
    typed = re.findall(r"^windfall (fleet render -f deploy.*)$", page, re.MULTILINE)
    assert len(typed) == 3
    for line in typed:
        told = line.replace("deploy/", f"{DEPLOY}/").split()
        assert CliRunner().invoke(windfall, told, catch_exceptions=False).exit_code == 0
    assert len(list((tmp_path / "manifests").glob("*.yaml"))) == len(fleet(STUDY)[1])
