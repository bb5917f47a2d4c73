"""Rows for people and for machines."""

import sys
from collections.abc import Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Final, Literal

from windfall.cli.resources.resource import Resource, Row, record
from windfall.cli.resources.versioned import several, single

Form = Literal["table", "wide", "json", "yaml", "jsonl"]
NOTHING: Final = "–"
_GAP: Final = "   "


def shown(of: Resource, rows: Sequence[Row], form: Form, alone: bool = False) -> str:
    """All rows as text.

    Args:
        alone: one was asked for by its name: machines get it, and not a list of it.
    """
    match form:
        case "json" | "yaml" | "jsonl":
            if alone and rows:
                return single(of.kind, record(rows[0]), form)
            return several(of.kind, [record(row) for row in rows], form)
        case _:
            columns = of.columns + (of.wide if form == "wide" else ())
            return table(columns, rows) if rows else of.empty[:1].upper() + of.empty[1:] + "."


def line(of: Resource, row: Row) -> str:
    """One row as one line of JSON, for ``jsonl`` and whoever watches."""
    return single(of.kind, record(row), "jsonl")


def table(columns: Sequence[tuple[str, str]], rows: Sequence[Row]) -> str:
    """Columns as wide as their longest cell: what is cut cannot be copied. Numbers stand on the right."""
    head = [header.upper() for header, _ in columns]
    cells = [[cell(field, getattr(row, field)) for _, field in columns] for row in rows]
    number = [_numbers([getattr(row, field) for row in rows]) for _, field in columns]
    width = [max(len(line[place]) for line in (head, *cells)) for place in range(len(columns))]
    lines = []
    for one in (head, *cells):
        placed = [
            text.rjust(width[place]) if number[place] else text.ljust(width[place]) for place, text in enumerate(one)
        ]
        lines.append(_GAP.join(placed).rstrip())
    return "\n".join(lines)


def described(of: Resource, row: Row) -> str:
    """One row, a field a line."""
    told = [(one.name.replace("_", " "), cell(one.name, getattr(row, one.name))) for one in fields(row)]
    width = max(len(name) for name, _ in told) + 2
    return "\n".join(f"{name + ':':<{width}}{text}" for name, text in told if text != NOTHING)


def cell(field: str, value: object) -> str:
    """One value as people read it: instants in UTC, bytes and seconds with their unit."""
    if value is None or value == "" or value == ():
        return NOTHING
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, float):
        seconds = field.endswith("_s") and not field.endswith("_per_s")
        return f"{value:.1f} s" if seconds else f"{value:.4g}"
    if isinstance(value, int) and field.startswith("bytes"):
        return _bytes(value)
    return f"{value:,}" if isinstance(value, int) and value >= 10_000 else str(value)


def plain() -> bool:
    """Whether whoever reads is no terminal: lines then, and nothing that moves."""
    return not sys.stdout.isatty()


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} GiB"


def _numbers(values: Sequence[object]) -> bool:
    there = [value for value in values if value is not None]
    return bool(there) and all(isinstance(value, int | float) for value in there)
