"""Parts of pods that a person may write. Kubernetes checks what is left open here."""

from typing import Annotated

from pydantic import ConfigDict, Field

from windfall.contracts.resources.fields import Entries, Open, Part, Quantity, list_map


class Variable(Part):
    """An environment variable of a container."""

    name: str = Field(pattern=r"^[A-Za-z_.-][A-Za-z0-9_.-]*$")
    value: str | None = None
    value_from: Open | None = None
    """Where the value is: a Secret's key, for whatever is one."""


class Volume(Part):
    """A volume of a pod: its name and its one source."""

    model_config = ConfigDict(
        **{**Part.model_config, "extra": "allow"},
        json_schema_extra={"x-kubernetes-preserve-unknown-fields": True},
    )

    name: str = Field(min_length=1, max_length=63)


class Mount(Part):
    """Where a container sees a volume."""

    name: str = Field(min_length=1, max_length=63)
    mount_path: str = Field(min_length=1)
    sub_path: str | None = None
    sub_path_expr: str | None = None
    read_only: bool | None = None
    mount_propagation: str | None = None


class Resources(Part):
    """What a container asks for, and what it may take."""

    requests: dict[str, Quantity] = Field(default_factory=dict)
    limits: dict[str, Quantity] = Field(default_factory=dict)


class ClaimMetadata(Part):
    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", max_length=63)
    labels: Entries = Field(default_factory=dict)
    annotations: Entries = Field(default_factory=dict)


class ClaimTemplate(Part):
    """A volume that every pod of a StatefulSet gets for itself."""

    metadata: ClaimMetadata
    spec: Open


Env = Annotated[tuple[Variable, ...], Field(max_length=256, json_schema_extra=list_map("name"))]
Volumes = Annotated[tuple[Volume, ...], Field(max_length=64, json_schema_extra=list_map("name"))]
Mounts = Annotated[tuple[Mount, ...], Field(max_length=64)]
Claims = Annotated[tuple[ClaimTemplate, ...], Field(max_length=16)]
