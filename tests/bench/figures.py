"""How every benchmark says what it measured: a table for people, JSON for machines."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

RESULTS = Path("bench-results")


@dataclass(frozen=True)
class Figure:
    """One measured number beside its goal and its peers."""

    figure: str
    value: float
    unit: str
    goal: str
    beside: dict[str, float | str] = field(default_factory=dict)
    conditions: str = ""


def report(name: str, figures: Sequence[Figure]) -> None:
    """Print the table and write ``bench-results/<name>.json``."""
    table = Table(title=f"bench {name}", title_justify="left")
    for column in ("figure", "value", "unit", "goal", "beside", "conditions"):
        table.add_column(column, overflow="fold", justify="right" if column == "value" else "left")
    for one in figures:
        beside = ", ".join(f"{what}: {_short(value)}" for what, value in one.beside.items())
        table.add_row(one.figure, _short(one.value), one.unit, one.goal, beside, one.conditions)
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 160).print(table)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps([asdict(one) for one in figures], indent=2) + "\n")
    print(f"written to {path}")


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all values does not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, -(-int(len(ordered) * share * 1000) // 1000) - 1)] if ordered else float("nan")


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
