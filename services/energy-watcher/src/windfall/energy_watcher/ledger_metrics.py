"""The ledger's sums as metrics: the same numbers, cumulative from the ledger's begin."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final

from opentelemetry.metrics import MeterProvider

from windfall.energy.book import Book
from windfall.servicekit import metrics

_METRICS: Final = (
    ("windfall.energy", "kW.h", "Energy that the site's node has drawn.", "energy_kwh"),
    ("windfall.energy.clean", "kW.h", "The part of it drawn below the open threshold.", "clean_energy_kwh"),
    ("windfall.emissions", "kg", "CO2 equivalent of that energy.", "emissions_kg"),
    ("windfall.always_on.energy", "kW.h", "What training all the time would have drawn.", "always_on_kwh"),
    ("windfall.always_on.emissions", "kg", "CO2 equivalent of training all the time.", "always_on_kg"),
)
"""Name, UCUM unit, description, and the column of the ledger's statement."""


def measure(book: Callable[[], Book], source: MeterProvider | None = None) -> None:
    """Show what stands in the book whenever metrics are collected."""
    for name, unit, what, column in _METRICS:
        metrics.sums(name, unit, what, partial(_column, book, column), source)


def _column(book: Callable[[], Book], column: str) -> Iterator[tuple[float, Mapping[str, str]]]:
    kept = book()
    for row in kept.statement.rows:
        yield (
            getattr(row, column),
            {"windfall.site": kept.site, "windfall.state": row.state.value, "windfall.method": row.method},
        )
