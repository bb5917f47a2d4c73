"""From a pydantic model to a structural schema, as a CustomResourceDefinition wants it.

Structural schemas are OpenAPI 3.0 with less: no references, no ``null``, no ``additionalProperties`` beside
``properties``, an exclusive bound is a flag beside the bound, and no default that Go before 1.20 of Kubernetes cannot
read (an empty string).
"""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel

Schema = dict[str, Any]

_KEPT: Final = (
    "type",
    "description",
    "format",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "enum",
    "required",
)


def structural(model: type[BaseModel]) -> Schema:
    """The schema of a whole resource: of its metadata it says no more than what its name must be.

    Raises:
        ValueError: a field cannot be said in a structural schema.
    """
    schema = model.model_json_schema(by_alias=True, mode="validation")
    top = _converted(schema, schema.get("$defs", {}), model.__name__)
    name = top["properties"]["metadata"]["properties"]["name"]
    top["properties"] |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": {"type": "object", "properties": {"name": name}},
    }
    return top


def _converted(given: Mapping[str, Any], definitions: Mapping[str, Any], where: str) -> Schema:
    if reference := given.get("$ref"):
        target = definitions[reference.rsplit("/", 1)[1]]
        # What is said of the field counts before what is said of its type.
        return _converted(
            {**target, **{key: value for key, value in given.items() if key != "$ref"}}, definitions, where
        )
    for union in ("anyOf", "allOf", "oneOf"):
        if union in given:
            members = [member for member in given[union] if member.get("type") != "null"]
            if len(members) != 1:
                raise ValueError(f"{where}: a structural schema has no union; say its schema")
            rest = {key: value for key, value in given.items() if key != union}
            return _converted({**members[0], **rest}, definitions, where)
    schema: Schema = {key: given[key] for key in _KEPT if key in given}
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    if "const" in given:
        schema["enum"] = [given["const"]]
    for edge in ("Minimum", "Maximum"):
        if f"exclusive{edge}" in given:
            schema |= {edge.lower(): given[f"exclusive{edge}"], f"exclusive{edge}": True}
    schema |= {key: value for key, value in given.items() if key.startswith("x-kubernetes-")}
    if _plain(given.get("default")):
        schema["default"] = given["default"]
    if "properties" in given:
        schema["properties"] = {
            name: _converted(field, definitions, f"{where}.{name}") for name, field in given["properties"].items()
        }
    elif isinstance(of := _values(given), dict):
        schema["additionalProperties"] = _converted(of, definitions, f"{where}.*")
    if "items" in given:
        schema["items"] = _converted(given["items"], definitions, f"{where}[]")
    return schema


def _values(given: Mapping[str, Any]) -> object:
    by_pattern = given.get("patternProperties")
    return next(iter(by_pattern.values())) if by_pattern else given.get("additionalProperties")


def _plain(default: object) -> bool:
    return isinstance(default, bool | int | float) or (isinstance(default, str) and bool(default))
