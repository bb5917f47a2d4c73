"""What a person says of a backend: models in YAML's camel case, in which a field that is not known is a mistake."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

LABEL: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""RFC 1035: what the name of a cluster may be, because DNS names and labels are made of it."""
SUBDOMAIN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_VERSION: Final = re.compile(r"^v\d+\.\d+\.\d+[+-]k0s\.\d+$")


def _k0s(version: str) -> str:
    if not _VERSION.match(version):
        raise ValueError(f"{version!r} is not a version of k0s like v1.33.4+k0s.0")
    return version.replace("-k0s", "+k0s")


ClusterName = Annotated[str, Field(pattern=LABEL, max_length=50)]
"""Leaves room for what controllers append to it in 63 characters."""
ObjectName = Annotated[str, Field(pattern=SUBDOMAIN, max_length=253)]
K0sVersion = Annotated[str, AfterValidator(_k0s)]


class Parameters(BaseModel):
    """A part of a backend's parameters."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, use_attribute_docstrings=True
    )
