"""Our resource definitions on an API server."""

import asyncio
from contextlib import suppress

from windfall.provisioner.definitions.crds import crds
from windfall.servicekit.kube import Cluster, Exists
from windfall.servicekit.kube.kinds import CRD


async def install(cluster: Cluster) -> None:
    """Returns when they are served."""
    for crd in crds().values():
        with suppress(Exists):
            await cluster.create(CRD, crd)
    for crd in crds().values():
        async with asyncio.timeout(20):
            while not await _established(cluster, crd["metadata"]["name"]):  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def _established(cluster: Cluster, name: str) -> bool:
    found = await cluster.get(CRD, name)
    conditions = ((found or {}).get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)
