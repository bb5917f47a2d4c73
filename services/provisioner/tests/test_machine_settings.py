"""What the backends of machines are told by their environment."""

import json
from pathlib import Path

import pytest

from windfall.provisioner.backends import BACKENDS
from windfall.provisioner.settings import ProvisionerSettings
from windfall.servicekit.errors import Mistake
from windfall.servicekit.settings import load

SITE = {"WINDFALL_SITE": "quebec", "WINDFALL_STATE_DIR": "/var/lib/windfall"}
CLUSTER_API = {"version": "v1.33.4+k0s.0", "machines": [{"name": "a", "address": "h", "sshKeySecret": "s"}]}
K0RDENT = {"template": "remote-cluster-1-0-19", "credential": "quebec"}


def described(monkeypatch: pytest.MonkeyPatch, backend: str, **environ: str) -> str:
    given = {**SITE, "WINDFALL_BACKEND": backend, **environ}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return BACKENDS[backend](load(ProvisionerSettings, given)).describe()


def test_both_are_made_without_a_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there = {"WINDFALL_KUBECONFIG": str(tmp_path / "kubeconfig"), "WINDFALL_KUBE_NAMESPACE": "energy"}
    said = described(monkeypatch, "cluster-api", WINDFALL_CLUSTER_API=json.dumps(CLUSTER_API), **there)
    assert said == "one machine from the pool quebec, in the cluster quebec by the MachineDeployment quebec-workers"
    said = described(monkeypatch, "k0rdent", WINDFALL_K0RDENT=json.dumps(K0RDENT), **there)
    assert said == "one worker of the ClusterDeployment quebec from the template remote-cluster-1-0-19"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"version": ', "WINDFALL_CLUSTER_API: invalid JSON"),
        ('{"version": "v1.33.4+k0s.0", "machinez": []}', "WINDFALL_CLUSTER_API: machinez: Extra inputs"),
        ('{"version": "1.33"}', "WINDFALL_CLUSTER_API: version: '1.33' is not a version of k0s"),
        ("", "WINDFALL_CLUSTER_API: field required"),
    ],
)
def test_a_wrong_parameter_is_named(monkeypatch: pytest.MonkeyPatch, text: str, fault: str) -> None:
    with pytest.raises(Mistake) as raised:
        described(monkeypatch, "cluster-api", WINDFALL_CLUSTER_API=text)
    assert fault in str(raised.value)


def test_a_trainer_that_is_applied_needs_its_image(monkeypatch: pytest.MonkeyPatch) -> None:
    applied = json.dumps({**CLUSTER_API, "trainer": "apply"})
    with pytest.raises(Mistake, match="WINDFALL_KUBE_IMAGE: field required"):
        described(monkeypatch, "cluster-api", WINDFALL_CLUSTER_API=applied)
    assert described(monkeypatch, "cluster-api", WINDFALL_CLUSTER_API=applied, WINDFALL_KUBE_IMAGE="trainer:1")
