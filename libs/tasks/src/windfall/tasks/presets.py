"""Settings of a task from a preset and what differs from it; a mistake is one line."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

Settings = TypeVar("Settings", bound=BaseModel)


def from_preset(
    kind: type[Settings], presets: Mapping[str, Mapping[str, object]], default: str, given: Mapping[str, object]
) -> Settings:
    """``given`` over the preset that it names under ``preset``, or over the default one.

    Raises:
        ValueError: unknown preset, unknown setting, or a value out of range.
    """
    own = dict(given)
    preset = own.pop("preset", default)
    if not isinstance(preset, str) or preset not in presets:
        raise ValueError(f"unknown preset {preset!r}; known are {', '.join(presets)}")
    try:
        return kind.model_validate({**presets[preset], **own})
    except ValidationError as error:
        raise ValueError(mistakes(error, ("preset", *kind.model_fields))) from error


def mistakes(error: ValidationError, known: tuple[str, ...]) -> str:
    """All that pydantic found, in one line."""
    return "; ".join(_line(one["loc"], one["msg"], known) for one in error.errors())


def _line(where: tuple[int | str, ...], problem: str, known: tuple[str, ...]) -> str:
    place = ".".join(str(part) for part in where)
    if problem == "Extra inputs are not permitted":
        problem = f"unknown setting; known are {', '.join(known)}"
    problem = problem.removeprefix("Value error, ")
    return f"{place}: {problem}" if place else problem
