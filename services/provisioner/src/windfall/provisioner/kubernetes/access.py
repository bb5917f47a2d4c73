"""The cluster, once it is needed: what its server knows, and what is there."""

import asyncio
import logging
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Final
from uuid import UUID

from windfall.contracts.message import Name
from windfall.provisioner.dedicated import Gate
from windfall.provisioner.kube_settings import TrainerSettings
from windfall.provisioner.kubernetes.held import HeldNodes
from windfall.provisioner.manifests.labels import Manifest, selector, site_labels
from windfall.provisioner.mirror import Mirror
from windfall.servicekit.kube import Cluster, Conflict, Kind, Object
from windfall.servicekit.kube.kinds import CONFIG_MAP, JOB, PDB, PDB_BETA, PERSISTENT_VOLUME_CLAIM, SECRET, SERVICE

log = logging.getLogger(__name__)

_WAITS_FOR_PODS_SINCE: Final = 28
"""The minor version of Kubernetes since which a Job may be told not to replace a pod that is going."""
_KINDS: Final = {kind.kind: kind for kind in (SECRET, SERVICE, JOB, CONFIG_MAP, PERSISTENT_VOLUME_CLAIM)}


class Access:
    """See the module.

    Args:
        site: whose objects are watched.
        settings: where they are.
        held: the site's nodes: what is ordered of them says how their pods end.
    """

    def __init__(self, site: Name, settings: TrainerSettings, held: HeldNodes) -> None:
        self.namespace = settings.kube_namespace
        self.cluster = Cluster.connect(settings.connection)
        self.pdb = PDB
        self.waits_for_pods = True
        self.mirror: Mirror | None = None
        self.gate = Gate(self.cluster, settings.kube_node_selector if settings.kube_dedicated else {}, site)
        """Of the nodes that are the site's alone."""
        self._labels = selector(site_labels(site))
        self._held = held
        self._life = AsyncExitStack()
        self._opening = asyncio.Lock()

    async def open(self) -> Mirror:
        """Connect, and know what is there.

        Raises:
            Transient: the server does not answer.
        """
        async with self._opening:
            if self.mirror is None:
                async with AsyncExitStack() as opening:
                    await opening.enter_async_context(self.cluster)
                    self.pdb = PDB if await self.cluster.serves(PDB) else PDB_BETA
                    self.waits_for_pods = _minor(await self.cluster.version()) >= _WAITS_FOR_PODS_SINCE
                    self._life.push_async_exit(opening.pop_all())
                self.mirror = Mirror(self.cluster, self.namespace, self._labels, self._by_us)
                self._life.push_async_callback(self.mirror.close)
            mirror = self.mirror
        await mirror.synced()
        return mirror

    async def close(self) -> None:
        self.mirror = None
        await self._life.aclose()

    def kind(self, manifest: Manifest) -> Kind:
        return self.pdb if manifest["kind"] == PDB.kind else _KINDS[manifest["kind"]]

    async def delete(self, kind: Kind, found: Object, grace: timedelta | None = None) -> None:
        """This very object; another one that has taken its name stays."""
        metadata = found["metadata"]
        try:
            await self.cluster.delete(kind, metadata["name"], self.namespace, uid=metadata["uid"], grace=grace)
        except Conflict:
            log.info("%s %s is another one by now", kind.kind, metadata["name"])

    def _by_us(self, lease_id: UUID) -> bool:
        held = self._held.get(lease_id)
        return held is None or held.draining or held.killed


def _minor(version: str) -> int:
    """Of ``v1.33.4+k0s``."""
    return int(version.split(".")[1])
