"""Every variable that the charts set is one that its service reads, and with them each service's settings are whole."""

import json
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import BaseModel

from tests.charts.value_sets import CHARTS, SETS, changed, pods
from windfall.energy_watcher.settings import WatcherSettings
from windfall.federation_coordinator.settings import CoordinatorSettings
from windfall.profiler.settings import ProfilerSettings
from windfall.provisioner.kube_settings import TrainerSettings as KubeSettings
from windfall.provisioner.machine_settings import ClusterApiSettings, K0rdentSettings
from windfall.provisioner.operator.settings import OperatorSettings
from windfall.provisioner.settings import ProvisionerSettings
from windfall.servicekit.errors import Mistake
from windfall.servicekit.scrape import ScrapeSettings
from windfall.servicekit.settings import PREFIX, load
from windfall.site_trainer.settings import TrainerSettings

SETTINGS: Mapping[str, type[BaseModel]] = {
    "federation-coordinator": CoordinatorSettings,
    "operator": OperatorSettings,
    "energy-watcher": WatcherSettings,
    "provisioner": ProvisionerSettings,
    "profiler": ProfilerSettings,
}
BACKENDS: Mapping[str, type[BaseModel]] = {
    "kubernetes": KubeSettings,
    "cluster-api": ClusterApiSettings,
    "k0rdent": K0rdentSettings,
}
OF_PROCESSES = {"WINDFALL_LOG_FORMAT", "WINDFALL_LOG_LEVEL"}
"""Read before the settings are."""


def variables(*kinds: type[BaseModel]) -> set[str]:
    return {PREFIX + name.upper() for kind in kinds for name in kind.model_fields}


def told(name: str) -> dict[str, dict[str, str]]:
    """Component → its environment."""
    return {
        pod["containers"][0]["name"]: {each["name"]: each.get("value", "") for each in pod["containers"][0]["env"]}
        for _, _, pod in pods(name)
        if pod["containers"][0]["name"] != "nats"
    }


@pytest.mark.parametrize("name", SETS)
def test_every_variable_is_one_that_the_service_reads(name: str) -> None:
    for component, environment in told(name).items():
        kinds = [SETTINGS[component]]
        if component == "provisioner":
            kinds.append(BACKENDS[environment["WINDFALL_BACKEND"]])
        if "prometheus" in environment.get("OTEL_METRICS_EXPORTER", ""):
            kinds.append(ScrapeSettings)
        ours = {variable for variable in environment if variable.startswith(PREFIX)} - OF_PROCESSES
        for_trainers = {variable for variable in ours if variable.startswith("WINDFALL_TRAINER_")}
        assert ours - for_trainers <= variables(*kinds), component
        assert {PREFIX + one.removeprefix("WINDFALL_TRAINER_") for one in for_trainers} <= variables(TrainerSettings)


@pytest.mark.parametrize("name", SETS)
def test_with_them_the_settings_are_whole(name: str) -> None:
    for component, environment in told(name).items():
        # What lies in the Secret that signalsSecret names is not in the manifests.
        secret = {"WATTTIME_USER": "u", "WATTTIME_PASSWORD": "p"}
        loaded = load(SETTINGS[component], environment | secret)
        assert (getattr(loaded, "site", "hub") == "quebec") is name.startswith("site/")
        if component == "provisioner":
            load(BACKENDS[environment["WINDFALL_BACKEND"]], environment)


@pytest.mark.parametrize("name", ["site/example", "site/nvidia", "site/amd", "site/insecure"])
def test_a_trainer_is_born_with_all_that_it_needs(name: str, tmp_path: Path) -> None:
    environment = told(name)["provisioner"]
    provisioner = load(ProvisionerSettings, environment | {"WINDFALL_STATE_DIR": str(tmp_path)})
    born = provisioner.node_environment(environment)
    backend = load(KubeSettings, environment)
    of_the_lease = {"WINDFALL_WINDOW_ID": str(UUID(int=1)), "WINDFALL_LEASE_TOKEN": "1"}
    of_the_pod = {"WINDFALL_DATA_DIR": backend.kube_data_dir, "WINDFALL_STATE_DIR": "/var/lib/windfall"}
    trainer = load(TrainerSettings, born | of_the_lease | of_the_pod)
    assert trainer.site == "quebec" and trainer.coordinator == "hub.example.org:9500"
    assert (backend.kube_vendor, backend.kube_accelerators) == {
        "site/nvidia": ("nvidia", 8),
        "site/amd": ("amd", 8),
    }.get(name, ("none", 0))
    assert backend.runtime_class == ("nvidia" if name == "site/nvidia" else None)
    assert backend.groups == ((44, 109) if name == "site/amd" else ())


@pytest.mark.parametrize(
    ("chart", "known", "kinds"),
    [
        ("hub", "coordinator-settings", (CoordinatorSettings,)),
        ("site", "watcher-settings", (WatcherSettings,)),
        (
            "site",
            "provisioner-settings",
            (ProvisionerSettings, KubeSettings, ClusterApiSettings, K0rdentSettings),
        ),
        ("site", "profiler-settings", (ProfilerSettings,)),
        ("site", "trainer-settings", (TrainerSettings,)),
    ],
)
def test_a_chart_knows_every_variable_by_name(chart: str, known: str, kinds: tuple[type[BaseModel], ...]) -> None:
    """A service passes over a variable that it does not know, so the chart refuses it: the schema lists them all."""
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text(encoding="utf-8"))
    (pattern,) = schema["$defs"][known]["patternProperties"]
    listed = {PREFIX + name for name in pattern.removeprefix(f"^{PREFIX}(").removesuffix(")$").split("|")}
    assert sorted(listed) == sorted(variables(*kinds)), f"{chart}/values.schema.json, {known}"


def test_a_setting_reaches_its_service_and_one_that_the_chart_says_itself_is_refused() -> None:
    objects = changed("hub/example", {"coordinator": {"settings": {"WINDFALL_CODEC": "bf16"}}})
    (coordinator,) = (
        obj
        for obj in objects
        if obj["metadata"]["name"] == "one-federation-coordinator" and obj["kind"] == "StatefulSet"
    )
    environment = coordinator["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "WINDFALL_CODEC", "value": "bf16"} in environment
    for name, path in (("hub/example", "coordinator"), ("site/example", "energyWatcher"), ("site/example", "profiler")):
        with pytest.raises(Mistake, match=rf"{path}\.settings\.WINDFALL_STATE_DIR: the chart says it itself"):
            changed(name, {path: {"settings": {"WINDFALL_STATE_DIR": "/elsewhere"}}})
