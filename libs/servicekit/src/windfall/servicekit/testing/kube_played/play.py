"""The whole cast."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from windfall.servicekit.kube import Cluster, Connection
from windfall.servicekit.testing.kube_played.controllers import Controllers
from windfall.servicekit.testing.kube_played.kubelet import Kubelet


@asynccontextmanager
async def played(kubeconfig: Path, kubelet: Kubelet | None = None) -> AsyncIterator[Kubelet]:
    """Plays while it is entered: kubelets everywhere, controllers where the API server is the double."""
    kubelet = kubelet or Kubelet()
    async with Cluster.connect(Connection(kubeconfig)) as cluster:
        await kubelet.prepare(cluster)
        parts = [kubelet.run(cluster)]
        if "double" in await cluster.version():
            parts.append(Controllers(cluster).run())
        else:
            parts.append(kubelet.beat(cluster))
        playing = [asyncio.create_task(part) for part in parts]
        try:
            yield kubelet
        finally:
            for task in playing:
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.gather(*playing)
