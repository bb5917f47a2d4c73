"""The start of a node: room is made for it, the site is claimed, its machines are chosen, and its objects written."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from windfall.contracts.message import Name
from windfall.provisioner.holdings import Lease, Node
from windfall.provisioner.kube_settings import TrainerSettings
from windfall.provisioner.kubernetes.access import Access
from windfall.provisioner.kubernetes.choosing import choose
from windfall.provisioner.kubernetes.ending import Ending
from windfall.provisioner.kubernetes.held import Held, HeldNodes
from windfall.provisioner.manifests import workload as manifests
from windfall.provisioner.manifests.chosen import chosen_of
from windfall.provisioner.manifests.labels import TOKEN, at_version, fenced, node_of, owned
from windfall.provisioner.manifests.workload import ATTEMPT, Made
from windfall.provisioner.mirror import Mirror
from windfall.provisioner.workers import leaving
from windfall.servicekit.crashpoint import reach
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.kube import Conflict, Kind, Object
from windfall.servicekit.kube.kinds import CONFIG_MAP, JOB, PERSISTENT_VOLUME_CLAIM

SITE: Final = Kind("windfall.dev", "v1alpha1", "Site", "sites")


class Starting:
    """See the module."""

    def __init__(self, site: Name, settings: TrainerSettings, access: Access, held: HeldNodes, ending: Ending) -> None:
        self._site = site
        self._settings = settings
        self._access = access
        self._held = held
        self._ending = ending
        self._claiming = asyncio.Lock()

    async def start(self, lease: Lease, environment: Mapping[str, str], made: Made) -> Node:
        access, node = self._access, Node.of(lease)
        mirror = await access.open()
        held = self._held.get(lease.lease_id)
        if held and not held.over(mirror):
            return node
        written, anchored = await asyncio.gather(
            *(
                access.cluster.get(CONFIG_MAP, n, access.namespace)
                for n in (node.name, manifests.anchor_name(self._site))
            )
        )
        begun = await self._make_room(lease, node, mirror, written)
        anchor = await self._claim_site(lease, made, anchored)
        with access.gate.coming():
            made = replace(made, chosen=chosen_of(begun) if begun else await choose(access.cluster, lease, made))
            await self._write(lease, environment, made, anchor, mirror)
            await access.gate.open()
            self._held[lease.lease_id] = Held(node, made.workers(lease))
        return node

    async def _make_room(self, lease: Lease, node: Node, mirror: Mirror, found: Object | None) -> Object | None:
        """What an earlier attempt left has gone, and what this one has written already stays: its ConfigMap, if any."""
        held = self._held.pop(lease.lease_id, None)
        if held and held.clearing:
            held.clearing.cancel()
        ours = found is not None and node_of(found) == node and not leaving(found)
        if ours and found and found["metadata"]["annotations"].get(ATTEMPT) == str(lease.attempts) and held is None:
            return found
        if found is not None or held is not None:
            await self._ending.kill(node)
        while mirror.jobs(lease.lease_id) or mirror.pods(lease.lease_id):
            await mirror.changed(mirror.version)
        mirror.forget(lease.lease_id)
        return None

    async def _write(
        self, lease: Lease, environment: Mapping[str, str], made: Made, anchor: Object, mirror: Mirror
    ) -> None:
        cluster, claim = self._access.cluster, manifests.claim_name(self._site)
        if await cluster.get(PERSISTENT_VOLUME_CLAIM, claim, made.namespace) is None:
            await cluster.apply(PERSISTENT_VOLUME_CLAIM, owned(manifests.state_claim(lease, made), anchor))
        owner = await cluster.apply(CONFIG_MAP, owned(manifests.lease_map(lease, environment, made), anchor))
        reach("kubernetes.lease-written")
        there = {job["metadata"]["name"] for job in mirror.jobs(lease.lease_id) if not leaving(job)}
        for manifest in manifests.workload(lease, environment, made):
            kind = self._access.kind(manifest)
            if kind is JOB and manifest["metadata"]["name"] in there:
                # Of this attempt: what an earlier one left has gone. Its template cannot be changed, and older servers
                # count applying the same once more as a change.
                continue
            written = await cluster.apply(kind, owned(manifest, owner))
            reach("kubernetes.part-written")
            if kind is JOB:
                mirror.keep(written)

    async def _claim_site(self, lease: Lease, made: Made, found: Object | None) -> Object:
        """The site's anchor, which knows this lease as the youngest.

        Args:
            found: as it was when it was looked at last; two leases of the site may claim it at the same time.
        """
        cluster, anchor = self._access.cluster, await self._anchor(lease, made)
        name = anchor["metadata"]["name"]
        async with self._claiming:
            found = found or await cluster.get(CONFIG_MAP, name, made.namespace)
            while True:
                if fenced(found, lease.token):
                    assert found is not None
                    theirs = found["metadata"]["annotations"][TOKEN]
                    raise Mistake(
                        f"lease {theirs} is the youngest of {self._site} by the ConfigMap {name}, not {lease.token}",
                        "Stop the other provisioner of this site; if this one's journal was lost, "
                        "delete that ConfigMap",
                        ExitCode.RESOURCE,
                    )
                before = found["metadata"]["resourceVersion"] if found else None
                try:
                    return await cluster.apply(CONFIG_MAP, at_version(anchor, before))
                except Conflict:
                    found = await cluster.get(CONFIG_MAP, name, made.namespace)
                    if found is not None and found["metadata"]["resourceVersion"] == before:
                        # Nobody was faster: another manager holds a field.
                        raise

    async def _anchor(self, lease: Lease, made: Made) -> Object:
        anchor, name = manifests.site_anchor(lease, made), self._settings.kube_owner
        if name is None:
            return anchor
        owner = await self._access.cluster.get(SITE, name, made.namespace)
        if owner is None:
            raise Mistake(
                f"there is no Site {name} in {made.namespace}",
                "Create it, or unset WINDFALL_KUBE_OWNER",
                ExitCode.RESOURCE,
            )
        return owned(anchor, owner)
