"""Lists: selectors, pages, and the version at which they hold."""

import base64
import json
from collections.abc import Callable, Mapping

from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.testing.kube_api.refused import bad_request
from windfall.servicekit.testing.kube_api.resources import Resource
from windfall.servicekit.testing.kube_api.selectors import Matches, by_fields, by_labels
from windfall.servicekit.testing.kube_api.store import Store
from windfall.servicekit.testing.kube_api.targets import Target


def selection(target: Target, query: Mapping[str, str]) -> Matches:
    """
    Raises:
        Refused: a selector is none, or names a field that this kind cannot be selected by.
    """
    labels = by_labels(query.get("labelSelector", ""))
    fields = by_fields(query.get("fieldSelector", ""), target.resource.kind, custom=target.resource.custom)
    return lambda obj: labels(obj) and fields(obj)


def listed(store: Store, target: Target, query: Mapping[str, str]) -> Object:
    """One page. All pages of a list show the same version.

    Raises:
        Refused: that version is forgotten (410), or what is asked cannot be.
    """
    kind = target.resource.kind
    matches = selection(target, query)
    limit = int(query.get("limit") or 0)
    version, after = _place(query.get("continue", ""), store.version)
    objects = store.all_at(version, kind.group, kind.plural, target.namespace)
    rest = [obj for obj in objects if _name(obj) > after and matches(obj)]
    page = rest[:limit] if limit else rest
    metadata: Object = {"resourceVersion": str(version)}
    if len(page) < len(rest):
        metadata["continue"] = base64.urlsafe_b64encode(json.dumps([version, _name(page[-1])]).encode()).decode()
        if not query.get("labelSelector") and not query.get("fieldSelector"):
            metadata["remainingItemCount"] = len(rest) - len(page)
    show = shown(target.resource)
    items = [show(obj) for obj in page]
    return {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": metadata, "items": items}


def _name(obj: Object) -> list[str]:
    return [obj["metadata"].get("namespace", ""), obj["metadata"]["name"]]


def _place(token: str, version: int) -> tuple[int, list[str]]:
    if not token:
        return version, []
    try:
        at, after = json.loads(base64.urlsafe_b64decode(token))
    except ValueError as error:
        raise bad_request(f"invalid continue token: {error}") from error
    return int(at), list(after)


def shown(resource: Resource) -> Callable[[Object], Object]:
    """An object as this version of its kind shows it. A scale is of another kind, and stays as it is."""
    kind, version = resource.kind.kind, resource.kind.api_version
    return lambda obj: obj if obj["kind"] != kind or obj["apiVersion"] == version else obj | {"apiVersion": version}
