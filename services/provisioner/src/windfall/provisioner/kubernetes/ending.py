"""The end of a node: asked to go, or killed, and then whatever stood for it is taken away."""

import asyncio
import logging
from datetime import timedelta

from windfall.contracts.message import Name
from windfall.provisioner.holdings import Node
from windfall.provisioner.kubernetes.access import Access
from windfall.provisioner.kubernetes.held import Held, HeldNodes
from windfall.provisioner.kubernetes.refusing import asking
from windfall.provisioner.manifests.labels import LEASE, node_of, selector, site_labels
from windfall.provisioner.workers import KILLED, End, ended, leaving, worker_of
from windfall.servicekit.bus import back_off
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.kube import Object
from windfall.servicekit.kube.kinds import CONFIG_MAP, JOB, POD

log = logging.getLogger(__name__)


class Ending:
    """See the module."""

    def __init__(self, site: Name, access: Access, held: HeldNodes) -> None:
        self._site = site
        self._access = access
        self._held = held

    async def drain(self, node: Node) -> None:
        """
        Raises:
            Transient: a pod could not be asked; the others have been.
        """
        access, held = self._access, self._held.get(node.lease_id)
        if held is None or access.mirror is None:
            return
        held.draining = True
        with asking(access.namespace):
            # A budget that lets all of them go would still hold back one that runs and is not ready.
            await access.cluster.delete(access.pdb, node.name, access.namespace)
            pods = access.mirror.pods(node.lease_id)
            refused = await self._evict([pod for pod in pods if not ended(pod) and not leaving(pod)])
            unborn = set(range(held.workers)) - {worker_of(pod) for pod in access.mirror.pods(node.lease_id)}
            for job in access.mirror.jobs(node.lease_id):
                if worker_of(job) in unborn:
                    # It has no pod yet, and need not get one.
                    await access.delete(JOB, job)
            if refused is not None:
                raise refused

    async def _evict(self, pods: list[Object]) -> Transient | None:
        """The last refusal: one that somebody else's budget holds back does not keep the others from being asked."""
        refused = None
        for pod in pods:
            try:
                await self._access.cluster.evict(pod["metadata"]["name"], self._access.namespace)
            except Transient as error:
                refused = error
        return refused

    async def kill(self, node: Node) -> None:
        access, held = self._access, self._held.get(node.lease_id)
        if held is not None and not held.killed and access.mirror is not None:
            seen = held.seen(access.mirror)
            held.end = End(seen.exit_code) if seen.gone or seen.broken else KILLED
        ours = selector({LEASE: str(node.lease_id), **site_labels(self._site)})
        with asking(access.namespace):
            await access.open()
            for job in (await access.cluster.list(JOB, access.namespace, labels=ours)).items:
                await access.delete(JOB, job)
            for pod in (await access.cluster.list(POD, access.namespace, labels=ours)).items:
                await access.delete(POD, pod, timedelta())
            found = await access.cluster.get(CONFIG_MAP, node.name, access.namespace)
            if found is not None and node_of(found) == node:
                await access.delete(CONFIG_MAP, found)

    async def insist(self, node: Node) -> None:
        """Kill it, however often that is refused."""
        refusals = 0
        while True:
            try:
                return await self.kill(node)
            except Transient as error:
                refusals += 1
                pause = error.retry_after or back_off(refusals)
                log.warning("%s: asked again in %.1f s: %s", node.name, pause.total_seconds(), error)
                await asyncio.sleep(pause.total_seconds())

    def clear(self, held: Held) -> None:
        """Take away what stood for a node that is gone."""
        held.clearing = asyncio.create_task(self._cleared(held), name=f"clearing of {held.node.name}")

    async def _cleared(self, held: Held) -> None:
        lease_id = held.node.lease_id
        try:
            await self.insist(held.node)
            await self._access.gate.close(lambda: self._held.get(lease_id) is held and len(self._held) == 1)
        except (Mistake, Transient) as error:
            log.error("%s is gone, and what stood for it stays: %s", held.node.name, error)
        if self._held.get(lease_id) is held:
            del self._held[lease_id]

    async def close(self) -> None:
        tasks = [held.clearing for held in self._held.values() if held.clearing]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
