"""Sets of fields, as managed fields hold them: which leaves of an object somebody has set.

A path is made of the elements of ``FieldsV1``: ``f:name`` of a map, ``k:{"name":"x"}`` of a list that is a map,
``v:"x"`` of a set. See the structured-merge-diff repository of Kubernetes.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.testing.kube_api.shapes import Shape

Path = tuple[str, ...]

_UNOWNED: Final = frozenset(
    ("f:metadata", f"f:{name}")
    for name in (
        "name",
        "generateName",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "generation",
        "managedFields",
    )
) | {("f:apiVersion",), ("f:kind",), ("f:metadata",)}
_STATUS: Final = ("f:status",)
_THERE: Final = "."


def owned(obj: Object, shape: Shape, *, containers: bool) -> dict[Path, Any]:
    """The leaves of an object that somebody can own, with their values.

    Args:
        containers: maps and lists themselves as well, as an update owns them; an apply owns leaves and items alone.
    """
    found: dict[Path, Any] = {}
    _collect(obj, shape, (), found, containers)
    if found.get(_STATUS) == {}:
        # The server's own: what has a status has at least an empty one.
        del found[_STATUS]
    return {path: value for path, value in found.items() if path not in _UNOWNED}


def _collect(value: Any, shape: Shape, path: Path, found: dict[Path, Any], containers: bool) -> None:
    if isinstance(value, dict) and value and not shape.whole:
        if containers and path:
            found[path] = _THERE
        for name, inner in value.items():
            _collect(inner, shape.child(name), (*path, f"f:{name}"), found, containers)
    elif isinstance(value, list) and value and shape.list_type != "atomic":
        if containers:
            found[path] = _THERE
        for item in value:
            place = (*path, element(item, shape))
            found[place] = _THERE
            if shape.list_type == "map":
                _collect(item, shape.item(), place, found, containers=False)
    elif path:
        found[path] = value


def element(item: Any, shape: Shape) -> str:
    """What tells an item of a map list or a set apart."""
    if shape.list_type == "set":
        return f"v:{json.dumps(item, sort_keys=True, separators=(',', ':'))}"
    keys = {key: item.get(key, shape.key_defaults.get(key)) for key in shape.keys} if isinstance(item, dict) else {}
    return f"k:{json.dumps(keys, sort_keys=True, separators=(',', ':'))}"


def tree(paths: Iterable[Path]) -> Object:
    """As ``FieldsV1``."""
    root: Object = {}
    for path in sorted(paths):
        node = root
        for part in path:
            node = node.setdefault(part, {})
        node["."] = {}
    return {name: _tidy(node) for name, node in root.items()}


def _tidy(node: Object) -> Object:
    """A leaf needs no dot."""
    return {} if node.keys() == {"."} else {name: _tidy(inner) if inner else {} for name, inner in node.items()}


def paths(fields: Mapping[str, Any], above: Path = ()) -> frozenset[Path]:
    """Of a ``FieldsV1``."""
    found: set[Path] = set()
    for name, inner in fields.items():
        if name == ".":
            found.add(above)
        elif inner:
            found |= paths(inner, (*above, name))
        else:
            found.add((*above, name))
    return frozenset(found)


def covered(found: Iterable[Path]) -> set[Path]:
    """These paths and every one above them."""
    return {path[:length] for path in found for length in range(1, len(path) + 1)}


def held(found: Iterable[Path]) -> set[Path]:
    """These paths and every named field above them. An item of a list is held by those alone who own the item."""
    return {
        path[:length]
        for path in found
        for length in range(1, len(path) + 1)
        if length == len(path) or path[length - 1].startswith("f:")
    }


def without(value: Any, fields: Object, shape: Shape) -> Any:
    """The value without these fields; what is emptied by that goes as well."""
    if isinstance(value, dict):
        pairs = ((name, inner, fields.get(f"f:{name}"), shape.child(name)) for name, inner in value.items())
        kept = {name: left for name, inner, cut, below in pairs if (left := _cut(inner, cut, below)) is not _GONE}
        return kept if kept or not value else _GONE
    if isinstance(value, list) and shape.list_type != "atomic":
        rest = [
            left for item in value if (left := _cut(item, fields.get(element(item, shape)), shape.item())) is not _GONE
        ]
        return rest if rest or not value else _GONE
    return value


_GONE: Final = object()


def _cut(value: Any, cut: Object | None, shape: Shape) -> Any:
    if cut is None:
        return value
    return _GONE if not cut or "." in cut else without(value, cut, shape)


def shown(path: Path) -> str:
    """As a conflict names it, like ``.spec.containers[name="x"].image``."""
    text = ""
    for part in path:
        if part.startswith("f:"):
            text += f".{part[2:]}"
        elif part.startswith("k:"):
            keys = json.loads(part[2:])
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in keys.items()) + "]"
        else:
            text += f"[={part[2:]}]"
    return text
