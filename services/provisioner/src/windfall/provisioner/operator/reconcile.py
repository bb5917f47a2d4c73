"""Reconciling one owner: from what was seen to what is wanted, as far as that can be had now.

Level-triggered: nothing here asks what has happened. It may be ended at any line and begun again.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from windfall.contracts.resources import Federation, Site
from windfall.contracts.resources.federation import Endpoints, FederationStatus, PoolStatus
from windfall.contracts.resources.fields import Metadata
from windfall.contracts.resources.site import SiteStatus
from windfall.provisioner.operator import coordinator, site_services, standing
from windfall.provisioner.operator.applying import Applying, kind_of
from windfall.provisioner.operator.draining import Draining, Release
from windfall.provisioner.operator.facts import Facts
from windfall.provisioner.operator.flower import desired as flower
from windfall.provisioner.operator.flower.pool import Run
from windfall.provisioner.operator.flower.pool import name_of as pool_name
from windfall.provisioner.operator.flower.superlink import name_of as superlink_name
from windfall.provisioner.operator.hearsay import Hearsay
from windfall.provisioner.operator.marks import (
    COMPONENT,
    FEDERATION,
    FINALIZER,
    POOL_LABEL,
    SITE,
    owned,
)
from windfall.provisioner.operator.recording import Recording, dumped
from windfall.provisioner.operator.selection import Choice, selected
from windfall.provisioner.operator.standing import Finding, Workload
from windfall.provisioner.operator.store import Owner, Store
from windfall.servicekit.clock import Clock
from windfall.servicekit.kube import Absent, Cluster, Object
from windfall.servicekit.kube.kinds import PERSISTENT_VOLUME_CLAIM

log = logging.getLogger(__name__)

_REFUSED_AGAIN: Final = timedelta(minutes=5)


class Reconciler:
    """One namespace's."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        facts: Facts,
        clock: Clock,
        hearsay: Hearsay,
        concerns: Callable[[Owner], None],
        release: Release,
    ) -> None:
        self._store = store
        self._facts = facts
        self._hearsay = hearsay
        self.applying = Applying(cluster, store)
        self._draining = Draining(cluster, store, self.applying, release)
        self.record = Recording(cluster, store, clock, concerns)

    async def reconcile(self, owner: Owner) -> timedelta | None:
        """Gives when to look again, if time alone may change something.

        Raises:
            Transient: the server is away, busy, or knows better; call again.
            Mistake: it refuses us.
        """
        try:
            return await (self._site(owner) if owner[0] == SITE else self._federation(owner))
        except Absent:
            # It went meanwhile: that will be seen.
            return None

    # --- a site -------------------------------------------------------------------------------------------------------

    async def _site(self, owner: Owner) -> timedelta | None:
        if owner[1] not in self._store.sites:
            return None
        await self._word_of_site(owner[1])
        found, told = self._store.sites[owner[1]]
        metadata = Metadata.model_validate(found["metadata"])
        if metadata.going:
            return await self._site_goes(owner, found, told.resource, metadata)
        await self.record.hold(SITE, found)
        site = told.resource
        faults = told.faults or (site_services.faults(site) if site else ())
        if site is None or faults:
            await self.record.status_of_invalid(SITE, found, faults)
            return None
        objects = site_services.desired(site)
        refused = await self.applying.apply(metadata, objects)
        await self.applying.prune(owner, metadata.uid, {(kind_of(obj), obj["metadata"]["name"]) for obj in objects}, ())
        status = standing.site_status(site, self.record.now(), _applied(refused))
        await self.record.status(SITE, found, status, site.status)
        return _REFUSED_AGAIN if refused else None

    async def _site_goes(self, owner: Owner, found: Object, site: Site | None, metadata: Metadata) -> timedelta | None:
        if FINALIZER not in metadata.finalizers:
            return None
        again = await self._draining.site(metadata, site, self.record.now(), found["metadata"]["deletionTimestamp"])
        if again is None:
            await self.record.let_go(SITE, found)
            return None
        if site is not None:
            await self.record.status(SITE, found, standing.site_status(site, self.record.now()), site.status)
        return again

    async def _word_of_site(self, name: str) -> None:
        """What the bus has told since is put on the object first: it is what a restart knows."""
        found, told = self._store.sites[name]
        status = told.resource.status if told.resource else SiteStatus()
        news: dict[str, Any] = {}
        window, capacity = self._hearsay.site(name, status)
        if window is not None and window != status.window:
            news["window"] = dumped(window)
        if capacity is not None and capacity != status.capacity:
            news["capacity"] = dumped(capacity)
        if news:
            kept = {key: found["status"][key] for key in ("window", "capacity") if key in (found.get("status") or {})}
            await self.record.said(SITE, found, kept | news)

    # --- a federation -------------------------------------------------------------------------------------------------

    async def _federation(self, owner: Owner) -> timedelta | None:
        if owner[1] not in self._store.federations:
            return None
        await self._word_of_federation(owner[1])
        found, told = self._store.federations[owner[1]]
        metadata = Metadata.model_validate(found["metadata"])
        if metadata.going:
            return await self._federation_goes(owner, found, told.resource, metadata)
        await self.record.hold(FEDERATION, found)
        federation = told.resource
        faults = list(told.faults) or (self._faults(federation) if federation else [])
        if federation is None or faults:
            await self.record.status_of_invalid(FEDERATION, found, faults)
            return None
        choices = selected(federation.spec, self._store.valid_sites())
        objects, runs = self._desired(federation, choices, self._nodes_left(owner))
        refused = await self.applying.apply(metadata, objects)
        kept_pools = [run.pool.name for run in runs if run.pool.volume_claim_templates]
        wanted = {(kind_of(obj), obj["metadata"]["name"]) for obj in objects}
        await self.applying.prune(owner, metadata.uid, wanted, kept_pools)
        await self._adopt(owner, metadata, runs)
        await self.record.status(
            FEDERATION, found, self._standing(federation, choices, runs, refused), federation.status
        )
        return _REFUSED_AGAIN if refused else None

    def _faults(self, federation: Federation) -> list[str]:
        spec = federation.spec
        if spec.flower is not None:
            return flower.faults(federation, spec.flower, self._facts)
        return coordinator.faults(federation)

    def _desired(
        self, federation: Federation, choices: Sequence[Choice], nodes_left: int
    ) -> tuple[list[Object], list[Run]]:
        spec = federation.spec
        if spec.flower is not None:
            return flower.desired(federation, spec.flower, choices, self._facts, nodes_left)
        assert spec.coordinator is not None
        return coordinator.desired(federation, spec.coordinator, choices, self._facts), []

    async def _federation_goes(
        self, owner: Owner, found: Object, federation: Federation | None, metadata: Metadata
    ) -> timedelta | None:
        if FINALIZER not in metadata.finalizers:
            return None
        grace = federation.spec.drain_grace if federation else None
        again = await self._draining.federation(
            owner, metadata, grace, self.record.now(), found["metadata"]["deletionTimestamp"]
        )
        if again is None:
            await self.record.let_go(FEDERATION, found)
            return None
        if federation is not None:
            findings = [
                standing.no("Ready", "Draining", "it is being deleted, and its SuperNodes finish what they train")
            ]
            status = federation.status.model_copy(
                update={
                    "observed_generation": metadata.generation,
                    "conditions": standing.conditions(
                        federation.status.conditions, findings, metadata.generation, self.record.now()
                    ),
                }
            )
            await self.record.status(FEDERATION, found, status, federation.status)
        return again

    async def _word_of_federation(self, name: str) -> None:
        found, told = self._store.federations[name]
        before = told.resource.status.progress if told.resource else None
        progress = self._hearsay.federation(name, before)
        if progress is not None and progress != before:
            await self.record.said(FEDERATION, found, {"progress": dumped(progress)})

    def _nodes_left(self, owner: Owner) -> int:
        return sum(
            child.workload.left
            for child in self._store.of(owner)
            if child.workload is not None and child.labels.get(COMPONENT) == "supernode"
        )

    async def _adopt(self, owner: Owner, metadata: Metadata, runs: Sequence[Run]) -> None:
        going_with_us = {run.pool.name for run in runs if run.pool.claims_when_deleted == "Delete"}
        for child in self._store.of(owner):
            ours = child.labels.get(POOL_LABEL, "") in going_with_us
            if child.kind == PERSISTENT_VOLUME_CLAIM and ours and not child.owner_uid:
                await self.applying.adopt(metadata, owned(FEDERATION, metadata), child)

    def _standing(
        self, federation: Federation, choices: Sequence[Choice], runs: Sequence[Run], refused: Sequence[str]
    ) -> FederationStatus:
        findings = [standing.yes("Accepted", "Valid"), _applied(refused) or standing.yes("Applied", "Applied")]
        spec, endpoints, pools = federation.spec, Endpoints(), []
        namespace = federation.metadata.namespace
        if spec.flower is not None:
            link = superlink_name(federation)
            findings.append(standing.service_finding("SuperLinkReady", self._workload("StatefulSet", link)))
            pools = [self._pool(federation, run, spec.flower.mode) for run in runs]
            workloads = [
                self._workload(spec.flower.mode, pool_name(federation, run.pool)) or Workload("") for run in runs
            ]
            findings.append(standing.pool_finding(pools, workloads))
            ports = spec.flower.superlink.service.ports
            port = ports.grpc if flower.serves_all_on_one_port(spec.flower) else ports.extra
            endpoints = Endpoints(superlink_service=f"{link}.{namespace}.svc:{port}")
        if spec.coordinator is not None:
            name = coordinator.name_of(federation)
            findings.append(standing.service_finding("CoordinatorReady", self._workload("StatefulSet", name)))
            endpoints = Endpoints(coordinator=coordinator.address(federation, spec.coordinator))
        if spec.coordinator is not None or any(run.pool.site for run in runs):
            findings.append(standing.sites_finding(choices))
        findings.append(standing.ready_finding(findings))
        return standing.federation_status(federation, findings, choices, pools, endpoints, self.record.now())

    def _pool(self, federation: Federation, run: Run, mode: Any) -> PoolStatus:
        workload = self._workload(mode, pool_name(federation, run.pool))
        seen = workload is not None and workload.seen
        return PoolStatus(
            name=run.pool.name,
            kind=mode,
            desired=((run.pool.replicas or (workload.desired if workload and seen else 0)) if run.on else 0),
            ready=workload.ready if workload is not None and seen else 0,
            site=run.pool.site or "",
            because=run.because,
        )

    def _workload(self, kind: str, name: str) -> Workload | None:
        return self._store.workload(kind, name)


def _applied(refused: Sequence[str]) -> Finding | None:
    return standing.no("Applied", "Refused", "; ".join(refused)) if refused else None
