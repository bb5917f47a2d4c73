"""By what every object of ours is known: labels, the lease's token, and the owner that takes it along when it goes."""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from windfall.provisioner.holdings import Lease, Node

Manifest = dict[str, Any]
"""One object of Kubernetes, as JSON has it."""

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
OURS: Final = "windfall"
"""The value of :data:`MANAGED_BY`."""
SITE: Final = "windfall.dev/site"
LEASE: Final = "windfall.dev/lease"
"""The lease's id."""
WINDOW: Final = "windfall.dev/window"
"""The window's id."""
TOKEN: Final = "windfall.dev/lease-token"  # noqa: S105 - a number, not a secret
"""An annotation: the lease's fencing token."""
NODE: Final = "windfall.dev/node"
"""An annotation: what ``node.ready`` calls the node."""


def site_labels(site: str) -> dict[str, str]:
    """On whatever belongs to a site and outlives its leases."""
    return {MANAGED_BY: OURS, SITE: site}


def lease_labels(lease: Lease | Node, site: str) -> dict[str, str]:
    """On whatever belongs to a lease."""
    return {**site_labels(site), LEASE: str(lease.lease_id), WINDOW: str(lease.window_id)}


def lease_annotations(lease: Lease | Node) -> dict[str, str]:
    """On whatever belongs to a lease."""
    return {TOKEN: str(lease.token), NODE: lease.node if isinstance(lease, Lease) else lease.name}


def selector(labels: Mapping[str, str]) -> str:
    """Labels, as a list or a watch is narrowed by them."""
    return ",".join(f"{name}={value}" for name, value in sorted(labels.items()))


def node_of(found: Mapping[str, Any]) -> Node | None:
    """The node that an object belongs to; none when it is not an object of a lease."""
    metadata = found["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    try:
        return Node(UUID(labels[LEASE]), UUID(labels[WINDOW]), int(annotations[TOKEN]), annotations[NODE])
    except (KeyError, ValueError):
        return None


def fenced(found: Mapping[str, Any] | None, token: int) -> bool:
    """Whether an object belongs to a younger lease: whoever works under this token may not touch it."""
    theirs = ((found or {}).get("metadata", {}).get("annotations") or {}).get(TOKEN, "")
    return theirs.isdecimal() and int(theirs) > token


def anchor(site: str, namespace: str) -> Manifest:
    """What owns the objects of a site that no ``Site`` object owns: whoever deletes it leaves nothing behind."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"windfall-{site}", "namespace": namespace, "labels": site_labels(site)},
        "data": {"about": f"Owns whatever Windfall's provisioner creates here for the site {site}."},
    }


def owner_reference(owner: Mapping[str, Any]) -> Manifest:
    """What an object says of its owner, which stands in the same namespace.

    Args:
        owner: as the API server gave it, with its uid.
    """
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "blockOwnerDeletion": False,
        "controller": False,
    }


def owned(manifest: Manifest, owner: Mapping[str, Any]) -> Manifest:
    """The same object, with its owner."""
    return {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [owner_reference(owner)]}}


def at_version(manifest: Manifest, version: str | None) -> Manifest:
    """The same object, to be written only where it is still at this version; none: whatever it is at."""
    if version is None:
        return manifest
    return {**manifest, "metadata": {**manifest["metadata"], "resourceVersion": version}}
