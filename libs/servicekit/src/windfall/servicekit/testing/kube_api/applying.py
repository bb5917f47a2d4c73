"""Server-side apply, and who owns which field after any other write."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.testing.kube_api.field_sets import (
    Path,
    covered,
    element,
    held,
    owned,
    paths,
    shown,
    tree,
    without,
)
from windfall.servicekit.testing.kube_api.refused import Cause, Refused
from windfall.servicekit.testing.kube_api.shapes import Shape


@dataclass(frozen=True, order=True)
class Writer:
    """One entry of the managed fields."""

    operation: str
    """``Apply`` or ``Update``."""
    manager: str
    api_version: str
    subresource: str = ""


@dataclass(frozen=True)
class Entry:
    """What one writer owns."""

    fields: frozenset[Path]
    time: str


Owners = dict[Writer, Entry]
_NOTHING: Final = Entry(frozenset(), "")


def owners_of(obj: Object | None) -> Owners:
    """From ``metadata.managedFields``."""
    entries = obj["metadata"].get("managedFields", ()) if obj else ()
    return {
        Writer(entry["operation"], entry["manager"], entry["apiVersion"], entry.get("subresource", "")): Entry(
            paths(entry.get("fieldsV1", {})), entry.get("time", "")
        )
        for entry in entries
    }


def managed(owners: Owners) -> list[Object]:
    """As ``metadata.managedFields``."""
    return [
        {"manager": writer.manager, "operation": writer.operation, "apiVersion": writer.api_version}
        | ({"subresource": writer.subresource} if writer.subresource else {})
        | {"time": entry.time, "fieldsType": "FieldsV1", "fieldsV1": tree(entry.fields)}
        for writer, entry in sorted(owners.items())
        if entry.fields
    ]


def applied(
    live: Object | None, config: Object, shape: Shape, writer: Writer, *, force: bool, now: str
) -> tuple[Object, Owners]:
    """The object with the fields that ``config`` wants, without those that this writer wanted before and no longer
    does, and who owns what.

    Raises:
        Refused: another writer owns a field that would change, and ``force`` is not said (409).
    """
    wanted = frozenset(owned(config, shape, containers=False))
    owners = owners_of(live)
    if live is None:
        return config, {writer: Entry(wanted, now)}
    before = owned(live, shape, containers=False)
    others = {other: entry for other, entry in owners.items() if other != writer}
    kept = held(wanted) | held(path for entry in others.values() for path in entry.fields)
    dropped = frozenset(path for path in owners.get(writer, _NOTHING).fields if path not in kept)
    new: Object = merged(live, config, shape)
    if dropped:
        new = without(new, tree(dropped), shape)
    after = owned(new, shape, containers=False)
    changed = {path for path in wanted if path in after and (path not in before or before[path] != after[path])}
    contested = {other: entry.fields & changed for other, entry in others.items() if entry.fields & changed}
    if contested and not force:
        raise _contested(contested)
    there = covered(after)
    left = {
        other: _renewed(entry, (entry.fields - contested.get(other, frozenset())) & there, now)
        for other, entry in others.items()
    }
    return new, left | {writer: _renewed(owners.get(writer, _NOTHING), wanted, now)}


def updated(live: Object | None, new: Object, shape: Shape, writer: Writer, now: str) -> Owners:
    """Who owns what after a create, replace or patch: whoever changes a field takes it from everybody."""
    before = owned(live, shape, containers=True) if live else {}
    after = owned(new, shape, containers=True)
    changed = frozenset(path for path, value in after.items() if path not in before or before[path] != value)
    owners = owners_of(live)
    there = covered(after)
    mine = owners.get(writer, _NOTHING)
    left = {
        other: _renewed(entry, (entry.fields - changed) & there, now)
        for other, entry in owners.items()
        if other != writer
    }
    return left | {writer: _renewed(mine, (mine.fields | changed) & there, now)}


def _renewed(entry: Entry, fields: frozenset[Path], now: str) -> Entry:
    """Its time is that of its last change, so that a write that changes nothing changes nothing here."""
    return entry if entry.fields == fields else Entry(fields, now)


def _contested(contested: Mapping[Writer, frozenset[Path]]) -> Refused:
    causes = [
        Cause("FieldManagerConflict", f'conflict with "{other.manager}"' + _using(other), shown(path))
        for other, fields in sorted(contested.items())
        for path in sorted(fields)
    ]
    count = f"{len(causes)} conflict{'s' if len(causes) > 1 else ''}"
    lines = ", ".join(f"{cause.message}: {cause.field}" for cause in causes)
    return Refused(
        409, "Conflict", f"Apply failed with {count}: {lines}", {"causes": [cause.object() for cause in causes]}
    )


def _using(other: Writer) -> str:
    return "" if other.operation == "Apply" else f" using {other.api_version}"


def merged(live: Any, config: Any, shape: Shape) -> Any:
    """``live`` with everything that ``config`` says."""
    if isinstance(live, dict) and isinstance(config, dict) and not shape.whole:
        said = {
            name: merged(live[name], value, shape.child(name)) if name in live else value
            for name, value in config.items()
        }
        return live | said
    if isinstance(live, list) and isinstance(config, list) and shape.list_type != "atomic":
        wanted = {element(item, shape): item for item in config}
        kept = [
            merged(item, wanted.pop(place), shape.item()) if (place := element(item, shape)) in wanted else item
            for item in live
        ]
        return kept + list(wanted.values())
    return config
