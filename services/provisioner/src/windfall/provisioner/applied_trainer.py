"""A lease's site-trainer, applied by another backend into the cluster that its machine has joined.

What it is to be started with lies in a Secret of the lease, because the machine may take longer to come than this
process lives. It is bound to its machine by a label that Cluster API copies onto the Node, so that what an unreachable
cluster still holds of an earlier lease can run nowhere.
"""

import json
import logging
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

from windfall.provisioner.backend import Backend
from windfall.provisioner.holdings import Lease, Node
from windfall.provisioner.kubeconfig import HeldKubeconfig, held
from windfall.provisioner.machine import NODE_LABEL
from windfall.provisioner.manifests.cluster_api import kubeconfig_secret
from windfall.provisioner.manifests.labels import (
    LEASE,
    Manifest,
    lease_annotations,
    lease_labels,
    node_of,
    selector,
    site_labels,
)
from windfall.provisioner.ownership import owned_by
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.kube import Cluster, Object
from windfall.servicekit.kube.kinds import SECRET

log = logging.getLogger(__name__)

_OURS: Final = ("WINDFALL_", "OTEL_", "TRACE")

Make = Callable[[Path, Mapping[str, str]], Backend]
"""The backend of a workload cluster, given its kubeconfig and the labels of the nodes that it may use."""


@dataclass
class _Running:
    backend: Backend
    kubeconfig: HeldKubeconfig


class AppliedTrainer:
    """See the module.

    Args:
        site: whose leases these are.
        namespace: of the management cluster's objects.
        cluster_name: of the workload cluster, as Cluster API calls it.
        make: makes the backend of the workload cluster.
    """

    def __init__(self, site: str, namespace: str, cluster_name: str, make: Make) -> None:
        self._site = site
        self._namespace = namespace
        self._cluster_name = cluster_name
        self._make = make
        self._running: dict[UUID, _Running] = {}

    async def keep(self, cluster: Cluster, owner: Object, lease: Lease, environment: Mapping[str, str]) -> None:
        manifest = start_secret(lease, self._namespace, environment)
        await cluster.apply(SECRET, owned_by(manifest, owner), force=True)

    async def forget(self, cluster: Cluster, node: Node) -> None:
        if running := self._running.pop(node.lease_id, None):
            try:
                await running.backend.kill(node)
            except Transient as error:
                log.warning("%s: what is left of it in %s can run nowhere: %s", node.name, self._cluster_name, error)
            await _closed(running)
        await cluster.delete(SECRET, secret_name(node), self._namespace)

    async def forget_all_but(self, cluster: Cluster, leases: Collection[UUID]) -> None:
        labels = f"{selector(site_labels(self._site))},{LEASE}"
        for found in (await cluster.list(SECRET, self._namespace, labels=labels)).items:
            node = node_of(found)
            if node and node.lease_id not in leases and found["metadata"]["name"] == secret_name(node):
                await cluster.delete(SECRET, secret_name(node), self._namespace, uid=found["metadata"]["uid"])

    async def run(self, cluster: Cluster, node: Node) -> None:
        secret = await cluster.get(SECRET, secret_name(node), self._namespace)
        if secret is None:
            raise Mistake(
                f"the Secret {secret_name(node)} in {self._namespace}, with which {node.name} starts, is gone",
                "Leave the Secrets of leases alone; the next lease writes another one",
                ExitCode.RESOURCE,
            )
        lease = Lease.model_validate_json(b64decode(secret["data"]["lease"]))
        environment = json.loads(b64decode(secret["data"]["environment"]))
        running = await self._open(cluster, node)
        await running.backend.start(lease, environment)

    async def ready(self, node: Node) -> bool:
        running = self._running.get(node.lease_id)
        return running is not None and await running.backend.ready(node)

    async def wait(self, node: Node) -> int | None:
        running = self._running.get(node.lease_id)
        return await running.backend.wait(node) if running else None

    async def drain(self, cluster: Cluster, node: Node) -> None:
        await (await self._open(cluster, node)).backend.drain(node)

    async def kill(self, cluster: Cluster, node: Node) -> None:
        await (await self._open(cluster, node)).backend.kill(node)

    async def close(self) -> None:
        for running in self._running.values():
            await _closed(running)
        self._running.clear()

    async def _open(self, cluster: Cluster, node: Node) -> _Running:
        if running := self._running.get(node.lease_id):
            return running
        kubeconfig = await held(cluster, kubeconfig_secret(self._cluster_name), self._namespace)
        if kubeconfig is None:
            raise Transient(f"the cluster {self._cluster_name} has no kubeconfig yet")
        backend = self._make(kubeconfig.path, {NODE_LABEL: str(node.lease_id)})
        self._running[node.lease_id] = _Running(backend, kubeconfig)
        return self._running[node.lease_id]


def secret_name(node: Node) -> str:
    """The Secret of a lease."""
    return f"windfall-{node.lease_id}"


def start_secret(lease: Lease, namespace: str, environment: Mapping[str, str]) -> Manifest:
    """What a lease's trainer is started with. The provisioner's own environment is not for it."""
    told = {name: value for name, value in environment.items() if name.startswith(_OURS)}
    data = {"lease": lease.model_dump_json(), "environment": json.dumps(told, sort_keys=True)}
    return {
        "apiVersion": SECRET.api_version,
        "kind": SECRET.kind,
        "metadata": {
            "name": secret_name(Node.of(lease)),
            "namespace": namespace,
            "labels": lease_labels(lease, lease.site),
            "annotations": lease_annotations(lease),
        },
        "type": "Opaque",
        "data": {name: b64encode(text.encode()).decode() for name, text in data.items()},
    }


async def _closed(running: _Running) -> None:
    await running.backend.close()
    running.kubeconfig.close()
