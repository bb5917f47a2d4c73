"""Choosing by labels, as Kubernetes does."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from windfall.contracts.resources.fields import Entries, Part


class Requirement(Part):
    """One requirement on one label."""

    key: str = Field(min_length=1, max_length=317)
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    values: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.operator in ("In", "NotIn") and not self.values:
            raise ValueError(f"{self.operator} needs values")
        if self.operator in ("Exists", "DoesNotExist") and self.values:
            raise ValueError(f"{self.operator} takes no values")
        return self

    def met_by(self, labels: Mapping[str, str]) -> bool:
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case "DoesNotExist":
                return self.key not in labels


class Selector(Part):
    """All of these must hold; an empty one takes everything."""

    match_labels: Entries = Field(default_factory=dict)
    match_expressions: tuple[Requirement, ...] = ()

    def takes(self, labels: Mapping[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in self.match_labels.items()) and all(
            requirement.met_by(labels) for requirement in self.match_expressions
        )
