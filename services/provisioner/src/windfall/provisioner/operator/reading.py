"""From an API server's JSON to a resource, or to what is wrong with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pydantic import BaseModel, ValidationError

from windfall.servicekit.kube import Object

R = TypeVar("R", bound=BaseModel)


@dataclass(frozen=True)
class Read(Generic[R]):
    """A resource, or the faults for which it is none."""

    resource: R | None
    faults: Sequence[str] = ()


def read(kind: type[R], found: Object) -> Read[R]:
    """Raises nothing: whatever a person wrote, what comes of it is a line for the condition."""
    given = (
        found if found.get("status") is not None else {key: value for key, value in found.items() if key != "status"}
    )
    try:
        return Read(kind.model_validate(given))
    except ValidationError as error:
        return Read(
            None, [_line(fault["loc"], fault["msg"]) for fault in error.errors(include_url=False, include_input=False)]
        )


def _line(where: tuple[int | str, ...], message: str) -> str:
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where).removeprefix(".")
    said = message.removeprefix("Value error, ")
    return f"{place}: {said}" if place else said
