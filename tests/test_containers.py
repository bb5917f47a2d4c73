"""The images and the compose file for real: podman, the images that `make images` made, NATS from its wheel.

The hub and one site of docker-compose.yml, contained as there; what a registry would bring (collector, Grafana) stays
out. `make images` first; without podman or podman-compose this skips and says so. `make containers` also tries with
deploy/images/containers.conf, for a machine that grants podman less than it asks for.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.images.catalogue import IMAGES, ROOT, Image
from deploy.images.requirements import projects
from windfall.servicekit.natsserver import find_binary

VERSION = projects(ROOT)["windfall-contracts"]["version"]
BUILD_TOOLS = ("gcc", "cc", "g++", "ld", "make", "cmake", "pip", "pip3", "uv", "git")
SHELL = ("sh", "bash", "dash", "apt-get", "dpkg", "busybox")
PATIENCE_S = 240
CONTAINED = ("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp")

LOOK = """
import importlib.util, json, os, sys
if "torch" in sys.argv[2:]:
    import torch
    assert torch.linalg.norm(torch.ones(3, 3) @ torch.ones(3, 3)) == 9
there = [n for n in sys.argv[1].split(",") for d in os.environ["PATH"].split(":") if os.path.exists(f"{d}/{n}")]
writable = [p for p in ("/", "/opt/windfall", "/usr", "/etc", "/var") if os.access(p, os.W_OK)]
modules = [m for m in ("pip", "wheel", "hatchling") if importlib.util.find_spec(m)]
sbom = json.load(open("/opt/windfall/sbom.cdx.json"))["bomFormat"]
print(json.dumps({"there": there, "writable": writable, "modules": modules, "uid": os.getuid(), "sbom": sbom}))
"""
WGET = """#!/usr/bin/python3
import sys, urllib.request
urllib.request.urlopen(sys.argv[-1], timeout=3)
"""
"""What the official NATS image has, and its health check asks with."""


def tag(name: str) -> str:
    return f"ghcr.io/windfall-dev/{name}:{VERSION}"


def podman(*words: str, check: bool = True) -> str:
    done = subprocess.run(["podman", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, done.stderr[-2000:]
    return done.stdout.strip()


pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def refused() -> str:
    """Why podman runs no container; nothing where it does."""
    probe = ("podman", "run", "--rm", "--network=none", "--entrypoint=python3", tag("windfall"), "-c", "")
    done = subprocess.run(probe, capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["no reason given"])[-1] if done.returncode else ""


@pytest.fixture(scope="module", autouse=True)
def engine() -> Iterator[None]:
    if shutil.which("podman") is None:
        pytest.skip("podman is not installed")
    missing = [one.name for one in IMAGES if not there(one)]
    if missing:
        pytest.skip(f"there is no image of {', '.join(missing)}: `make images` makes them")
    with pytest.MonkeyPatch.context() as told:
        # podman-compose lies beside our Python.
        told.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        reason = refused()
        if reason and os.environ.get("WINDFALL_CONTAINERS"):
            told.setenv("CONTAINERS_CONF", str(ROOT / "deploy" / "images" / "containers.conf"))
            reason = refused()
        if reason:
            pytest.skip(f"podman runs no container here: {reason}; `make containers` tries it with fewer rights")
        yield


def there(image: Image) -> bool:
    return subprocess.run(["podman", "image", "exists", tag(image.name)], check=False).returncode == 0


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_an_image_runs_as_a_stranger_on_a_root_that_cannot_be_written(image: Image) -> None:
    run = ("run", "--rm", *CONTAINED, "--user=12345:12345", "--entrypoint=python3", tag(image.name), "-c", LOOK)
    absent = ",".join((*BUILD_TOOLS, *(() if image.torch else SHELL)))
    found = json.loads(podman(*run, absent, *(["torch"] if image.torch else [])).splitlines()[-1])
    assert found == {"there": [], "writable": [], "modules": [], "uid": 12345, "sbom": "CycloneDX"}


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_an_image_says_what_it_is(image: Image) -> None:
    (found,) = json.loads(podman("image", "inspect", tag(image.name)))
    config, labels = found["Config"], found["Config"]["Labels"]
    assert (config["User"], labels["org.opencontainers.image.version"]) == ("65532:65532", VERSION)
    assert len(labels["org.opencontainers.image.revision"].removesuffix("-dirty")) == 40
    if image.kind == "service":
        assert found["Healthcheck"]["Test"] == ["CMD", "windfall-health", "readyz"]
        assert "WINDFALL_HEALTH_PORT=8081" in config["Env"]
        if not image.torch:
            assert found["Size"] < 120_000_000


def once(name: str, *words: str) -> tuple[int, str]:
    """Exit status of an image that runs as its user with a volume for its state, and its last line."""
    state = "--volume=/var/lib/windfall"
    command = ["podman", "run", "--rm", *CONTAINED, state, *words[:-1], tag(name), *filter(None, words[-1:])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).strip().splitlines()[-1]


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_what_an_image_starts_is_there_and_a_mistake_is_one_line(image: Image) -> None:
    if image.kind == "command":
        assert "Train where the power is a windfall" in podman("run", "--rm", *CONTAINED, tag(image.name), "--help")
        return
    code, line = once(image.name, "--env=WINDFALL_NATS_REPLICAS=none", "")
    assert (code, "settings are wrong" in line, "WINDFALL_NATS_REPLICAS: " in line) == (2, True, True), line
    for word in ("livez", "readyz"):
        code, line = once(image.name, "--entrypoint=windfall-health", word)
        assert (code, line.startswith("nobody answers")) == (1, True), line


class Fleet:
    """The compose file's hub and first site."""

    def __init__(self, project: str, override: Path) -> None:
        self.project = project
        self.files = ("-f", str(ROOT / "docker-compose.yml"), "-f", str(override))

    def compose(self, *words: str) -> str:
        command = ("podman-compose", "--no-ansi", "--profile=command", "-p", self.project, *self.files, *words)
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout

    def start(self, service: str) -> None:
        # Its conditions need podman's own timers, which not every machine has: what they say is asked for here.
        self.compose("up", "-d", "--no-deps", service)

    def name(self, service: str) -> str:
        return f"{self.project}_{service}_1"

    def finished(self, service: str) -> None:
        self.start(service)
        assert podman("wait", self.name(service)) == "0", self.log(service)

    def healthy(self, service: str) -> None:
        ask = ["podman", "healthcheck", "run", self.name(service)]
        self.until(lambda: subprocess.run(ask, check=False, capture_output=True).returncode == 0, service)

    def says(self, service: str, word: str) -> None:
        self.until(lambda: word in self.log(service), service)

    def log(self, service: str) -> str:
        done = subprocess.run(["podman", "logs", self.name(service)], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def until(self, done: Callable[[], bool], service: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < deadline, self.log(service)[-3000:]
            time.sleep(1)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    if shutil.which("podman-compose") is None:
        pytest.skip("podman-compose is not installed")
    folder = tmp_path_factory.mktemp("nats")
    shutil.copy(find_binary(), folder / "nats-server")
    (folder / "wget").write_text(WGET)
    (folder / "wget").chmod(0o755)
    nats = f"localhost/windfall-test-nats:{VERSION}"
    (folder / "Dockerfile").write_text(
        f'FROM {tag("energy-watcher")}\nCOPY nats-server wget /opt/windfall/bin/\nENTRYPOINT ["nats-server"]\n'
    )
    podman("build", "-q", "--format=docker", "--network=none", "-t", nats, str(folder))
    override = folder / "override.yaml"
    override.write_text(json.dumps({"services": {name: {"image": nats} for name in ("nats-hub", "nats-site-a")}}))
    fleet = Fleet(f"windfall-test-{uuid4().hex[:8]}", override)
    try:
        yield fleet
    finally:
        fleet.compose("down", "-v", "-t", "5")


def test_a_window_opens_is_trained_in_and_closes(fleet: Fleet) -> None:
    for service in ("ownership", "keys", "nkeys", "stage"):
        fleet.finished(service)
    for service in ("nats-hub", "nats-site-a", "federation-coordinator", "energy-watcher-site-a", "provisioner-site-a"):
        fleet.start(service)
        fleet.healthy(service)
    fleet.start("profiler-site-a")
    fleet.says("energy-watcher-site-a", "window.opened")
    fleet.says("provisioner-site-a", "is ready")
    fleet.healthy("profiler-site-a")
    fleet.says("federation-coordinator", "round 0 completed by site-a")
    fleet.says("energy-watcher-site-a", "window.closed")
    said = fleet.compose("run", "--rm", "--no-deps", "windfall", "get", "sites")
    assert "site-a" in said
    assert not [name for name in ("federation-coordinator", "provisioner-site-a") if "INSECURE" in fleet.log(name)]


def test_a_site_does_not_reach_the_client_port_of_the_hub(fleet: Fleet) -> None:
    reach = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)"

    def reached(address: str, port: int) -> bool:
        command = ["podman", "exec", fleet.name("provisioner-site-a"), "python3", "-c", reach, address, str(port)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    assert reached("nats-hub", 7422)
    assert reached("federation-coordinator", 9500)
    assert not reached("nats-hub", 4222)
    assert not reached("nats-of-the-hub", 4222)


def test_a_service_whose_server_is_gone_is_alive_and_not_ready(fleet: Fleet) -> None:
    podman("stop", "-t", "1", fleet.name("nats-site-a"))
    ask = ["podman", "exec", fleet.name("energy-watcher-site-a"), "windfall-health"]
    fleet.until(
        lambda: subprocess.run([*ask, "readyz"], check=False, capture_output=True).returncode == 1, "nats-site-a"
    )
    assert "the bus is away" in subprocess.run(ask, check=False, capture_output=True, text=True).stderr
    assert subprocess.run([*ask, "livez"], check=False, capture_output=True).returncode == 0
    podman("start", fleet.name("nats-site-a"))
    fleet.until(lambda: subprocess.run(ask, check=False, capture_output=True).returncode == 0, "energy-watcher-site-a")
