"""Whose an object is."""

from collections.abc import Mapping
from typing import Any, Final

from windfall.provisioner.manifests.labels import Manifest, anchor, site_labels
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.kube import Cluster, Kind, Object
from windfall.servicekit.kube.kinds import CONFIG_MAP

SITE: Final = Kind("windfall.dev", "v1alpha1", "Site", "sites")


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


async def site_owner(cluster: Cluster, site: str, namespace: str, named: str | None) -> Object:
    """What owns the objects of a site: the ``Site`` of this name, else the site's anchor, which is made if it is not
    there.

    Raises:
        Transient: the server cannot be asked now.
        Mistake: there is no such ``Site``.
    """
    if named is not None:
        found = await cluster.get(SITE, named, namespace)
        if found is None:
            raise Mistake(
                f"there is no Site {named} in {namespace}",
                "Create it, or unset WINDFALL_KUBE_OWNER",
                ExitCode.RESOURCE,
            )
        return found
    whole = anchor(site, namespace)
    return await cluster.get(CONFIG_MAP, whole["metadata"]["name"], namespace) or await cluster.apply(CONFIG_MAP, whole)
