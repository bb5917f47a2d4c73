"""What a custom resource's schema does to its objects: unknown fields are pruned, defaults filled in, the rest checked.

CEL rules (``x-kubernetes-validations``) are not evaluated.
"""

import copy
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final, cast

from jsonschema import Draft4Validator, FormatChecker
from jsonschema.exceptions import ValidationError

from windfall.servicekit.kube.kinds import Object
from windfall.servicekit.testing.kube_api.field_sets import element
from windfall.servicekit.testing.kube_api.refused import Cause
from windfall.servicekit.testing.kube_api.shapes import Structural

_PRESERVED: Final = "x-kubernetes-preserve-unknown-fields"
_FORMATS: Final = FormatChecker(formats=())


@_FORMATS.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


@_FORMATS.checks("int32")
def _is_int32(value: object) -> bool:
    return not isinstance(value, int) or -(2**31) <= value < 2**31


class Schema:
    """One version's ``openAPIV3Schema``."""

    def __init__(self, text: Object) -> None:
        self.text = text
        self._validator = Draft4Validator(_plain(text), format_checker=_FORMATS)

    def taken(self, obj: Object) -> Object:
        """As the server keeps it: pruned, and with defaults."""
        inner = {name: value for name, value in obj.items() if name not in _OWN}
        kept = _pruned(inner, self.text) if not self.text.get(_PRESERVED) else inner
        own: Object = {name: obj[name] for name in _OWN if name in obj}
        own.update(_defaulted(kept, self.text))
        return own

    def violations(self, obj: Object) -> list[Cause]:
        """Everything that is wrong with it; at most one thing about a place."""
        inner = {name: value for name, value in obj.items() if name not in _OWN}
        errors = self._validator.iter_errors(inner)
        found = [cause for error in errors for cause in _causes(error) if cause.field not in _OWN]
        return found or list(_duplicates(inner, Structural(self.text), ""))


_OWN: Final = ("apiVersion", "kind", "metadata")
"""What every object has, whatever its schema says of it."""


def _pruned(value: Any, schema: Object) -> Any:
    if isinstance(value, dict):
        if schema.get("x-kubernetes-embedded-resource"):
            own = {name: value[name] for name in _OWN if name in value}
            return own | _pruned_map({k: v for k, v in value.items() if k not in _OWN}, schema)
        return _pruned_map(value, schema)
    if isinstance(value, list):
        items = schema.get("items")
        return [_pruned(item, items) for item in value] if items else value
    return value


def _pruned_map(value: Object, schema: Object) -> Object:
    properties, more = schema.get("properties", {}), schema.get("additionalProperties")
    kept = {}
    for name, inner in value.items():
        if name in properties:
            kept[name] = _pruned(inner, properties[name])
        elif more:
            kept[name] = _pruned(inner, more) if isinstance(more, dict) else inner
        elif schema.get(_PRESERVED):
            kept[name] = inner
    return kept


def _defaulted(value: Any, schema: Object) -> Any:
    if isinstance(value, dict):
        properties, more = schema.get("properties", {}), schema.get("additionalProperties")
        filled = dict(value)
        for name, inner in properties.items():
            missing = name not in filled or (filled[name] is None and not inner.get("nullable"))
            if missing and "default" in inner:
                filled[name] = copy.deepcopy(inner["default"])
        return {
            name: _defaulted(inner, properties.get(name) or (more if isinstance(more, dict) else {}))
            for name, inner in filled.items()
        }
    if isinstance(value, list) and "items" in schema:
        return [_defaulted(item, schema["items"]) for item in value]
    return value


def _plain(schema: Any) -> Any:
    """As a JSON schema of draft 4, which OpenAPI 3.0 builds on."""
    if isinstance(schema, list):
        return [_plain(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    plain: Object = {}
    for name, value in schema.items():
        if name in ("properties",):
            plain[name] = {field: _plain(inner) for field, inner in value.items()}
        elif name in ("items", "additionalProperties", "allOf", "anyOf", "oneOf", "not"):
            plain[name] = _plain(value)
        elif not name.startswith("x-") and name not in ("default", "example", "description", "nullable"):
            plain[name] = value
    if schema.get("x-kubernetes-int-or-string"):
        plain["type"] = ["integer", "string"]
    if schema.get("nullable"):
        kinds = plain.get("type")
        if kinds is not None:
            plain["type"] = [*kinds, "null"] if isinstance(kinds, list) else [kinds, "null"]
        if "enum" in plain:
            plain["enum"] = [*plain["enum"], None]
    return plain


_KINDS: Final = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}


def _causes(error: ValidationError) -> Iterator[Cause]:
    field = _field(list(error.absolute_path))
    value, rule = cast(Any, error.instance), cast(Any, error.validator_value)
    match error.validator:
        case "required":
            for name in rule:
                if name not in value:
                    yield Cause("FieldValueRequired", "Required value", f"{field}.{name}" if field else name)
        case "type":
            kind = _KINDS.get(type(value), "null")
            wanted = rule if isinstance(rule, str) else ",".join(rule)
            text = f'Invalid value: "{kind}": {field} in body must be of type {wanted}: "{kind}"'
            yield Cause("FieldValueInvalid", text, field)
        case "enum":
            supported = ", ".join(f'"{item}"' for item in rule if item is not None)
            text = f'Unsupported value: "{value}": supported values: {supported}'
            yield Cause("FieldValueNotSupported", text, field)
        case _:
            shown = f'"{value}"' if isinstance(value, str) else value
            yield Cause("FieldValueInvalid", f"Invalid value: {shown}: {field} in body {_rule(error)}", field)


def _rule(error: ValidationError) -> str:
    limit = error.validator_value
    rules = {
        "minimum": f"should be greater than or equal to {limit}",
        "maximum": f"should be less than or equal to {limit}",
        "maxLength": f"should be at most {limit} chars long",
        "minLength": f"should be at least {limit} chars long",
        "pattern": f"should match '{limit}'",
        "format": f"must be of type {limit}",
        "maxItems": f"should have at most {limit} items",
        "minItems": f"should have at least {limit} items",
    }
    return rules.get(str(error.validator), str(error.message))


def _field(path: list[str | int]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


def _duplicates(value: Any, shape: Structural, field: str) -> Iterator[Cause]:
    """Of lists that may hold nothing twice."""
    if isinstance(value, dict):
        for name, inner in value.items():
            below = shape.child(name)
            assert isinstance(below, Structural)
            yield from _duplicates(inner, below, f"{field}.{name}".lstrip("."))
    elif isinstance(value, list):
        seen = set()
        for index, item in enumerate(value):
            if shape.list_type != "atomic":
                place = element(item, shape)
                if place in seen:
                    yield Cause("FieldValueDuplicate", f"Duplicate value: {place[2:]}", f"{field}[{index}]")
                seen.add(place)
            below = shape.item()
            assert isinstance(below, Structural)
            yield from _duplicates(item, below, f"{field}[{index}]")
