"""Node affinity: what holds a pod to the nodes that were chosen, and whether somebody else's lets a pod onto a node."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

_NAME: Final = "metadata.name"


def affinity(nodes: Iterable[str]) -> dict[str, Any]:
    """What holds a pod to one of these nodes, for ``spec.affinity.nodeAffinity``."""
    # One name per term: matchFields takes a single value.
    fields = [{"key": _NAME, "operator": "In", "values": [name]} for name in sorted(nodes)]
    terms = [{"matchFields": [field]} for field in fields]
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}


def pinned_to(spec: Mapping[str, Any]) -> str | None:
    """The one node that a pod's required node affinity names, as :func:`affinity` writes it; none where it leaves a
    choice."""
    towards_nodes = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = (towards_nodes.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    fields = [field for term in terms for field in term.get("matchFields") or ()]
    match fields:
        case [{"key": key, "operator": "In", "values": [name]}] if key == _NAME and len(terms) == 1:
            return str(name)
        case _:
            return None


def admitted(spec: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> bool:
    """Whether a pod's node selector and its required node affinity let it onto a node of this name with these labels.

    Args:
        spec: of the pod.
    """
    selector: Mapping[str, str] = spec.get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in selector.items()):
        return False
    towards_nodes = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = towards_nodes.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(_meets(term, name, labels) for term in required.get("nodeSelectorTerms") or ())


def _meets(term: Mapping[str, Any], name: str, labels: Mapping[str, str]) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    # An empty term is met by no node.
    return bool(expressions or fields) and (
        all(_holds(each, labels) for each in expressions) and all(_holds(each, {_NAME: name}) for each in fields)
    )


def _holds(requirement: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement["key"])
    values: Sequence[str] = requirement.get("values") or ()
    match requirement["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return _above(value, values[0])
        case "Lt":
            return _above(values[0], value)
        case _:
            return False


def _above(text: str | None, bound: str | None) -> bool:
    number, least = _number(text), _number(bound)
    return number is not None and least is not None and number > least


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.lstrip("-").isdecimal() else None
