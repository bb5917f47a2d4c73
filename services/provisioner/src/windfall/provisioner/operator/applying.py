"""Brings an owner's objects to what they should be, and takes away those that it should not have.

What is as it was applied is left alone without a question to the server. An object that is not the operator's is never
touched, whatever it is called.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from windfall.contracts.resources.fields import Metadata
from windfall.provisioner.operator.marks import MANAGED_BY, OPERATOR, SUSPENDED
from windfall.provisioner.operator.store import Child, Owner, Store, child_of
from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Cluster, Kind, Object
from windfall.servicekit.kube.kinds import (
    CONFIG_MAP,
    DAEMON_SET,
    PDB,
    PDB_BETA,
    PERSISTENT_VOLUME_CLAIM,
    SERVICE,
    STATEFUL_SET,
)

log = logging.getLogger(__name__)

KINDS: Final[tuple[Kind, ...]] = (
    CONFIG_MAP,
    DAEMON_SET,
    PDB,
    PERSISTENT_VOLUME_CLAIM,
    SERVICE,
    STATEFUL_SET,
)
"""What the operator makes and watches."""
_BY_KIND: Final = {(kind.api_version, kind.kind): kind for kind in (*KINDS, PDB_BETA)}


def kind_of(obj: Object) -> Kind:
    return _BY_KIND[obj["apiVersion"], obj["kind"]]


class Applying:
    """One namespace's."""

    def __init__(self, cluster: Cluster, store: Store) -> None:
        self._cluster = cluster
        self._store = store
        self._applied: dict[tuple[Kind, str], tuple[str, str]] = {}
        self.writes = 0
        """Requests that may have changed something."""

    def forget(self, owner: Owner) -> None:
        """Apply everything of this owner anew, whatever is known of it."""
        for child in self._store.of(owner):
            self._applied.pop((child.kind, child.name), None)

    async def apply(self, owner: Metadata, objects: Iterable[Object]) -> list[str]:
        """Gives what was refused, with the reason; everything else is as it should be.

        Raises:
            Transient: the server is away or busy; what was applied stays so.
        """
        refused = []
        for obj in objects:
            kind, name = kind_of(obj), obj["metadata"]["name"]
            if (fault := await self._taken(kind, name, owner)) is not None:
                refused.append(fault)
                continue
            try:
                await self._one(kind, obj)
            except Mistake as mistake:
                refused.append(f"{kind.kind} {name}: {mistake.cause}")
                # What it says of the number of pods counts all the same: a window must not be waited for.
                await self._scaled_at_least(kind, obj)
        return refused

    async def prune(self, owner: Owner, uid: str, wanted: Collection[tuple[Kind, str]], pools: Collection[str]) -> None:
        """Take away what was made for an owner and is not wanted any more.

        Args:
            wanted: what is.
            pools: whose volumes are kept, though no object of the operator's own names them.
        """
        for child in self._store.of(owner):
            if (child.kind, child.name) in wanted or child.owner_uid != uid:
                continue
            if child.kind == PERSISTENT_VOLUME_CLAIM and child.labels.get("windfall.dev/pool", "") in pools:
                continue
            self.writes += 1
            await self._cluster.delete(child.kind, child.name, self._namespace(owner), uid=child.uid)
            log.info("%s %s is not wanted any more", child.kind.kind, child.name)

    async def adopt(self, owner: Metadata, reference: dict[str, Any], child: Child) -> None:
        """Let a volume that a StatefulSet made go with the owner."""
        self.writes += 1
        adopted = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": child.name, "namespace": owner.namespace, "ownerReferences": [reference]},
        }
        self._store.seen(child.kind, await self._cluster.apply(child.kind, adopted, manager=OPERATOR, force=True))

    async def to_zero(self, child: Child, namespace: str) -> bool:
        """Ask a workload for no pods; whether that had to be asked."""
        if child.kind == STATEFUL_SET and child.replicas != 0:
            merge: dict[str, Any] = {"spec": {"replicas": 0}}
        elif child.kind == DAEMON_SET and not child.suspended:
            merge = {"spec": {"template": {"spec": {"nodeSelector": {SUSPENDED: "true"}}}}}
        else:
            return False
        self.writes += 1
        merge["metadata"] = {"uid": child.uid}
        self._store.seen(child.kind, await self._cluster.patch(child.kind, child.name, namespace, merge))
        return True

    async def _one(self, kind: Kind, obj: Object) -> None:
        key = kind, obj["metadata"]["name"]
        digest = hashlib.sha256(json.dumps(obj, sort_keys=True).encode()).hexdigest()
        child = self._store.children.get(key)
        if child is not None and self._applied.get(key) == (digest, child.marker):
            return
        found = await self._claimed(obj) if kind == PERSISTENT_VOLUME_CLAIM else None
        if found is None:
            self.writes += 1
            found = await self._cluster.apply(kind, obj, manager=OPERATOR, force=True)
        self._store.seen(kind, found)
        self._applied[key] = digest, child_of(kind, found).marker

    async def _claimed(self, obj: Object) -> Object | None:
        """A volume that is as it should be is not even asked for again: the first time that is, a server of 1.20 writes
        it anew, though nothing is different."""
        found = await self._cluster.get(PERSISTENT_VOLUME_CLAIM, obj["metadata"]["name"], obj["metadata"]["namespace"])
        return found if found is not None and holds(found, obj) else None

    async def _taken(self, kind: Kind, name: str, owner: Metadata) -> str | None:
        child = self._store.children.get((kind, name))
        if child is None:
            found = await self._cluster.get(kind, name, owner.namespace)
            if found is None:
                return None
            if (found["metadata"].get("labels") or {}).get(MANAGED_BY) != OPERATOR:
                return f"{kind.kind} {name} is somebody else's; rename it, or this resource"
            child = child_of(kind, found)
        if child.owner_uid in ("", owner.uid) or self._is_gone(child.owner_uid):
            return None
        return f"{kind.kind} {name} belongs to another resource; rename one of them"

    def _is_gone(self, uid: str) -> bool:
        living = [found for found, _ in (*self._store.sites.values(), *self._store.federations.values())]
        return all(found["metadata"].get("uid") != uid for found in living)

    async def _scaled_at_least(self, kind: Kind, obj: Object) -> None:
        child = self._store.children.get((kind, obj["metadata"]["name"]))
        if child is None:
            return
        namespace = obj["metadata"]["namespace"]
        if kind == DAEMON_SET and SUSPENDED in obj["spec"]["template"]["spec"].get("nodeSelector", {}):
            await self.to_zero(child, namespace)
        elif kind == STATEFUL_SET and child.replicas != obj["spec"]["replicas"]:
            self.writes += 1
            merge = {"spec": {"replicas": obj["spec"]["replicas"]}, "metadata": {"uid": child.uid}}
            self._store.seen(kind, await self._cluster.patch(kind, child.name, namespace, merge))

    def _namespace(self, owner: Owner) -> str:
        known = self._store.sites if owner[0].plural == "sites" else self._store.federations
        return str(known[owner[1]][0]["metadata"]["namespace"])


def holds(found: object, wanted: object) -> bool:
    """Whether everything that is wanted is there; what else is there does not matter."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        return all(key in found and holds(found[key], value) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(holds(one, other) for one, other in zip(found, wanted, strict=True))
    return bool(found == wanted)
