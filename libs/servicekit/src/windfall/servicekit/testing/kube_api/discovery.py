"""What the server says that it serves."""

from collections.abc import Iterable
from typing import Final

from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.testing.kube_api.resources import Catalogue, Resource

VERSION: Final[Object] = {
    "major": "1",
    "minor": "31",
    "gitVersion": "v1.31.0-windfall-double",
    "gitCommit": "",
    "gitTreeState": "clean",
    "platform": "linux/amd64",
}
_SUBRESOURCE_VERBS: Final = {"eviction": ["create"], "binding": ["create"], "token": ["create"]}
_SUBRESOURCE_KINDS: Final = {
    "scale": ("autoscaling", "v1", "Scale"),
    "eviction": ("policy", "v1", "Eviction"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
    "binding": ("", "v1", "Binding"),
}


def core_versions() -> Object:
    return {"kind": "APIVersions", "apiVersion": "v1", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def groups(catalogue: Catalogue) -> Object:
    names = dict.fromkeys(resource.kind.group for resource in catalogue if resource.kind.group)
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [group(catalogue, name) or {} for name in names]}


def group(catalogue: Catalogue, name: str) -> Object | None:
    versions = list(dict.fromkeys(item.kind.version for item in catalogue if item.kind.group == name))
    if not versions:
        return None
    served = [{"groupVersion": f"{name}/{version}", "version": version} for version in sorted(versions, key=_age)]
    return {"kind": "APIGroup", "apiVersion": "v1", "name": name, "versions": served, "preferredVersion": served[0]}


def resources(catalogue: Catalogue, group: str, version: str) -> Object | None:
    found = [item for item in catalogue if (item.kind.group, item.kind.version) == (group, version)]
    if not found:
        return None
    listed = [entry for item in found for entry in _entries(item)]
    name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": listed}


def _entries(resource: Resource) -> Iterable[Object]:
    kind = resource.kind
    entry: Object = {
        "name": kind.plural,
        "singularName": resource.singular or kind.kind.lower(),
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(resource.verbs),
    }
    yield entry | ({"shortNames": list(resource.short_names)} if resource.short_names else {})
    for name in sorted(resource.subresources):
        group, version, what = _SUBRESOURCE_KINDS.get(name, (kind.group, kind.version, kind.kind))
        yield {
            "name": f"{kind.plural}/{name}",
            "singularName": "",
            "namespaced": kind.namespaced,
            "group": group,
            "version": version,
            "kind": what,
            "verbs": _SUBRESOURCE_VERBS.get(name, ["get", "patch", "update"]),
        }


def _age(version: str) -> tuple[int, str]:
    """Stable versions first, the newest of them first of all."""
    order = 2 if "alpha" in version else 1 if "beta" in version else 0
    return order, "".join(chr(0x10FFFF - ord(letter)) for letter in version)


def openapi() -> bytes:
    """An empty document in the one form that kubectl reads, protobuf: what it does not find there it does not check.

    The fields are ``swagger`` (1) and ``info`` (2) with ``title`` (1) and ``version`` (2): gnostic's OpenAPIv2.proto.
    """
    info = _text(1, b"Kubernetes") + _text(2, b"v1.31.0")
    return _text(1, b"2.0") + _text(2, info)


def _text(field: int, value: bytes) -> bytes:
    return bytes((field << 3 | 2, len(value))) + value
