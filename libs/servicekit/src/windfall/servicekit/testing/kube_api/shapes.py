"""How the places of an object merge: which lists are maps by a key, which are sets, and what is taken whole.

A custom resource says so in its schema (``x-kubernetes-list-type`` and its kin). For the built-in kinds there is a
table of what their own schemas say; an unlisted list is taken whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

from windfall.servicekit.kube.kinds import Object

ListType = Literal["atomic", "map", "set"]


class Shape(Protocol):
    """Of one place."""

    @property
    def whole(self) -> bool:
        """A map that is taken whole."""

    @property
    def list_type(self) -> ListType: ...

    @property
    def keys(self) -> tuple[str, ...]:
        """Of a list that is a map: the fields that tell its items apart."""

    @property
    def key_defaults(self) -> Mapping[str, Any]:
        """What an item that leaves out a key is meant to have."""

    def child(self, name: str) -> "Shape": ...

    def item(self) -> "Shape": ...


_BY_NAME: Final[Mapping[str, tuple[str, ...]]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "imagePullSecrets": ("name",),
    "secrets": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "conditions": ("type",),
    "hostAliases": ("ip",),
    "podIPs": ("ip",),
    "addresses": ("type",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "ownerReferences": ("uid",),
}
_SETS: Final = frozenset({"finalizers"})
_WHOLE: Final = frozenset(
    {"nodeSelector", "secretKeyRef", "configMapKeyRef", "fieldRef", "resourceFieldRef", "roleRef"}
)
_CONTAINERS: Final = frozenset({"containers", "initContainers", "ephemeralContainers"})


@dataclass(frozen=True)
class BuiltIn:
    """By the name of a field and of the one above it."""

    name: str = ""
    above: str = ""
    inside: bool = False
    """An item of the list ``name``."""

    @property
    def whole(self) -> bool:
        return not self.inside and self.name in _WHOLE

    @property
    def list_type(self) -> ListType:
        return "set" if self.name in _SETS else "map" if self.keys else "atomic"

    @property
    def keys(self) -> tuple[str, ...]:
        if self.name == "ports":
            return ("containerPort" if self.above in _CONTAINERS else "port", "protocol")
        return _BY_NAME.get(self.name, ())

    @property
    def key_defaults(self) -> Mapping[str, Any]:
        return {"protocol": "TCP"} if self.name == "ports" else {}

    def child(self, name: str) -> Shape:
        return BuiltIn(name, self.name)

    def item(self) -> Shape:
        return BuiltIn(self.name, self.above, inside=True)


@dataclass(frozen=True)
class Structural:
    """By a structural schema. What it does not describe is deduced: maps merge, lists are taken whole."""

    schema: Object = field(hash=False)
    root: bool = False

    @property
    def whole(self) -> bool:
        return bool(self.schema.get("x-kubernetes-map-type") == "atomic")

    @property
    def list_type(self) -> ListType:
        said: ListType = self.schema.get("x-kubernetes-list-type", "atomic")
        return said

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self.schema.get("x-kubernetes-list-map-keys", ()))

    @property
    def key_defaults(self) -> Mapping[str, Any]:
        properties = self.schema.get("items", {}).get("properties", {})
        return {key: properties[key]["default"] for key in self.keys if "default" in properties.get(key, {})}

    def child(self, name: str) -> Shape:
        if self.root and name == "metadata":
            return BuiltIn("metadata")
        found = self.schema.get("properties", {}).get(name) or self.schema.get("additionalProperties")
        return Structural(found if isinstance(found, dict) else {})

    def item(self) -> Shape:
        return Structural(self.schema.get("items", {}))
