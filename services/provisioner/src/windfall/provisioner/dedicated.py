"""Nodes of a cluster that are one site's alone: while the site holds no lease, nothing is scheduled to them."""

from collections.abc import Mapping
from typing import Final

from windfall.provisioner.manifests.labels import selector
from windfall.servicekit.kube import Absent, Cluster
from windfall.servicekit.kube.kinds import NODE

CORDONED_BY: Final = "windfall.dev/cordoned-by"
"""An annotation: the site that did it. What a person has cordoned is theirs to uncordon."""


async def cordon(cluster: Cluster, nodes: Mapping[str, str], site: str) -> None:
    """No pods come to these nodes; those that are there stay."""
    for found in (await cluster.list(NODE, labels=selector(nodes))).items:
        if not found.get("spec", {}).get("unschedulable"):
            await _patch(cluster, found["metadata"]["name"], site, closed=True)


async def uncordon(cluster: Cluster, nodes: Mapping[str, str], site: str) -> None:
    """Pods may come again to the nodes that this site has cordoned."""
    for found in (await cluster.list(NODE, labels=selector(nodes))).items:
        if (found["metadata"].get("annotations") or {}).get(CORDONED_BY) == site:
            await _patch(cluster, found["metadata"]["name"], site, closed=False)


async def _patch(cluster: Cluster, name: str, site: str, *, closed: bool) -> None:
    merge = {
        "metadata": {"annotations": {CORDONED_BY: site if closed else None}},
        "spec": {"unschedulable": True if closed else None},
    }
    try:
        await cluster.patch(NODE, name, None, merge)
    except Absent:
        # It has left the cluster since.
        return
