"""Whether a definition can be served: its names, its versions, and that its schemas are structural."""

from collections.abc import Iterator
from typing import Any, Final

from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.testing.kube_api.refused import Cause

_FORBIDDEN: Final = (
    *("$ref", "$defs", "definitions", "id", "const", "examples", "if", "then", "prefixItems", "patternProperties"),
    *("dependencies", "deprecated", "discriminator", "readOnly", "writeOnly", "xml"),
)
_JUNCTORS: Final = ("allOf", "anyOf", "oneOf")
_FREE: Final = "x-kubernetes-preserve-unknown-fields"
_EITHER: Final = "x-kubernetes-int-or-string"
_TYPES: Final = frozenset({"object", "array", "string", "integer", "number", "boolean"})


def definition_faults(crd: Object) -> list[Cause]:
    """Why the server refuses it."""
    return list(_faults(crd.get("spec") or {}, crd["metadata"].get("name", "")))


def _faults(spec: Object, name: str) -> Iterator[Cause]:
    names, versions = spec.get("names") or {}, spec.get("versions") or []
    for field in ("plural", "kind"):
        if not names.get(field):
            yield _required(f"spec.names.{field}")
    if not spec.get("group"):
        yield _required("spec.group")
    elif name != f"{names.get('plural')}.{spec['group']}":
        yield _wrong("metadata.name", name, 'must be spec.names.plural+"."+spec.group')
    if spec.get("scope") not in ("Namespaced", "Cluster"):
        yield Cause("FieldValueRequired", 'Required value: must be "Cluster" or "Namespaced"', "spec.scope")
    if sum(bool(version.get("storage")) for version in versions) != 1:
        yield _wrong("spec.versions", "", "must have exactly one version marked as storage version")
    for index, version in enumerate(versions):
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        field = f"spec.versions[{index}].schema.openAPIV3Schema"
        if not isinstance(schema, dict):
            yield _required(field)
            continue
        if schema.get("type") != "object":
            yield _wrong(f"{field}.type", schema.get("type", ""), "must be object at the root")
        yield from _structural(schema, field)


def _structural(schema: Object, field: str, *, root: bool = True) -> Iterator[Cause]:
    kind = schema.get("type")
    if kind is None and not schema.get(_EITHER) and not schema.get(_FREE):
        yield Cause(
            "FieldValueRequired", "Required value: must not be empty for specified object fields", f"{field}.type"
        )
    elif kind is not None and (not isinstance(kind, str) or kind not in _TYPES):
        yield _wrong(f"{field}.type", kind, f"must be one of {', '.join(sorted(_TYPES))}")
    for name in _FORBIDDEN:
        if name in schema:
            yield _not_allowed(f"{field}.{name}")
    if schema.get("uniqueItems"):
        yield _not_allowed(f"{field}.uniqueItems")
    more = schema.get("additionalProperties")
    if more is not None and schema.get("properties"):
        yield _not_allowed(f"{field}.additionalProperties")
    if more is False:
        yield _not_allowed(f"{field}.additionalProperties")
    if kind == "array" and not isinstance(schema.get("items"), dict):
        yield _required(f"{field}.items")
    for name in ("exclusiveMinimum", "exclusiveMaximum"):
        if name in schema and not isinstance(schema[name], bool):
            yield _wrong(f"{field}.{name}", schema[name], "must be a boolean")
    yield from _list_faults(schema, field)
    for name, inner in (schema.get("properties") or {}).items():
        if not (root and name == "metadata"):
            yield from _structural(inner, f"{field}.properties[{name}]", root=False)
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from _structural(schema[name], f"{field}.{name}", root=False)
    for name in _JUNCTORS:
        for index, inner in enumerate(schema.get(name) or ()):
            yield from _value_only(inner, f"{field}.{name}[{index}]", bool(schema.get(_EITHER)))
    if "not" in schema:
        yield from _value_only(schema["not"], f"{field}.not", either=False)


def _list_faults(schema: Object, field: str) -> Iterator[Cause]:
    if schema.get("x-kubernetes-list-type") == "map":
        keys = schema.get("x-kubernetes-list-map-keys")
        if not keys:
            yield _required(f"{field}.x-kubernetes-list-map-keys")
        items = schema.get("items") or {}
        for key in keys or ():
            if key not in items.get("properties", {}):
                yield _wrong(f"{field}.x-kubernetes-list-map-keys", key, "entries must all be names of item properties")
            elif key not in items.get("required", ()) and "default" not in items["properties"][key]:
                text = "this property is a key of a list map, so it must have a default or be a required property"
                yield Cause("FieldValueRequired", f"Required value: {text}", f"{field}.items.properties[{key}].default")


def _value_only(schema: Object, field: str, either: bool) -> Iterator[Cause]:
    """Below a junctor a schema may restrict values, and not describe structure."""
    for name in ("type", "default", "additionalProperties", "nullable", "description", "title"):
        if name in schema and not (either and name == "type"):
            yield Cause("FieldValueForbidden", "Forbidden: must be empty to be structural", f"{field}.{name}")
    for name, inner in (schema.get("properties") or {}).items():
        yield from _value_only(inner, f"{field}.properties[{name}]", either=False)


def _required(field: str) -> Cause:
    return Cause("FieldValueRequired", "Required value", field)


def _wrong(field: str, value: Any, why: str) -> Cause:
    return Cause("FieldValueInvalid", f'Invalid value: "{value}": {why}', field)


def _not_allowed(field: str) -> Cause:
    return Cause("FieldValueForbidden", "Forbidden: must not be set", field)
