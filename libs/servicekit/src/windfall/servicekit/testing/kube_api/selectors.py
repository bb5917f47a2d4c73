"""Label and field selectors."""

import re
from collections.abc import Callable
from typing import Any, Final

from windfall.servicekit.kube.kinds import Kind, Object
from windfall.servicekit.testing.kube_api.refused import Refused, bad_request

Matches = Callable[[Object], bool]

_SET: Final = re.compile(r"^(?P<key>[^\s!=,()]+)\s+(?P<how>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUAL: Final = re.compile(r"^(?P<key>[^\s!=,()]+)\s*(?P<how>==|=|!=)\s*(?P<value>[^\s!=,()]*)$")
_HELD: Final = re.compile(r"^(?P<absent>!?)\s*(?P<key>[^\s!=,()]+)$")

_FIELDS: Final = {
    "pods": ("spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "spec.schedulerName", "status.phase"),
    "events": (
        *(f"involvedObject.{name}" for name in ("kind", "namespace", "name", "uid", "apiVersion", "fieldPath")),
        *("reason", "type", "source", "reportingComponent"),
    ),
    "nodes": ("spec.unschedulable",),
    "secrets": ("type",),
    "namespaces": ("status.phase",),
    "jobs": ("status.successful",),
}
"""Of the built-in kinds, beside name and namespace."""


def by_labels(text: str) -> Matches:
    """
    Raises:
        Refused: it is none.
    """
    tests = [_label_test(part.strip()) for part in _parts(text)]
    return lambda obj: all(test(obj["metadata"].get("labels") or {}) for test in tests)


def _parts(text: str) -> list[str]:
    """At commas outside parentheses."""
    return [part for part in re.split(r",(?![^()]*\))", text) if part.strip()]


def _label_test(part: str) -> Callable[[dict[str, str]], bool]:
    if match := _SET.match(part):
        key, values = match["key"], {value.strip() for value in match["values"].split(",")}
        if match["how"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if match := _EQUAL.match(part):
        key, value = match["key"], match["value"]
        if match["how"] == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if match := _HELD.match(part):
        key, absent = match["key"], bool(match["absent"])
        return lambda labels: (key in labels) is not absent
    raise bad_request(f"unable to parse requirement: {part!r}")


def by_label_selector(selector: Object | None) -> Callable[[dict[str, str]], bool]:
    """Of a ``LabelSelector`` object; none of it selects nothing, an empty one everything."""
    if selector is None:
        return lambda labels: False
    tests = [_expression(item) for item in selector.get("matchExpressions") or ()]
    exact = selector.get("matchLabels") or {}
    return lambda labels: exact.items() <= labels.items() and all(test(labels) for test in tests)


def _expression(item: Object) -> Callable[[dict[str, str]], bool]:
    key, values = item["key"], set(item.get("values") or ())
    tests: dict[str, Callable[[dict[str, str]], bool]] = {
        "In": lambda labels: labels.get(key) in values,
        "NotIn": lambda labels: labels.get(key) not in values,
        "Exists": lambda labels: key in labels,
        "DoesNotExist": lambda labels: key not in labels,
    }
    return tests[item["operator"]]


def by_fields(text: str, kind: Kind, *, custom: bool) -> Matches:
    """
    Raises:
        Refused: this kind cannot be selected by that field.
    """
    allowed = {"metadata.name", "metadata.namespace"} | set(() if custom else _FIELDS.get(kind.plural, ()))
    tests: list[Matches] = []
    for part in _parts(text):
        match = _EQUAL.match(part.strip())
        if match is None:
            raise bad_request(f"invalid selector: {text!r}")
        if match["key"] not in allowed:
            raise _unsupported(match["key"])
        tests.append(_field_test(match["key"], match["how"] != "!=", match["value"]))
    return lambda obj: all(test(obj) for test in tests)


def _unsupported(field: str) -> Refused:
    return bad_request(f"field label not supported: {field}")


def _field_test(field: str, equal: bool, value: str) -> Matches:
    def test(obj: Object) -> bool:
        found: Any = obj
        for name in field.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        text = str(found).lower() if isinstance(found, bool) else str(found or "")
        if field == "spec.unschedulable":
            text = text or "false"
        return (text == value) is equal

    return test
