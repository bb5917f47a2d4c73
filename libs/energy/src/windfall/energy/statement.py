"""A ledger's sums: by state and method, and all together, beside the same hours always on."""

from collections.abc import Iterable
from typing import Self

from pydantic import BaseModel, ConfigDict

from windfall.energy.chain import Entry, Method
from windfall.energy.power import SiteState


class Figures(BaseModel):
    """What was drawn, what it emitted, and what training all the time would have."""

    model_config = ConfigDict(frozen=True)

    energy_kwh: float = 0.0
    emissions_kg: float = 0.0
    clean_energy_kwh: float = 0.0
    always_on_kwh: float = 0.0
    always_on_kg: float = 0.0

    @property
    def clean_energy_share(self) -> float | None:
        """From 0 to 1; none when nothing was drawn."""
        return self.clean_energy_kwh / self.energy_kwh if self.energy_kwh else None

    @property
    def saved_share(self) -> float | None:
        """The part of the counterfactual's emissions that was not emitted; none when it has none."""
        return 1.0 - self.emissions_kg / self.always_on_kg if self.always_on_kg else None

    def plus(self, other: "Figures | Entry") -> Self:
        """Both together."""
        return self.model_copy(
            update={name: getattr(self, name) + getattr(other, name) for name in Figures.model_fields}
        )


class Row(Figures):
    """The sums of one state by one method."""

    state: SiteState
    method: Method


class Statement(BaseModel):
    """A row for each state and method that has an entry, in the order of first appearance."""

    model_config = ConfigDict(frozen=True)

    rows: tuple[Row, ...] = ()

    @property
    def total(self) -> Figures:
        return together(self.rows)

    def plus(self, entry: Entry) -> "Statement":
        """With one more entry."""
        at = next((row for row in self.rows if (row.state, row.method) == (entry.state, entry.method)), None)
        if at is None:
            return Statement(rows=(*self.rows, Row(state=entry.state, method=entry.method).plus(entry)))
        return Statement(rows=tuple(row.plus(entry) if row is at else row for row in self.rows))


def together(several: Iterable[Figures]) -> Figures:
    """Their sum."""
    total = Figures()
    for figures in several:
        total = total.plus(figures)
    return total


def statement(entries: Iterable[Entry]) -> Statement:
    """The sums of a ledger."""
    found = Statement()
    for entry in entries:
        found = found.plus(entry)
    return found
