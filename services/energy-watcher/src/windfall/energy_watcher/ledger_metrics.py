"""The ledger's sums as metrics: the same numbers, cumulative from the ledger's begin."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Final

from opentelemetry.metrics import MeterProvider

from windfall.energy.book import Book
from windfall.servicekit import instruments, metrics
from windfall.servicekit.errors import Mistake

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


@contextmanager
def told_when_broken(site: str) -> Iterator[None]:
    """Say on the way out that a ledger cannot be gone on with: the process will not be there to be asked."""
    try:
        yield
    except Mistake:
        metrics.record(instruments.LEDGER_BROKEN, 1, {"windfall.site": site})
        raise


def _column(book: Callable[[], Book], column: str) -> Iterator[tuple[float, Mapping[str, str]]]:
    kept = book()
    for row in kept.statement.rows:
        yield (
            getattr(row, column),
            {"windfall.site": kept.site, "windfall.state": row.state.value, "windfall.method": row.method},
        )
