"""Whose an object is."""

from collections.abc import Mapping
from typing import Any

from windfall.provisioner.manifests.labels import Manifest, site_labels


def is_ours(found: Mapping[str, Any], site: str) -> bool:
    """Whether an object was written by Windfall for this site."""
    labels = found["metadata"].get("labels") or {}
    return all(labels.get(name) == value for name, value in site_labels(site).items())


def owned_by(manifest: Manifest, owner: Mapping[str, Any]) -> Manifest:
    """The same object with its owner, of which it says no more than who it is: Cluster API adds to the same reference
    that it is the controller, and two writers of one field would never rest."""
    metadata = owner["metadata"]
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    return {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [reference]}}
