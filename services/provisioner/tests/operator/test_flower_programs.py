"""Flower's own programs take the arguments that a federation gives them; the kubelet and the network are played."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from windfall.contracts.resources import Federation
from windfall.provisioner.operator.flower.dialect import STATE_FILE, Dialect
from windfall.provisioner.operator.flower.node_config import NODE, rendered
from windfall.servicekit.natsserver import free_port

PROGRAMS = Path(sys.executable).parent


def program(name: str) -> str:
    return shutil.which(name, path=str(PROGRAMS)) or pytest.skip(f"{name} is not installed")


def as_kubelet(argument: str) -> str:
    """Fills in what the pod knows of itself, and takes $$ for a dollar sign."""
    return argument.replace(f"$({NODE})", "node-7").replace("$$", "$")


@pytest.mark.slow
def test_a_superlink_and_a_supernode_find_each_other(tmp_path: Path) -> None:
    config = {"name": "$(reboot) {pool}", "say": 'a "b"', "n": "{replicas}", "at": "{node}"}
    port = free_port()
    federation = Federation.model_validate(
        {
            "apiVersion": "windfall.dev/v1alpha1",
            "kind": "Federation",
            "metadata": {"name": "demo", "namespace": "ns"},
            "spec": {
                "engine": "flower",
                "flower": {
                    "mode": "StatefulSet",
                    "isolationMode": "process",
                    "insecure": True,
                    "superlink": {"image": "i", "superexecImage": "i", "service": {"ports": {"grpc": port}}},
                    "supernodes": {
                        "image": "i",
                        "pools": [
                            {"name": "a", "replicas": 2, "images": {"superExecClientApp": "i"}, "nodeConfig": config}
                        ],
                    },
                },
            },
        }
    )
    assert federation.spec.flower is not None
    dialect = Dialect(federation.spec.flower, "127.0.0.1")
    link = [one.replace(STATE_FILE, str(tmp_path / "state.db")) for one in dialect.superlink()]
    node_config = rendered(federation.spec.flower.supernodes.pools[0])
    node = [as_kubelet(one).replace("=9094", f"={free_port()}") for one in dialect.supernode((), node_config)]
    log = tmp_path / "supernode.log"
    with (
        log.open("wb") as said,
        subprocess.Popen([program("flower-superlink"), *link], stdout=said, stderr=said) as server,
        subprocess.Popen([program("flower-supernode"), *node], stdout=said, stderr=said) as client,
    ):
        try:
            deadline = time.monotonic() + 240
            while b"SuperNode ID" not in log.read_bytes():
                assert server.poll() is None and client.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        finally:
            client.terminate()
            server.terminate()
