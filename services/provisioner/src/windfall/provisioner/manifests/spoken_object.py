"""An object of a platform in the contract that its server is spoken to in."""

from typing import Any

from windfall.provisioner.manifests.contracts import V1BETA1, Contract, Resource
from windfall.provisioner.manifests.labels import Manifest, site_labels


def made(spoken: Contract, resource: Resource, site: str, namespace: str, name: str, spec: dict[str, Any]) -> Manifest:
    return {
        "apiVersion": spoken[resource].api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "namespace": namespace, "labels": site_labels(site)},
        "spec": spec,
    }


def reference(spoken: Contract, from_: Resource, to: Resource, name: str) -> dict[str, str]:
    """How an object names another one: the contract v1beta2 leaves the version to the server."""
    if spoken[from_].version == V1BETA1:
        return {"apiVersion": spoken[to].api_version, "kind": to.kind, "name": name}
    return {"apiGroup": to.group, "kind": to.kind, "name": name}
