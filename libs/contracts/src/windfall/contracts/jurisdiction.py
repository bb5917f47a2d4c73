"""Under whose law a place lies: a label that operators agree on, and what lies within what."""

from collections.abc import Iterable
from typing import Annotated, Final

from pydantic import StringConstraints, TypeAdapter

Jurisdiction = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}(?:-[A-Z0-9]{1,8}){0,3}$")]
"""ISO 3166: a country (``CA``) or a part of one (``CA-QC``), and what operators add to it (``EU``, ``CA-QC-MTL``)."""

_LABEL: Final[TypeAdapter[str]] = TypeAdapter(Jurisdiction)


def within(label: str, allowed: Iterable[str]) -> bool:
    """Whether a place lies under one of these laws: ``CA-QC`` lies within ``CA``, and not the other way round."""
    return is_jurisdiction(label) and any(label == law or label.startswith(f"{law}-") for law in allowed)


def is_jurisdiction(label: str) -> bool:
    """Whether this is a label at all."""
    try:
        _LABEL.validate_python(label)
    except ValueError:
        return False
    return True
