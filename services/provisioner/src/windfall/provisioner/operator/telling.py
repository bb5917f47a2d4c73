"""Kubernetes Events: what has changed, for a person who runs ``kubectl describe``."""

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from windfall.contracts.resources.conditions import Condition, condition
from windfall.provisioner.operator.marks import OPERATOR
from windfall.servicekit.kube import Cluster, Exists, Kind, Object
from windfall.servicekit.kube.kinds import EVENT

_TOLD: Final = ("Accepted", "Applied", "Ready", "WindowOpen")
_BAD: Final = ("Invalid", "Refused")


class Telling:
    """An event has a name that follows from what it says: the same thing again is counted, not written twice."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def tell(
        self, kind: Kind, found: Object, before: Iterable[Condition], after: Iterable[Condition], now: datetime
    ) -> None:
        known = list(before)
        for now_so in after:
            was = condition(known, now_so.type)
            changed = was is not None and (was.status, was.reason) != (now_so.status, now_so.reason)
            if now_so.type in _TOLD and (changed or (was is None and now_so.reason in _BAD)):
                await self._event(kind, found, now_so, now)

    async def _event(self, kind: Kind, found: Object, said: Condition, now: datetime) -> None:
        metadata = found["metadata"]
        about = "/".join((metadata["uid"], said.type, said.status, said.reason, said.message))
        name = f"{metadata['name']}.{hashlib.sha256(about.encode()).hexdigest()[:16]}"
        at = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        bad = said.reason in _BAD
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": kind.api_version,
                "kind": kind.kind,
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "type": "Warning" if bad else "Normal",
            "reason": said.reason,
            "message": f"{said.type} is {said.status}: {said.message}".removesuffix(": ")[:1024],
            "source": {"component": OPERATOR},
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }
        try:
            await self._cluster.create(EVENT, event)
        except Exists:
            there = await self._cluster.get(EVENT, name, metadata["namespace"])
            count = 1 + int((there or {}).get("count") or 0)
            merge = {"count": count, "lastTimestamp": at}
            await self._cluster.patch(EVENT, name, metadata["namespace"], merge)
