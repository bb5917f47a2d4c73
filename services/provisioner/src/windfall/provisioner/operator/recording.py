"""What is written on a Site or a Federation itself: the finalizer, the status, and what the bus has told."""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import BaseModel

from windfall.contracts.resources.federation import FederationStatus
from windfall.contracts.resources.site import SiteStatus
from windfall.provisioner.operator import standing
from windfall.provisioner.operator.marks import BUS_WORD, FINALIZER, OPERATOR, SITE
from windfall.provisioner.operator.store import Owner, Store
from windfall.provisioner.operator.telling import Telling
from windfall.servicekit.clock import Clock
from windfall.servicekit.kube import Cluster, Kind, Object

log = logging.getLogger(__name__)

_BUS_FIELDS: Final = ("window", "capacity", "progress")


class Recording:
    """
    Args:
        concerns: told whom a write concerns beside the resource itself.
    """

    def __init__(self, cluster: Cluster, store: Store, clock: Clock, concerns: Callable[[Owner], None]) -> None:
        self._cluster = cluster
        self._store = store
        self._clock = clock
        self._concerns = concerns
        self._telling = Telling(cluster)
        self.statuses = 0
        """Written so far."""

    async def hold(self, kind: Kind, found: Object) -> None:
        """From now on its deletion waits for us."""
        finalizers = found["metadata"].get("finalizers") or []
        if FINALIZER not in finalizers:
            await self._finalizers(kind, found, [*finalizers, FINALIZER])

    async def let_go(self, kind: Kind, found: Object) -> None:
        await self._finalizers(kind, found, [one for one in found["metadata"]["finalizers"] if one != FINALIZER])
        log.info("%s %s is drained and may go", kind.kind, found["metadata"]["name"])

    async def _finalizers(self, kind: Kind, found: Object, finalizers: list[str]) -> None:
        metadata = found["metadata"]
        merge = {"metadata": {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}}
        after = await self._cluster.patch(kind, metadata["name"], metadata["namespace"], merge)
        # Of one that had no other finalizer, nothing is left to be seen.
        if finalizers or "deletionTimestamp" not in after["metadata"]:
            self._saw(kind, after)

    async def status_of_invalid(self, kind: Kind, found: Object, faults: Sequence[str]) -> None:
        said = found.get("status") or {}
        before = (SiteStatus if kind == SITE else FederationStatus).model_validate(
            {"conditions": said.get("conditions", ())}
        )
        generation = found["metadata"].get("generation", 0)
        status = before.model_copy(
            update={
                "observed_generation": generation,
                "conditions": standing.conditions(before.conditions, standing.invalid(faults), generation, self.now()),
            }
        )
        await self.status(kind, found, status, before)

    async def status(
        self,
        kind: Kind,
        found: Object,
        status: SiteStatus | FederationStatus,
        before: SiteStatus | FederationStatus,
    ) -> None:
        """Write it if it says something else, and tell a person what has changed."""
        wanted = {key: value for key, value in dumped(status).items() if key not in _BUS_FIELDS}
        there = {key: value for key, value in (found.get("status") or {}).items() if key not in _BUS_FIELDS}
        if wanted == there:
            return
        await self._telling.tell(kind, found, before.conditions, status.conditions, self.now())
        await self._write(kind, found, wanted, OPERATOR)

    async def said(self, kind: Kind, found: Object, word: dict[str, Any]) -> None:
        await self._write(kind, found, word, BUS_WORD)

    async def _write(self, kind: Kind, found: Object, status: dict[str, Any], manager: str) -> None:
        self.statuses += 1
        metadata = found["metadata"]
        obj = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
            "status": status,
        }
        self._saw(kind, await self._cluster.apply_status(kind, obj, manager=manager, force=True))

    def _saw(self, kind: Kind, found: Object) -> None:
        """What we have written concerns others as if it had been seen: the watch will have nothing new to say."""
        for owner in self._store.seen(kind, found) - {(kind, found["metadata"]["name"])}:
            self._concerns(owner)

    def now(self) -> datetime:
        return self._clock.now().astimezone(UTC).replace(microsecond=0)


def dumped(part: BaseModel) -> dict[str, Any]:
    return part.model_dump(mode="json", by_alias=True, exclude_none=True)
