"""The operator's lease: an object of kind Lease, as Kubernetes' own controllers use it."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from windfall.servicekit import leadership
from windfall.servicekit.kube import Absent, Cluster, Conflict, Object
from windfall.servicekit.kube.kinds import LEASE
from windfall.servicekit.leadership import Entry, Lease

_TRANSITIONS: Final = "leaseTransitions"
"""Grows with every leader, as a fencing token does."""


class LeaseRegister:
    """See :class:`windfall.servicekit.leadership.Register`. The revision is the object's version."""

    def __init__(self, cluster: Cluster, namespace: str, name: str, lease: timedelta) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._lease = lease

    async def read(self) -> Entry | None:
        found = await self._cluster.get(LEASE, self._name, self._namespace)
        if found is None:
            return None
        spec = found.get("spec") or {}
        held = Lease(spec.get("holderIdentity") or "", int(spec.get(_TRANSITIONS) or 0))
        return Entry(held, int(found["metadata"]["resourceVersion"]))

    async def write(self, lease: Lease, over: int | None) -> int:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec: dict[str, Any] = {
            "holderIdentity": lease.holder,
            _TRANSITIONS: lease.token,
            "leaseDurationSeconds": max(1, -int(-self._lease.total_seconds() // 1)),
            "renewTime": now,
        }
        metadata: Object = {"name": self._name, "namespace": self._namespace}
        obj: Object = {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}
        try:
            if over is None:
                found = await self._cluster.create(LEASE, obj)
            else:
                metadata["resourceVersion"] = str(over)
                found = await self._cluster.replace(LEASE, obj)
        except Absent:
            raise leadership.Conflict("the lease was deleted") from None
        except Conflict as error:
            raise leadership.Conflict(str(error)) from error
        return int(found["metadata"]["resourceVersion"])

    async def close(self) -> None:
        """The connection is its owner's."""
