"""What applying a fleet would change on a live API server: server-side apply as a dry run, so that nothing is written
and the server's own defaults and refusals are seen."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from windfall.cli.gitops.difference import Change, change
from windfall.cli.gitops.documents import Object
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.kube import Absent, Cluster, Conflict, Connection, Kind

MANAGER: Final = "windfall-fleet"
"""Owns the fields that are applied; ``kubectl apply --server-side --field-manager=windfall-fleet`` goes on with it."""

_AT_ONCE: Final = 8
_K0RDENT: Final = "k0rdent.mirantis.com"
KINDS: Final = {
    kind.kind: kind
    for kind in (
        Kind("source.toolkit.fluxcd.io", "v1", "HelmRepository", "helmrepositories"),
        Kind(_K0RDENT, "v1beta1", "ClusterTemplate", "clustertemplates"),
        Kind(_K0RDENT, "v1beta1", "ServiceTemplate", "servicetemplates"),
        Kind(_K0RDENT, "v1beta1", "ClusterTemplateChain", "clustertemplatechains"),
        Kind(_K0RDENT, "v1beta1", "ServiceTemplateChain", "servicetemplatechains"),
        Kind(_K0RDENT, "v1beta1", "Credential", "credentials"),
        Kind(_K0RDENT, "v1beta1", "ClusterDeployment", "clusterdeployments"),
        Kind(_K0RDENT, "v1beta1", "MultiClusterService", "multiclusterservices", namespaced=False),
    )
}


async def changes(objects: Sequence[Object], fleet: str, kubeconfig: Path | None, context: str | None) -> list[Change]:
    """One for each object of the fleet, and for each that the server has of it besides.

    Raises:
        Mistake: the server cannot be reached, or refuses us.
    """
    try:
        async with Cluster.connect(Connection(kubeconfig=kubeconfig, context=context)) as cluster:
            return await _all_tried(cluster, objects) + await _surplus(cluster, objects, fleet)
    except Transient as error:
        raise Mistake(f"the API server does not answer ({error})", "Try again when it does", ExitCode.SERVER) from error


async def _all_tried(cluster: Cluster, objects: Sequence[Object]) -> list[Change]:
    turns = asyncio.Semaphore(_AT_ONCE)
    tasks = [asyncio.create_task(_tried(cluster, obj, turns)) for obj in objects]
    try:
        return await asyncio.gather(*tasks)
    finally:
        # After the first failure nobody asks on, with a connection that is to be closed.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _tried(cluster: Cluster, obj: Object, turns: asyncio.Semaphore) -> Change:
    async with turns:
        return await _change(cluster, obj)


async def _change(cluster: Cluster, obj: Object) -> Change:
    kind, metadata = KINDS[obj["kind"]], obj["metadata"]
    name, namespace = metadata["name"], metadata.get("namespace")
    try:
        before = await cluster.get(kind, name, namespace)
        return change(before, await cluster.apply(kind, obj, manager=MANAGER, dry_run=True))
    except (Conflict, Absent) as error:
        return Change(kind.kind, namespace or "", name, "refused", why=str(error))
    except Mistake as mistake:
        if mistake.exit_code is ExitCode.SERVER and not await cluster.serves(kind):
            return Change(
                kind.kind, namespace or "", name, "refused", why=f"{kind} is not served: install k0rdent first"
            )
        if mistake.exit_code is ExitCode.SERVER and "namespaces" not in mistake.cause:
            raise
        return Change(kind.kind, namespace or "", name, "refused", why=mistake.cause)


async def _surplus(cluster: Cluster, objects: Sequence[Object], fleet: str) -> list[Change]:
    ours = {(obj["kind"], obj["metadata"].get("namespace", ""), obj["metadata"]["name"]) for obj in objects}
    found: list[Change] = []
    for kind in KINDS.values():
        if not await cluster.serves(kind):
            continue
        labels = f"app.kubernetes.io/managed-by=windfall,windfall.dev/fleet={fleet}"
        for item in (await cluster.list(kind, labels=labels)).items:
            key = (kind.kind, item["metadata"].get("namespace", ""), item["metadata"]["name"])
            if key not in ours:
                found.append(Change(*key, "surplus", why="in no file of the fleet; applying leaves it there"))
    return sorted(found, key=lambda each: (each.kind, each.namespace, each.name))
