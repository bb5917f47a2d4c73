"""Plays the part of k0rdent: a ClusterDeployment becomes what its template's chart renders, as far as machines go."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from windfall.provisioner.manifests.cluster_api import CLUSTER_NAME, DEPLOYMENT_NAME
from windfall.provisioner.manifests.contracts import CLUSTER_DEPLOYMENT, CLUSTER_TEMPLATE, CREDENTIAL, V1BETA1
from windfall.provisioner.testing.played_statuses import THEN, owner
from windfall.servicekit.kube import Cluster, Kind, Object

FINALIZER: Final = "k0rdent.mirantis.com/cluster-deployment"


class K0rdent:
    """See the module.

    Args:
        cluster: entered.
        namespace: in which it plays.
        machines: the kind of Machines.
        deployments: the kind of MachineDeployments.
        workers: where a ClusterDeployment's config has the number of workers.
    """

    def __init__(self, cluster: Cluster, namespace: str, machines: Kind, deployments: Kind, workers: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._machines = machines
        self._deployments = deployments
        self._workers = workers
        self.uninstalled = asyncio.Event()
        """Clear it and ClusterDeployments that are deleted keep their finalizer."""
        self.uninstalled.set()

    async def play(self, deployments: Mapping[str, Object]) -> None:
        """One pass.

        Args:
            deployments: the MachineDeployments that there are, by name.
        """
        for resource, status in ((CLUSTER_TEMPLATE, {"valid": True}), (CREDENTIAL, {"ready": True})):
            kind = resource.at(V1BETA1)
            for found in (await self._cluster.list(kind, self._namespace)).items:
                if not found.get("status"):
                    name = found["metadata"]["name"]
                    await self._cluster.patch(kind, name, self._namespace, {"status": status}, subresource="status")
        kind = CLUSTER_DEPLOYMENT.at(V1BETA1)
        for found in (await self._cluster.list(kind, self._namespace)).items:
            await self._deploy(kind, found, deployments.get(found["metadata"]["name"]))

    async def _deploy(self, kind: Kind, found: Object, deployed: Object | None) -> None:
        metadata = found["metadata"]
        name = metadata["name"]
        if metadata.get("deletionTimestamp"):
            return await self._uninstall(kind, found)
        if not metadata.get("finalizers"):
            await self._cluster.patch(kind, name, self._namespace, {"metadata": {"finalizers": [FINALIZER]}})
        if not (found.get("status") or {}).get("conditions"):
            ready = {"type": "Ready", "status": "True", "reason": "Succeeded", "message": "Object is ready"}
            status = {"status": {"conditions": [{**ready, "lastTransitionTime": THEN}]}}
            await self._cluster.patch(kind, name, self._namespace, status, subresource="status")
        if found["spec"].get("dryRun"):
            return
        count: Any = found["spec"].get("config") or {}
        for step in self._workers.split("."):
            count = count[step]
        if deployed is None or deployed["spec"].get("replicas") != count:
            await self._cluster.apply(self._deployments, self._chart(found, count), manager="helm", force=True)

    async def _uninstall(self, kind: Kind, found: Object) -> None:
        name = found["metadata"]["name"]
        gone = not (await self._cluster.list(self._machines, self._namespace, labels=f"{CLUSTER_NAME}={name}")).items
        await self._cluster.delete(self._deployments, name, self._namespace)
        if gone and self.uninstalled.is_set() and found["metadata"].get("finalizers"):
            await self._cluster.patch(kind, name, self._namespace, {"metadata": {"finalizers": None}})

    def _chart(self, found: Object, count: int) -> Object:
        """What a template's chart renders."""
        name = found["metadata"]["name"]
        new = self._machines.version != V1BETA1
        reference = {"apiGroup" if new else "apiVersion": "x.io" if new else "x.io/v1", "kind": "Some", "name": "some"}
        marks = {CLUSTER_NAME: name, DEPLOYMENT_NAME: name}
        spec = {"clusterName": name, "bootstrap": {"configRef": reference}, "infrastructureRef": reference}
        return {
            "apiVersion": self._deployments.api_version,
            "kind": self._deployments.kind,
            "metadata": {"name": name, "namespace": self._namespace, "ownerReferences": [owner(found)]},
            "spec": {
                "clusterName": name,
                "replicas": count,
                "selector": {"matchLabels": marks},
                "template": {"metadata": {"labels": marks}, "spec": spec},
            },
        }
