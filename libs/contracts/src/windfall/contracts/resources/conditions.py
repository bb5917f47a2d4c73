"""Conditions, as Kubernetes' API conventions have them."""

from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from windfall.contracts.message import Instant
from windfall.contracts.resources.fields import Said

Truth = Literal["True", "False", "Unknown"]


class Condition(Said):
    """One thing that holds of a resource or does not, since when, and why."""

    type: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=64)
    status: Truth
    reason: str = Field(pattern=r"^[A-Za-z][A-Za-z0-9]*$", max_length=64)
    """For machines: one word."""
    message: str = Field(default="", max_length=4096)
    """For people: the cause, and the cure where there is one."""
    observed_generation: int = 0
    """Of the resource, when this was found."""
    last_transition_time: Instant
    """When ``status`` changed last."""


def condition(conditions: Iterable[Condition], kind: str) -> Condition | None:
    return next((one for one in conditions if one.type == kind), None)


def holds(conditions: Iterable[Condition], kind: str) -> bool:
    """Whether a condition is there and true."""
    found = condition(conditions, kind)
    return found is not None and found.status == "True"
