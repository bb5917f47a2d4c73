"""All objects, every change to them under one counter, and a log on disk from which a killed server goes on.

A line of the log is one change: ``{"v": version, "k": [group, plural, namespace, name], "o": object or null}``. Stored
objects are never changed in place.
"""

import asyncio
import json
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.testing.kube_api.refused import expired

_KEPT: Final = 20_000
"""Changes that the history remembers."""


class Key(NamedTuple):
    group: str
    plural: str
    namespace: str
    name: str


_FORGOTTEN: Final = Key("", "", "", "")
"""In a log: what was before is known by its outcome alone."""


@dataclass(frozen=True)
class Changed:
    """One object at one version: what it was before and is after it."""

    version: int
    key: Key
    before: Object | None
    after: Object | None


class Store:
    """See the module.

    Args:
        log: its file; in memory alone without one.
        kept: changes that the history remembers.
    """

    def __init__(self, log: Path | None = None, kept: int = _KEPT) -> None:
        self.version = 0
        self.forgotten = 0
        """The history begins after this version."""
        self._kept = kept
        self._objects: dict[tuple[str, str], dict[tuple[str, str], Object]] = {}
        self._history: list[Changed] = []
        self._next = asyncio.Event()
        self._log = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            self._load(log)
            self._log = log.open("a", encoding="utf-8")

    def get(self, key: Key) -> Object | None:
        return self._objects.get((key.group, key.plural), {}).get((key.namespace, key.name))

    def all(self, group: str, plural: str, namespace: str = "") -> list[Object]:
        """In order of namespace and name; in every namespace if none is named."""
        found = self._objects.get((group, plural), {})
        return [found[key] for key in sorted(found) if not namespace or key[0] == namespace]

    def __iter__(self) -> Iterator[Key]:
        for (group, plural), found in self._objects.items():
            for namespace, name in found:
                yield Key(group, plural, namespace, name)

    def put(self, key: Key, obj: Object) -> Object:
        """Keep it; returns it with its version."""
        stamped = obj | {"metadata": obj["metadata"] | {"resourceVersion": str(self.version + 1)}}
        self._commit(Changed(self.version + 1, key, self.get(key), stamped))
        return stamped

    def remove(self, key: Key) -> Object:
        """Returns it as it was, with the version of its end."""
        before = self.get(key)
        assert before is not None, key
        self._commit(Changed(self.version + 1, key, before, None))
        return before | {"metadata": before["metadata"] | {"resourceVersion": str(self.version)}}

    def since(self, version: int) -> list[Changed]:
        """What has changed after it.

        Raises:
            Refused: that is forgotten (410).
        """
        if version < self.forgotten:
            raise expired(f"too old resource version: {version} ({self.forgotten})")
        if version > self.version:
            raise expired(f"too large resource version: {version} ({self.version})")
        return self._history[bisect_right(self._history, version, key=lambda change: change.version) :]

    def all_at(self, version: int, group: str, plural: str, namespace: str) -> list[Object]:
        """As :meth:`all` was at a version.

        Raises:
            Refused: that is forgotten (410).
        """
        found = dict(self._objects.get((group, plural), {}))
        for change in reversed(self.since(version)):
            if change.key[:2] == (group, plural):
                if change.before is None:
                    found.pop(change.key[2:], None)
                else:
                    found[change.key.namespace, change.key.name] = change.before
        return [found[key] for key in sorted(found) if not namespace or key[0] == namespace]

    async def changed(self, version: int) -> None:
        """Return when there is something after it."""
        while self.version <= version:
            await self._next.wait()

    def forget(self) -> None:
        """All history; every watch from before must list anew."""
        self._history.clear()
        self.forgotten = self.version

    def close(self) -> None:
        if self._log is not None:
            self._log.close()

    def _commit(self, change: Changed) -> None:
        if self._log is not None:
            # The kernel has it then: a killed process loses nothing. A power cut is not what this double is for.
            self._log.write(_line(change.version, change.key, change.after))
            self._log.flush()
        self._take(change)
        self._next.set()
        self._next = asyncio.Event()

    def _take(self, change: Changed) -> None:
        found = self._objects.setdefault((change.key.group, change.key.plural), {})
        if change.after is None:
            found.pop(change.key[2:], None)
        else:
            found[change.key.namespace, change.key.name] = change.after
        self.version = change.version
        self._history.append(change)
        if len(self._history) > 2 * self._kept:
            self._history = self._history[self._kept :]
            self.forgotten = self._history[0].version - 1

    def _load(self, log: Path) -> None:
        """A line that a kill cut short was never acknowledged, and is dropped."""
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
        whole = [line for line in lines if line.endswith("\n")]
        for line in whole:
            said = json.loads(line)
            key = Key(*said["k"])
            if key == _FORGOTTEN:
                self.version = said["v"]
                self.forget()
                continue
            self._take(Changed(said["v"], key, self.get(key), said["o"]))
        if len(whole) > 2 * self._kept:
            self._compact(log)
        elif len(whole) < len(lines):
            log.write_text("".join(whole), encoding="utf-8")

    def _compact(self, log: Path) -> None:
        """Every object once, at its own version, and the last version of all."""
        self.forget()
        objects = [(key, obj) for key in self if (obj := self.get(key)) is not None]
        objects.sort(key=lambda pair: int(pair[1]["metadata"]["resourceVersion"]))
        part = log.with_suffix(".part")
        with part.open("w", encoding="utf-8") as output:
            for key, obj in objects:
                output.write(_line(int(obj["metadata"]["resourceVersion"]), key, obj))
            output.write(_line(self.version, _FORGOTTEN, None))
        part.replace(log)


def _line(version: int, key: Key, obj: Object | None) -> str:
    return json.dumps({"v": version, "k": key, "o": obj}, separators=(",", ":")) + "\n"
