"""Somebody who may do what some roles grant, and nothing else, on the double and on a real API server."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

from windfall.provisioner.testing.pod_stage import eventually
from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Cluster, Connection, Kind, Object
from windfall.servicekit.kube.kinds import CLUSTER_ROLE, CLUSTER_ROLE_BINDING, ROLE, ROLE_BINDING

RIGHTS: Final = {kind.kind: kind for kind in (ROLE, ROLE_BINDING, CLUSTER_ROLE, CLUSTER_ROLE_BINDING)}
SOMEBODY: Final = {"kind": "Group", "name": "viewers", "apiGroup": "rbac.authorization.k8s.io"}
"""Whoever holds the ``viewtoken`` of a server of tests: no other role is bound to them."""


@asynccontextmanager
async def granted(
    cluster: Cluster,
    kubeconfig: Path,
    folder: Path,
    made: Sequence[Object],
    listed: Sequence[tuple[Kind, str | None]],
) -> AsyncIterator[Path]:
    """Their kubeconfig, while these roles are bound to them.

    Args:
        cluster: of somebody who may give rights, with its ``kubeconfig``.
        folder: where theirs is written.
        made: roles and bindings.
        listed: kinds and namespaces that they may list once the server has heard of it all.
    """
    for one in made:
        await cluster.create(RIGHTS[one["kind"]], one)
    restricted = folder / "restricted"
    restricted.write_text(kubeconfig.read_text().replace("admintoken", "viewtoken"))
    try:
        async with Cluster.connect(Connection(restricted)) as theirs:
            # A real server's authorizer hears of a role a moment after it was written.
            for kind, namespace in listed:
                await eventually(partial(may_list, theirs, kind, namespace))
        yield restricted
    finally:
        for one in made:
            await cluster.delete(RIGHTS[one["kind"]], one["metadata"]["name"], one["metadata"].get("namespace"))


async def may_list(theirs: Cluster, kind: Kind, namespace: str | None) -> bool:
    """Whether they may."""
    try:
        await theirs.list(kind, namespace)
    except Mistake:
        return False
    return True
