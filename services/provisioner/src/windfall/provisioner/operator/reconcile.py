"""Reconciling one owner: from what was seen to what is wanted, as far as that can be had now.

Level-triggered: nothing here asks what has happened. It may be ended at any line and begun again.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel

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
    BUS_WORD,
    COMPONENT,
    FEDERATION,
    FINALIZER,
    OPERATOR,
    POOL_LABEL,
    SITE,
    owned,
)
from windfall.provisioner.operator.selection import Choice, selected
from windfall.provisioner.operator.standing import Finding, Workload
from windfall.provisioner.operator.store import Owner, Store
from windfall.provisioner.operator.telling import Telling
from windfall.servicekit.clock import Clock
from windfall.servicekit.kube import Absent, Cluster, Kind, Object
from windfall.servicekit.kube.kinds import PERSISTENT_VOLUME_CLAIM

log = logging.getLogger(__name__)

_REFUSED_AGAIN: Final = timedelta(minutes=5)
_BUS_FIELDS: Final = ("window", "capacity", "progress")


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
        self._cluster = cluster
        self._store = store
        self._facts = facts
        self._clock = clock
        self._hearsay = hearsay
        self._concerns = concerns
        self.applying = Applying(cluster, store)
        self._draining = Draining(cluster, store, self.applying, release)
        self._telling = Telling(cluster)
        self.statuses = 0
        """Written so far."""

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
        await self._hold(SITE, found)
        site = told.resource
        faults = told.faults or (site_services.faults(site) if site else ())
        if site is None or faults:
            await self._status_of_invalid(SITE, found, faults)
            return None
        objects = site_services.desired(site)
        refused = await self.applying.apply(metadata, objects)
        await self.applying.prune(owner, metadata.uid, {(kind_of(obj), obj["metadata"]["name"]) for obj in objects}, ())
        status = standing.site_status(site, self._now(), _applied(refused))
        await self._status(SITE, found, status, site.status)
        return _REFUSED_AGAIN if refused else None

    async def _site_goes(self, owner: Owner, found: Object, site: Site | None, metadata: Metadata) -> timedelta | None:
        if FINALIZER not in metadata.finalizers:
            return None
        again = await self._draining.site(metadata, site, self._now(), found["metadata"]["deletionTimestamp"])
        if again is None:
            await self._let_go(SITE, found)
            return None
        if site is not None:
            await self._status(SITE, found, standing.site_status(site, self._now()), site.status)
        return again

    async def _word_of_site(self, name: str) -> None:
        """What the bus has told since is put on the object first: it is what a restart knows."""
        found, told = self._store.sites[name]
        status = told.resource.status if told.resource else SiteStatus()
        news: dict[str, Any] = {}
        window, capacity = self._hearsay.site(name, status)
        if window is not None and window != status.window:
            news["window"] = _dumped(window)
        if capacity is not None and capacity != status.capacity:
            news["capacity"] = _dumped(capacity)
        if news:
            kept = {key: found["status"][key] for key in ("window", "capacity") if key in (found.get("status") or {})}
            await self._said(SITE, found, kept | news)

    # --- a federation -------------------------------------------------------------------------------------------------

    async def _federation(self, owner: Owner) -> timedelta | None:
        if owner[1] not in self._store.federations:
            return None
        await self._word_of_federation(owner[1])
        found, told = self._store.federations[owner[1]]
        metadata = Metadata.model_validate(found["metadata"])
        if metadata.going:
            return await self._federation_goes(owner, found, told.resource, metadata)
        await self._hold(FEDERATION, found)
        federation = told.resource
        faults = list(told.faults) or (self._faults(federation) if federation else [])
        if federation is None or faults:
            await self._status_of_invalid(FEDERATION, found, faults)
            return None
        choices = selected(federation.spec, self._store.valid_sites())
        objects, runs = self._desired(federation, choices, self._nodes_left(owner))
        refused = await self.applying.apply(metadata, objects)
        kept_pools = [run.pool.name for run in runs if run.pool.volume_claim_templates]
        wanted = {(kind_of(obj), obj["metadata"]["name"]) for obj in objects}
        await self.applying.prune(owner, metadata.uid, wanted, kept_pools)
        await self._adopt(owner, metadata, runs)
        await self._status(FEDERATION, found, self._standing(federation, choices, runs, refused), federation.status)
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
            owner, metadata, grace, self._now(), found["metadata"]["deletionTimestamp"]
        )
        if again is None:
            await self._let_go(FEDERATION, found)
            return None
        if federation is not None:
            findings = [
                standing.no("Ready", "Draining", "it is being deleted, and its SuperNodes finish what they train")
            ]
            status = federation.status.model_copy(
                update={
                    "observed_generation": metadata.generation,
                    "conditions": standing.conditions(
                        federation.status.conditions, findings, metadata.generation, self._now()
                    ),
                }
            )
            await self._status(FEDERATION, found, status, federation.status)
        return again

    async def _word_of_federation(self, name: str) -> None:
        found, told = self._store.federations[name]
        before = told.resource.status.progress if told.resource else None
        progress = self._hearsay.federation(name, before)
        if progress is not None and progress != before:
            await self._said(FEDERATION, found, {"progress": _dumped(progress)})

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
        return standing.federation_status(federation, findings, choices, pools, endpoints, self._now())

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

    # --- both ---------------------------------------------------------------------------------------------------------

    async def _hold(self, kind: Kind, found: Object) -> None:
        """From now on its deletion waits for us."""
        finalizers = found["metadata"].get("finalizers") or []
        if FINALIZER not in finalizers:
            await self._finalizers(kind, found, [*finalizers, FINALIZER])

    async def _let_go(self, kind: Kind, found: Object) -> None:
        await self._finalizers(kind, found, [one for one in found["metadata"]["finalizers"] if one != FINALIZER])
        log.info("%s %s is drained and may go", kind.kind, found["metadata"]["name"])

    async def _finalizers(self, kind: Kind, found: Object, finalizers: list[str]) -> None:
        metadata = found["metadata"]
        merge = {"metadata": {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}}
        after = await self._cluster.patch(kind, metadata["name"], metadata["namespace"], merge)
        # Of one that had no other finalizer, nothing is left to be seen.
        if finalizers or "deletionTimestamp" not in after["metadata"]:
            self._saw(kind, after)

    async def _status_of_invalid(self, kind: Kind, found: Object, faults: Sequence[str]) -> None:
        said = found.get("status") or {}
        before = (SiteStatus if kind == SITE else FederationStatus).model_validate(
            {"conditions": said.get("conditions", ())}
        )
        generation = found["metadata"].get("generation", 0)
        status = before.model_copy(
            update={
                "observed_generation": generation,
                "conditions": standing.conditions(before.conditions, standing.invalid(faults), generation, self._now()),
            }
        )
        await self._status(kind, found, status, before)

    async def _status(
        self,
        kind: Kind,
        found: Object,
        status: SiteStatus | FederationStatus,
        before: SiteStatus | FederationStatus,
    ) -> None:
        """Write it if it says something else, and tell a person what has changed."""
        wanted = {key: value for key, value in _dumped(status).items() if key not in _BUS_FIELDS}
        there = {key: value for key, value in (found.get("status") or {}).items() if key not in _BUS_FIELDS}
        if wanted == there:
            return
        await self._telling.tell(kind, found, before.conditions, status.conditions, self._now())
        self.statuses += 1
        metadata = found["metadata"]
        obj = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
            "status": wanted,
        }
        self._saw(kind, await self._cluster.apply_status(kind, obj, manager=OPERATOR, force=True))

    async def _said(self, kind: Kind, found: Object, word: dict[str, Any]) -> None:
        self.statuses += 1
        metadata = found["metadata"]
        obj = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
            "status": word,
        }
        self._saw(kind, await self._cluster.apply_status(kind, obj, manager=BUS_WORD, force=True))

    def _saw(self, kind: Kind, found: Object) -> None:
        """What we have written concerns others as if it had been seen: the watch will have nothing new to say."""
        for owner in self._store.seen(kind, found) - {(kind, found["metadata"]["name"])}:
            self._concerns(owner)

    def _now(self) -> datetime:
        return self._clock.now().astimezone(UTC).replace(microsecond=0)


def _applied(refused: Sequence[str]) -> Finding | None:
    return standing.no("Applied", "Refused", "; ".join(refused)) if refused else None


def _dumped(part: BaseModel) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True, exclude_none=True)
