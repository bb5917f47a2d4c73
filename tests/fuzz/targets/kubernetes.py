"""Objects as an API server gives them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from tests.fuzz.target import Target
from windfall.contracts.resources import Federation, Site
from windfall.provisioner.kubeconfig import HeldKubeconfig
from windfall.provisioner.operator.reading import read
from windfall.provisioner.roster import ROSTER, Roster
from windfall.servicekit.errors import Mistake

_EXAMPLES: Final = Path(__file__).parents[3] / "deploy/examples"


def _written(kind: str) -> Sequence[bytes]:
    found = [one for path in sorted(_EXAMPLES.glob("*.yaml")) for one in yaml.safe_load_all(path.read_text())]
    served = {"uid": "u-1", "generation": 2, "resourceVersion": "7", "namespace": "windfall"}
    return [
        json.dumps(one | {"metadata": one["metadata"] | served, "status": {}}).encode()
        for one in found
        if one and one["kind"] == kind
    ]


def _object(data: bytes) -> dict[str, Any]:
    """An API server gives objects with metadata, and no other."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {"metadata": {"name": "a"}}
    return found if isinstance(found, dict) else {"metadata": {"name": "a"}, "spec": found}


def _roster(data: bytes) -> object:
    return Roster.of({"metadata": {"annotations": {ROSTER: data.decode(errors="replace")}}})


def _rosters() -> Sequence[bytes]:
    entry = {
        "window": "00000000-0000-0000-0000-000000000001",
        "token": 3,
        "node": "n-1",
        "site": "a",
        "machines": ["u"],
    }
    return [json.dumps({"00000000-0000-0000-0000-000000000007": entry}).encode()]


_KUBECONFIG: Final = b"""apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://localhost:6443", certificate-authority-data: "eA=="}}]
users: [{name: u, user: {client-certificate-data: "eA==", client-key-data: "eA=="}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""


def _held(data: bytes) -> object:
    with HeldKubeconfig(data, "a Secret") as held:
        return held.path


TARGETS: Final = (
    Target("Site", lambda: _written("Site"), lambda data: read(Site, _object(data))),
    Target("Federation", lambda: _written("Federation"), lambda data: read(Federation, _object(data))),
    Target("roster", _rosters, _roster),
    Target("kubeconfig of a Secret", lambda: [_KUBECONFIG], _held, (Mistake,)),
)
