"""The ledger's sums as metrics: the same numbers, cumulative from the ledger's begin."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final

from opentelemetry.metrics import MeterProvider

from windfall.energy.book import Book
from windfall.servicekit import instruments, metrics

_COLUMNS: Final = (
    (instruments.ENERGY, "energy_kwh"),
    (instruments.ENERGY_CLEAN, "clean_energy_kwh"),
    (instruments.EMISSIONS, "emissions_kg"),
    (instruments.ALWAYS_ON_ENERGY, "always_on_kwh"),
    (instruments.ALWAYS_ON_EMISSIONS, "always_on_kg"),
)
"""Each with its column of the ledger's statement."""


def measure(book: Callable[[], Book], source: MeterProvider | None = None) -> None:
    """Show what stands in the book whenever metrics are collected."""
    for instrument, column in _COLUMNS:
        metrics.observe(instrument, partial(_column, book, column), source)


def _column(book: Callable[[], Book], column: str) -> Iterator[tuple[float, Mapping[str, str]]]:
    kept = book()
    for row in kept.statement.rows:
        yield (
            getattr(row, column),
            {"windfall.site": kept.site, "windfall.state": row.state.value, "windfall.method": row.method},
        )
