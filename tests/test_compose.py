"""What `docker compose up` starts: contained, over TLS, each site apart; checked without starting anything."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.compose.__main__ import FOLDER, SITES, rendered
from deploy.images.catalogue import IMAGES, ROOT
from deploy.images.requirements import projects
from windfall.cli.fleet_nkeys import laid_out
from windfall.cli.keys import issued, place_of
from windfall.cli.preparation import Asked
from windfall.cli.staging import staged
from windfall.contracts.subjects import HUB
from windfall.energy_watcher.settings import WatcherSettings
from windfall.federation_coordinator.settings import CoordinatorSettings
from windfall.profiler.settings import ProfilerSettings
from windfall.provisioner.settings import TRAINER_PREFIX, ProvisionerSettings
from windfall.servicekit.natsserver import find_binary
from windfall.servicekit.settings import PREFIX, Settings, load
from windfall.site_trainer.settings import TrainerSettings

DEPLOY = ROOT / "deploy" / "compose"
COMPOSE: Mapping[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: Mapping[str, Mapping[str, Any]] = COMPOSE["services"]
KINDS: Mapping[str, type[Settings]] = {
    "energy-watcher": WatcherSettings,
    "provisioner": ProvisionerSettings,
    "profiler": ProfilerSettings,
    "federation-coordinator": CoordinatorSettings,
}
SETTLED = {"ownership": "it gives new volumes to the others' user"}
"""Who is root, and why."""
AT_THE_HUB = {"nats-hub", "federation-coordinator", "otel-collector"}
"""What a site may reach of the hub."""


def networks(service: str) -> set[str]:
    return set(SERVICES[service].get("networks", ()))


def volumes(service: str) -> set[str]:
    mounted: set[str] = {mount.split(":")[0] for mount in SERVICES[service].get("volumes", ())}
    return mounted & set(COMPOSE["volumes"])


def site_of(service: str) -> str | None:
    return next((site for site in SITES if service.endswith(site)), None)


@pytest.mark.parametrize("name", SERVICES)
def test_everything_is_contained(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert (service["user"].startswith("0:"), bool(service.get("cap_add"))) == (name in SETTLED, name in SETTLED)
    if name in SETTLED:
        assert (service["network_mode"], service["cap_add"]) == ("none", ["CHOWN", "DAC_READ_SEARCH"])
    # What is ours to read is not ours to change.
    binds = [mount for mount in service.get("volumes", ()) if mount.startswith("./")]
    assert all(mount.endswith(":ro") and (ROOT / mount.split(":")[0]).exists() for mount in binds)


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_ours_at_this_version_or_theirs_at_one(name: str) -> None:
    image = SERVICES[name]["image"]
    version = projects(ROOT)["windfall-contracts"]["version"]
    ours = re.fullmatch(r"\$\{WINDFALL_REGISTRY:-\S+\}/([a-z-]+):\$\{WINDFALL_TAG:-(\S+)\}", image)
    if ours:
        assert (ours[1] in {one.name for one in IMAGES}, ours[2]) == (True, version)
        # Nobody else's image under our name.
        assert SERVICES[name]["pull_policy"] == "${WINDFALL_PULL_POLICY:-never}"
    else:
        assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+\.\d+(-alpine)?", image)


@pytest.mark.parametrize("name", SERVICES)
def test_what_waits_for_a_healthy_one_waits_for_one_that_says_so(name: str) -> None:
    ours = {f"{image.name}:" for image in IMAGES if image.kind == "service"}
    for other, how in SERVICES[name].get("depends_on", {}).items():
        checked = "healthcheck" in SERVICES[other] or any(part in SERVICES[other]["image"] for part in ours)
        assert checked or how["condition"] != "service_healthy"
        assert (how["condition"] == "service_completed_successfully") is (SERVICES[other]["restart"] == "no")


def test_a_site_shares_nothing_with_another_and_reaches_three_doors_of_the_hub() -> None:
    for network, settings in COMPOSE["networks"].items():
        assert (settings or {}).get("internal", False) is (network != "front"), "no site calls out by itself"
        here = {name for name in SERVICES if network in networks(name)}
        assert len({site_of(name) for name in here} - {None}) <= 1
        if site := site_of(network):
            outside = {name for name in here if site_of(name) != site}
            assert outside == (AT_THE_HUB if network.startswith("uplink") else set())
    for volume in COMPOSE["volumes"]:
        users = {name for name in SERVICES if volume in volumes(name)} - {"ownership", "keys", "nkeys", "stage"}
        if site := site_of(volume):
            assert {site_of(name) for name in users} == {site}
    assert not {name for name in SERVICES if "authority" in volumes(name)} - {"ownership", "keys"}


def test_only_this_machine_reaches_what_is_published() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


@pytest.mark.parametrize("name", [name for name in SERVICES if name.removesuffix(f"-{site_of(name)}") in KINDS])
def test_every_service_can_read_its_settings(name: str, tmp_path: Path) -> None:
    """The settings themselves say whether a name or value is wrong; the paths are those of a fleet laid out here."""
    list(issued(tmp_path / "tls", [place_of("here")], timedelta(days=1), datetime.now(UTC)))
    staged(tmp_path / "stage", Asked(), 120, datetime.now(UTC))
    kind = KINDS[name.removesuffix(f"-{site_of(name)}")]
    told = {
        key: value.replace("/etc/windfall/tls", f"{tmp_path}/tls/here").replace("/stage", f"{tmp_path}/stage")
        for key, value in SERVICES[name]["environment"].items()
    }
    # A name that is nobody's is a slip of the pen. TLS of gRPC is told to all, and some have none.
    known = {PREFIX + field.upper() for field in (*kind.model_fields, *TrainerSettings.model_fields)}
    strange = {key for key in told if key.startswith(PREFIX) and not key.startswith(TRAINER_PREFIX)} - known
    trainers = {PREFIX + key.removeprefix(TRAINER_PREFIX) for key in told if key.startswith(TRAINER_PREFIX)}
    assert not strange | (trainers - {PREFIX + field.upper() for field in TrainerSettings.model_fields})
    mine = {key: value for key, value in told.items() if key.removeprefix(PREFIX).lower() in kind.model_fields}
    settings = load(kind, {**mine, "WINDFALL_STATE_DIR": str(tmp_path)})
    assert settings.nats_url.startswith("tls://")
    assert settings.nats_tls.context(settings.nats_url) is not None
    assert not getattr(settings, "insecure", False)


@pytest.mark.parametrize("domain", (HUB, *SITES))
def test_a_server_takes_the_configuration_that_is_generated(domain: str, tmp_path: Path) -> None:
    assert (FOLDER / f"{domain}.conf").read_text(encoding="utf-8") == rendered(domain), "run `python -m deploy.compose`"
    list(issued(tmp_path, [place_of("here")], timedelta(days=1), datetime.now(UTC)))
    laid_out(tmp_path, SITES)
    (tmp_path / domain / "nats").rename(tmp_path / "data")
    config = tmp_path / "etc" / "nats" / "nats.conf"
    config.parent.mkdir(parents=True)
    config.write_text(rendered(domain).replace("/etc/windfall/tls", f"{tmp_path}/here"))
    done = subprocess.run([find_binary(), "-t", "-c", config], capture_output=True, text=True, check=False)
    assert (done.returncode, "is valid" in done.stderr) == (0, True), done.stderr
    assert "verify: true" in rendered(domain)


def mounts(service: str) -> dict[str, str]:
    """Volume → where it is mounted."""
    return dict(mount.split(":")[:2] for mount in SERVICES[service].get("volumes", ()))


def test_every_service_finds_its_own_seed_and_nobody_elses(tmp_path: Path) -> None:
    laid_out(tmp_path, SITES)
    assert SERVICES["nkeys"]["command"] == ["/nkeys", *SITES]
    made = mounts("nkeys")
    there = {
        volume: {path.name for path in (tmp_path / Path(place).relative_to("/nkeys")).iterdir()}
        for volume, place in made.items()
    }
    assert sum(map(len, there.values())) == sum(path.is_file() for path in tmp_path.rglob("*")), "each has a volume"
    for name, service in SERVICES.items():
        told = {key: value for key, value in service.get("environment", {}).items() if key.endswith("NATS_NKEY_FILE")}
        held = {
            f"{mounts(name)[volume]}/{file}"
            for volume, files in there.items()
            if volume in mounts(name)
            for file in files
        }
        if name in ("ownership", "nkeys"):
            continue
        if name.startswith("nats-"):
            assert "/data/nkeys.conf" in held
            continue
        assert set(told.values()) == held, name
        assert bool(told) is ("WINDFALL_NATS_URL" in service.get("environment", {})), name


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    document = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text(encoding="utf-8"))
    version = subprocess.run([promtool, "--version"], capture_output=True, text=True, check=True).stdout
    if " version 2." in version:
        # Prometheus 3, which the compose file starts, has it.
        del document["otlp"]
    (tmp_path / "prometheus.yaml").write_text(yaml.safe_dump(document))
    shutil.copy(ROOT / "deploy" / "prometheus" / "rules.yaml", tmp_path)
    done = subprocess.run(
        [promtool, "check", "config", tmp_path / "prometheus.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_collector_uses_what_it_defines_and_defines_what_it_uses() -> None:
    config = yaml.safe_load((DEPLOY / "collector.yaml").read_text(encoding="utf-8"))
    pipelines = config["service"]["pipelines"]
    assert set(pipelines) == {"traces", "metrics"}
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in pipelines.values() for name in pipeline[kind]}
        assert used == config[kind].keys()
    assert set(config["service"]["extensions"]) == config["extensions"].keys()
    grpc = config["receivers"]["otlp"]["protocols"]["grpc"]
    assert grpc["tls"]["client_ca_file"], "nobody without a certificate of the fleet tells us anything"
    told = SERVICES["federation-coordinator"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    assert told == f"https://otel-collector:{grpc['endpoint'].rpartition(':')[2]}"
    stores = {exporter["endpoint"].split("//")[-1].split(":")[0] for exporter in config["exporters"].values()}
    assert stores == {"tempo", "prometheus"}


def test_grafana_finds_its_sources_and_dashboards() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    sources = yaml.safe_load((folder / "datasources" / "sources.yaml").read_text(encoding="utf-8"))["datasources"]
    assert {source["type"]: source["url"].split("//")[1].split(":")[0] for source in sources} == {
        "prometheus": "prometheus",
        "tempo": "tempo",
    }
    (provider,) = yaml.safe_load((folder / "dashboards" / "dashboards.yaml").read_text(encoding="utf-8"))["providers"]
    mounts = dict(mount.split(":")[:2] for mount in SERVICES["grafana"]["volumes"])
    assert mounts["./deploy/grafana/dashboards"] == provider["options"]["path"]
    home = Path(SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert (ROOT / "deploy" / "grafana" / "dashboards" / home.name).exists()


@pytest.mark.parametrize("command", [("docker", "compose"), ("docker-compose",), ("podman-compose",)], ids=" ".join)
def test_compose_itself_can_read_it(command: tuple[str, ...]) -> None:
    # podman-compose lies beside our Python, and asks for podman before it reads anything.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for name in dict.fromkeys((command[0], command[0].removesuffix("-compose"))):
        if shutil.which(name, path=path) is None:
            pytest.skip(f"{name} is not installed")
    program = (str(shutil.which(command[0], path=path)), *command[1:])
    if subprocess.run([*program, "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip(f"{' '.join(command)} is not installed")
    read = subprocess.run(
        [*program, "-f", ROOT / "docker-compose.yml", "config"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "WINDFALL_TAG": "1.2.3"},
    )
    assert read.returncode == 0, read.stderr
    found = yaml.safe_load(read.stdout)
    assert found["services"]["grafana"]["image"] == "grafana/grafana:12.3.1"
    assert "/energy-watcher:1.2.3" in read.stdout
    # What stands behind an anchor has arrived in each of them.
    assert {name for name, one in found["services"].items() if one["read_only"] and one["cap_drop"] == ["ALL"]} >= (
        SERVICES.keys() - {"windfall"}
    )
    for name, service in found["services"].items():
        asked = SERVICES[name].get("environment", {})
        told = service.get("environment", {})
        assert {key: str(value) for key, value in told.items()} == {key: str(value) for key, value in asked.items()}
