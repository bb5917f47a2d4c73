"""What the fields of the custom resources are made of."""

from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, StringConstraints, TypeAdapter, WithJsonSchema
from pydantic.alias_generators import to_camel

from windfall.contracts.message import Name

GROUP: Final = "windfall.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"

_DURATION: Final = r"^P(\d+D)?(T(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?$"
_ISO: Final = TypeAdapter(timedelta)

Duration = Annotated[
    timedelta,
    PlainSerializer(lambda value: iso(value), return_type=str),
    # Kubernetes' own format of this name is Go's, which is not what the settings take.
    WithJsonSchema({"type": "string", "pattern": _DURATION}),
]
"""ISO 8601 like ``PT10M``, as in the settings."""

Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", max_length=63)]
"""A DNS label (RFC 1123): what may be a part of an object's name."""

Quantity = Annotated[int | str, WithJsonSchema({"x-kubernetes-int-or-string": True})]
"""Of a resource: ``2``, ``500m``, ``16Gi``."""

Open = Annotated[dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})]
"""An object of Kubernetes' own, or of a service's settings: whoever takes it checks it."""

Entries = Annotated[dict[str, str], Field(max_length=256)]
"""Strings by name."""


def iso(value: timedelta) -> str:
    return str(_ISO.dump_python(value, mode="json"))


def list_map(key: str) -> dict[str, Any]:
    """A list whose items are told apart by a field: who applies it owns its own items."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


class Part(BaseModel):
    """A part of what a person writes. A field that is not known is refused: it would mean nothing."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Said(BaseModel):
    """A part of what is said of a resource in its status. Readers tolerate fields that they do not know."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        alias_generator=to_camel,
        populate_by_name=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Metadata(BaseModel):
    """Of an object's metadata, what is read here; the API server checks the rest."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True
    )

    name: Name
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    labels: dict[str, str] = Field(default_factory=dict)
    finalizers: tuple[str, ...] = ()
    deletion_timestamp: str | None = None

    @property
    def going(self) -> bool:
        """Its deletion has been asked for."""
        return self.deletion_timestamp is not None
