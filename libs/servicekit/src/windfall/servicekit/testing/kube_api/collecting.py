"""The garbage collector: what has lost its owners goes, and what waits for its dependents is let go when they are gone.

Namespaces and definitions that end take their content with them. It follows the store and acts through the registry.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from windfall.servicekit.kube import kinds
from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.testing.kube_api.lifecycle import CRD_CLEANUP, FOREGROUND, ORPHAN
from windfall.servicekit.testing.kube_api.refused import Refused
from windfall.servicekit.testing.kube_api.registry import Registry
from windfall.servicekit.testing.kube_api.resources import Catalogue
from windfall.servicekit.testing.kube_api.store import Changed, Key, Store
from windfall.servicekit.testing.kube_api.targets import Target

_BACKGROUND: Final[Object] = {"propagationPolicy": "Background"}


class Collector:
    """See the module."""

    def __init__(self, store: Store, catalogue: Catalogue, registry: Registry) -> None:
        self._store = store
        self._catalogue = catalogue
        self._registry = registry
        self._at: dict[str, Key] = {}
        """Where the object of a uid is."""
        self._owned: dict[str, set[Key]] = {}
        """Objects that name a uid as an owner."""
        self._due: deque[Key] = deque()

    async def run(self) -> None:
        """For ever."""
        seen = self._store.version
        for key in list(self._store):
            self._learn(Changed(seen, key, None, self._store.get(key)))
        while True:
            while self._due:
                self._look(self._due.popleft())
                for change in self._store.since(seen):
                    self._learn(change)
                seen = self._store.version
            await self._store.changed(seen)
            try:
                changes = self._store.since(seen)
            except Refused:
                # Somebody has made the history forget: all is looked at again.
                changes = [Changed(self._store.version, key, None, self._store.get(key)) for key in self._store]
            for change in changes:
                self._learn(change)
            seen = self._store.version

    def _learn(self, change: Changed) -> None:
        for owner in _owners(change.before):
            self._owned.get(owner["uid"], set()).discard(change.key)
        for owner in _owners(change.after):
            self._owned.setdefault(owner["uid"], set()).add(change.key)
        if change.after is not None:
            self._at[change.after["metadata"]["uid"]] = change.key
        elif change.before is not None:
            uid = change.before["metadata"]["uid"]
            self._at.pop(uid, None)
            self._due.extend(self._owned.get(uid, ()))
            self._due.extend(self._at[owner["uid"]] for owner in _owners(change.before) if owner["uid"] in self._at)
            self._due.extend(self._around(change.key))
        self._due.append(change.key)

    def _around(self, key: Key) -> Iterable[Key]:
        """What may wait for the end of an object: its namespace and its definition."""
        return (
            Key("", "namespaces", "", key.namespace),
            Key(kinds.CRD.group, kinds.CRD.plural, "", f"{key.plural}.{key.group}"),
        )

    def _look(self, key: Key) -> None:
        obj = self._store.get(key)
        if obj is None:
            return
        metadata = obj["metadata"]
        finalizers = metadata.get("finalizers") or ()
        if "deletionTimestamp" in metadata:
            if key[:2] == ("", "namespaces"):
                self._empty(key, obj, [found for found in self._store if found.namespace == key.name])
            elif CRD_CLEANUP in finalizers:
                group, plural = obj["spec"]["group"], obj["spec"]["names"]["plural"]
                self._empty(key, obj, [found for found in self._store if found[:2] == (group, plural)])
            if ORPHAN in finalizers:
                self._orphan(key, obj)
            elif FOREGROUND in finalizers:
                self._wait_for_dependents(key, obj)
        self._judge(key, obj)

    def _judge(self, key: Key, obj: Object) -> None:
        """Delete what no owner holds; forget owners that are gone."""
        owners = _owners(obj)
        if not owners or "deletionTimestamp" in obj["metadata"]:
            return
        there = {owner["uid"]: self._owner(owner["uid"], key) for owner in owners}
        solid = [owner for owner in owners if (found := there[owner["uid"]]) and not _waits(found)]
        if not solid:
            self._delete(key)
            return
        if len(solid) < len(owners):
            self._registry.settle(key, {**obj, "metadata": obj["metadata"] | {"ownerReferences": solid}})

    def _owner(self, uid: str, dependent: Key) -> Object | None:
        at = self._at.get(uid)
        if at is None or at.namespace not in ("", dependent.namespace):
            return None
        return self._store.get(at)

    def _wait_for_dependents(self, key: Key, obj: Object) -> None:
        dependents = list(self._owned.get(obj["metadata"]["uid"], ()))
        for dependent in dependents:
            found = self._store.get(dependent)
            if found is not None:
                self._judge(dependent, found)
        blocking = [
            found
            for dependent in self._owned.get(obj["metadata"]["uid"], ())
            if (found := self._store.get(dependent)) is not None
            and any(
                owner["uid"] == obj["metadata"]["uid"] and owner.get("blockOwnerDeletion") for owner in _owners(found)
            )
        ]
        if not blocking:
            self._release(key, FOREGROUND)

    def _orphan(self, key: Key, obj: Object) -> None:
        uid = obj["metadata"]["uid"]
        for dependent in list(self._owned.get(uid, ())):
            found = self._store.get(dependent)
            if found is None:
                continue
            left = [owner for owner in _owners(found) if owner["uid"] != uid]
            metadata = {name: value for name, value in found["metadata"].items() if name != "ownerReferences"}
            metadata |= {"ownerReferences": left} if left else {}
            self._registry.settle(dependent, {**found, "metadata": metadata})
        self._release(key, ORPHAN)

    def _empty(self, key: Key, obj: Object, content: list[Key]) -> None:
        for found in content:
            held = self._store.get(found)
            if held is not None and "deletionTimestamp" not in held["metadata"]:
                self._delete(found)
        if any(self._store.get(found) is not None for found in content):
            return
        if obj["kind"] == "Namespace":
            self._registry.settle(key, {**obj, "spec": {}})
        else:
            self._release(key, CRD_CLEANUP)

    def _release(self, key: Key, finalizer: str) -> None:
        obj = self._store.get(key)
        if obj is None:
            return
        left = [name for name in obj["metadata"].get("finalizers") or () if name != finalizer]
        metadata = {name: value for name, value in obj["metadata"].items() if name != "finalizers"}
        self._registry.settle(key, {**obj, "metadata": metadata | ({"finalizers": left} if left else {})})

    def _delete(self, key: Key) -> None:
        resource = self._catalogue.any_version(key.group, key.plural)
        if resource is not None:
            self._registry.delete(Target(resource, key.namespace, key.name), _BACKGROUND)


def _owners(obj: Object | None) -> list[Object]:
    return list(obj["metadata"].get("ownerReferences") or ()) if obj else []


def _waits(owner: Object) -> bool:
    """An owner that ends in the foreground wants its dependents gone first."""
    metadata = owner["metadata"]
    return "deletionTimestamp" in metadata and FOREGROUND in (metadata.get("finalizers") or ())
