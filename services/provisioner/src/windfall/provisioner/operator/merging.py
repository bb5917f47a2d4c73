"""How what a person writes is merged with what is made here: by name, and always to the same result.

A pod template that is put together in another order is another template to Kubernetes, and restarts what trains.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

_REFERENCE: Final = re.compile(r"(?<!\$)(?:\$\$)*\$\(([A-Za-z0-9_.-]+)\)")
_KEYS: Final = {"env": "name", "volumeMounts": "mountPath", "ports": "containerPort", "hostAliases": "ip"}


def overlaid(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """What is made here under what a person says: fields of theirs win, lists of named things are joined by name."""
    merged = dict(ours)
    for key, value in theirs.items():
        present: Any = merged.get(key)
        if isinstance(present, Mapping) and isinstance(value, Mapping):
            merged[key] = overlaid(present, value)
        elif _named(key, present) and _named(key, value):
            merged[key] = joined(key, present, value)
        else:
            merged[key] = value
    return merged


def joined(key: str, *lists: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Lists of things that are told apart by a field; a later one's fields win."""
    by = _KEYS.get(key, "name")
    found: dict[Any, dict[str, Any]] = {}
    for one in (item for items in lists for item in items):
        found[one[by]] = overlaid(found.get(one[by], {}), one)
    return list(found.values())


def environment(*lists: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Variables of a container; a later list's win, whole. By name, but each after those that its value refers to."""
    found: dict[str, dict[str, Any]] = {}
    for one in (item for items in lists for item in items):
        found[one["name"]] = dict(one)
    needs = {
        name: {used for used in _REFERENCE.findall(one.get("value") or "") if used in found and used != name}
        for name, one in found.items()
    }
    return [found[name] for name in _in_order(needs)]


def by_key(key: str, items: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A list whose order means nothing, in one order."""
    by = _KEYS.get(key, "name")
    return sorted(joined(key, items), key=lambda item: str(item[by]))


def _in_order(needs: Mapping[str, set[str]]) -> Sequence[str]:
    sorter = TopologicalSorter(needs)
    try:
        sorter.prepare()
    except CycleError:
        # The kubelet leaves such references as they are.
        return sorted(needs)
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        order += ready
        sorter.done(*ready)
    return order


def _named(key: str, value: object) -> bool:
    by = _KEYS.get(key, "name")
    return isinstance(value, list | tuple) and all(isinstance(item, Mapping) and by in item for item in value)
