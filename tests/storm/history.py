"""Every change that an API server took, and what must hold of each of them and of what is left."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

from windfall.contracts.message import instant
from windfall.contracts.resources.fields import GROUP
from windfall.provisioner.manifests.labels import LEASE, MANAGED_BY, OURS, SITE, TOKEN
from windfall.provisioner.operator.marks import OPERATOR
from windfall.servicekit.kube import Cluster, Kind, Object

Key = tuple[str, str, str, str]
"""Group, plural, namespace, name."""
_CONTROLLERS: Final = "kube-"
"""How the names of those begin that belong to the cluster."""
_SILENT: Final = ("resourceVersion", "managedFields")
"""What of an object's metadata may differ although nothing has changed."""


@dataclass(frozen=True)
class Change:
    """One object as it is from a version on; none when it is gone."""

    version: int
    key: Key
    after: Object | None
    outcome: bool = False
    """There may have been others before it that nobody saw."""


class History(Protocol):
    """Every change so far."""

    changes: list[Change]

    def read(self) -> Sequence[Change]:
        """What has come since as well; all there is."""


class Watched:
    """What the watches of a real server tell: of what was written while it was away, the outcome alone."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self._last = 0

    def read(self) -> Sequence[Change]:
        return self.changes

    async def follow(self, cluster: Cluster, kind: Kind, namespace: str) -> None:
        """For ever."""
        async for change in cluster.follow(kind, namespace):
            if change.verb == "synced":
                continue
            metadata, gone = change.object["metadata"], change.verb == "absent"
            version = int(metadata["resourceVersion"])
            # An end that was missed is known by the version before it.
            self._last = max(self._last + gone, version)
            key = (kind.group, kind.plural, namespace, metadata["name"])
            found = None if gone else {"apiVersion": kind.api_version, "kind": kind.kind, **change.object}
            self.changes.append(Change(self._last if gone else version, key, found, change.listed))


class Log:
    """The log of the double, read along while it is killed and compacted.

    Args:
        path: its file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.changes: list[Change] = []

    def read(self) -> Sequence[Change]:
        last = self.changes[-1].version if self.changes else 0
        for line in self._path.read_text(encoding="utf-8").splitlines(keepends=True):
            if not line.endswith("\n"):
                continue
            said = json.loads(line)
            if said["v"] > last and said["k"][1]:
                self.changes.append(Change(said["v"], tuple(said["k"]), said["o"]))
        return self.changes


def ours(found: Object) -> bool:
    """Whether the provisioner or the operator made it."""
    return _labels(found).get(MANAGED_BY) in (OURS, OPERATOR)


def now(changes: Iterable[Change]) -> dict[Key, Object]:
    """What is there after them."""
    there: dict[Key, Object] = {}
    for change in changes:
        if change.after is None:
            there.pop(change.key, None)
        else:
            there[change.key] = change.after
    return there


def ownerless(changes: Iterable[Change], owned_sites: frozenset[str]) -> Iterator[str]:
    """Objects of ours that at any time named no owner. A site's own anchor is the only one that may."""
    for change in changes:
        found = change.after
        if found is None or not ours(found) or found["metadata"].get("ownerReferences"):
            continue
        site = _labels(found).get(SITE, "")
        if change.key[1] == "configmaps" and change.key[3] == f"windfall-{site}" and site not in owned_sites:
            continue
        yield f"{_name(change.key)} has no owner at version {change.version}"


def orphans(there: Mapping[Key, Object], live: Iterable[str] | None) -> Iterator[str]:
    """What is left of ours although its owners are gone, or its lease is over.

    Args:
        live: ids of the leases that are held.
    """
    uids = {found["metadata"]["uid"] for found in there.values()}
    held = set(live or ())
    for key, found in there.items():
        owners = [owner["uid"] for owner in found["metadata"].get("ownerReferences") or ()]
        if owners and not uids & set(owners):
            yield f"{_name(key)} has outlived its owners"
        lease = _labels(found).get(LEASE)
        if live is not None and lease is not None and lease not in held:
            yield f"{_name(key)} is of the lease {lease}, which is not held"


def unchanged(changes: Iterable[Change]) -> Iterator[str]:
    """Writes to our resources and whatever we make that gave an object another version and nothing else. One that only
    controllers of the cluster have written is theirs: they are told apart by what each is said to manage. Where changes
    were not seen, the object may have been another in between."""
    there: dict[Key, Object] = {}
    for change in changes:
        before = there.pop(change.key, None)
        if change.after is None:
            continue
        there[change.key] = change.after
        if before is None or change.outcome:
            continue
        if (change.key[0] == GROUP or ours(before)) and _body(before) == _body(change.after):
            writers = _writers(before, change.after)
            if not writers or not all(writer.startswith(_CONTROLLERS) for writer in writers):
                by = f" by {', '.join(sorted(writers))}" if writers else ""
                yield f"{_name(change.key)} was written{by} at version {change.version} and is as before"


def _writers(before: Object, after: Object) -> set[str]:
    """Whose entry among the managed fields differs."""

    def entries(found: Object) -> set[tuple[str, str]]:
        return {(one["manager"], json.dumps(one, sort_keys=True)) for one in found["metadata"].get("managedFields", ())}

    return {manager for manager, _ in entries(before) ^ entries(after)}


def since(changes: Iterable[Change], version: int) -> Iterator[Change]:
    """What was written after a version and is not for others to write: the status of what is no resource of ours."""
    there: dict[Key, Object] = {}
    for change in changes:
        before = there.pop(change.key, None)
        if change.after is not None:
            there[change.key] = change.after
        if change.version <= version:
            continue
        if change.key[0] == GROUP or before is None or change.after is None or _spec(before) != _spec(change.after):
            yield change


def unfenced(changes: Iterable[Change]) -> Iterator[str]:
    """Anchors on which the youngest lease's token shrinks."""
    youngest: dict[str, int] = {}
    for change in changes:
        found = change.after
        if found is None or not ours(found) or change.key[3] != f"windfall-{_labels(found).get(SITE)}":
            continue
        metadata = found["metadata"]
        token, before = int((metadata.get("annotations") or {}).get(TOKEN, 0)), youngest.get(metadata["uid"], 0)
        if token < before:
            yield f"{_name(change.key)} fell from token {before} to {token} at version {change.version}"
        youngest[metadata["uid"]] = token


def born(changes: Iterable[Change]) -> dict[str, datetime]:
    """When each lease got its youngest Job; whole seconds."""
    found: dict[str, datetime] = {}
    for change in changes:
        if change.after is not None and change.key[1] == "jobs" and (lease := _labels(change.after).get(LEASE)):
            found[lease] = instant(change.after["metadata"]["creationTimestamp"])
    return found


def _body(found: Object) -> Any:
    metadata = {name: value for name, value in found["metadata"].items() if name not in _SILENT}
    return {**found, "metadata": metadata}


def _spec(found: Object) -> Any:
    return {name: value for name, value in _body(found).items() if name != "status"}


def _labels(found: Object) -> Mapping[str, str]:
    return found["metadata"].get("labels") or {}


def _name(key: Key) -> str:
    return f"{key[1]}/{key[3]}"
