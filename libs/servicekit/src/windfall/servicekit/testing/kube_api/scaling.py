"""The scale subresource: how many of something there are to be, whatever it is."""

from typing import Any

from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.testing.kube_api.refused import Refused, bad_request
from windfall.servicekit.testing.kube_api.resources import Resource


def scale_of(resource: Resource, obj: Object) -> Object:
    """As ``autoscaling/v1``.

    Raises:
        Refused: the object does not say how many it wants.
    """
    assert resource.scale is not None
    replicas = _at(obj, resource.scale.replicas)
    if replicas is None:
        message = f'Internal error occurred: the spec replicas field ".{resource.scale.replicas}" does not exist'
        raise Refused(500, "InternalError", message)
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Object = {"replicas": _at(obj, resource.scale.status) or 0}
    if resource.scale.selector and (selector := _at(obj, resource.scale.selector)):
        status["selector"] = selector if isinstance(selector, str) else _text(selector)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {name: obj["metadata"][name] for name in kept if name in obj["metadata"]},
        "spec": {"replicas": replicas},
        "status": status,
    }


def scaled(resource: Resource, obj: Object, scale: Object) -> Object:
    """The object with as many as the scale says."""
    assert resource.scale is not None
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        raise bad_request(f"spec.replicas: {replicas!r} is no number of replicas")
    metadata = dict(obj["metadata"])
    said = (scale.get("metadata") or {}).get("resourceVersion")
    if said:
        metadata["resourceVersion"] = said
    new = _with(obj, resource.scale.replicas.split("."), replicas)
    return {**new, "metadata": metadata}


def _at(obj: Any, path: str) -> Any:
    for name in path.split("."):
        obj = obj.get(name) if isinstance(obj, dict) else None
    return obj


def _with(obj: Object, path: list[str], value: Any) -> Object:
    name, *rest = path
    return {**obj, name: _with(obj.get(name) or {}, rest, value) if rest else value}


def _text(selector: Object) -> str:
    return ",".join(f"{name}={value}" for name, value in (selector.get("matchLabels") or {}).items())
