"""Nodes of a cluster that are one site's alone: while the site holds no lease, nothing is scheduled to them.

Leases overlap: one may come while the last one's objects are taken away. Opening and closing take turns, and nothing is
closed while a lease comes.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from windfall.provisioner.manifests.labels import selector
from windfall.servicekit.kube import Absent, Cluster, Object
from windfall.servicekit.kube.kinds import NODE

CORDONED_BY: Final = "windfall.dev/cordoned-by"
"""An annotation: the site that did it. What a person has cordoned is theirs to uncordon."""
_CLOSED: Final = "node.kubernetes.io/unschedulable"
"""The taint that a cluster's controllers put on a node that is cordoned."""


class Gate:
    """Of the nodes with these labels; with none, of no nodes."""

    def __init__(self, cluster: Cluster, nodes: Mapping[str, str], site: str) -> None:
        self._cluster = cluster
        self._nodes = nodes
        self._site = site
        self._turn = asyncio.Lock()
        self._coming = 0

    @contextmanager
    def coming(self) -> Iterator[None]:
        """While a lease comes."""
        self._coming += 1
        try:
            yield
        finally:
            self._coming -= 1

    async def open(self) -> None:
        if self._nodes:
            async with self._turn:
                await uncordon(self._cluster, self._nodes, self._site)

    async def close(self, is_last: Callable[[], bool]) -> None:
        """Unless a lease comes, or another one is there by now."""
        if self._nodes:
            async with self._turn:
                if is_last() and not self._coming:
                    await cordon(self._cluster, self._nodes, self._site)


def as_open(node: Object, site: str) -> Object:
    """A node as it is once the site that has closed it opens it."""
    if (node["metadata"].get("annotations") or {}).get(CORDONED_BY) != site:
        return node
    spec = {name: value for name, value in (node.get("spec") or {}).items() if name != "unschedulable"}
    taints = [taint for taint in spec.get("taints") or () if taint.get("key") != _CLOSED]
    return {**node, "spec": {**spec, "taints": taints}}


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
