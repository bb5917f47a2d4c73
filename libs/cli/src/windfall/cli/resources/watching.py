"""``windfall watch`` and ``windfall wait``."""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import fields
from datetime import timedelta

from windfall.cli.nearest import near
from windfall.cli.resources.reading import awaited, changes, rows
from windfall.cli.resources.registry import chosen
from windfall.cli.resources.resource import Resource, Row
from windfall.cli.resources.showing import cell, line
from windfall.servicekit.errors import Mistake


async def follow(url: str, of: Resource, names: tuple[str, ...], machine: bool, show: Callable[[str], None]) -> None:
    """Show rows as they stand and as they change, for ever.

    Raises:
        Mistake: the server cannot be used, or there is none of a name; the nearest is named.
    """
    meant = {row.name for row in chosen(of, await rows(url, of, names), names)} if names else set()
    async with aclosing(changes(url, of)) as stream:
        async for row in stream:
            if not names or row.name in meant:
                show(line(of, row) if machine else in_words(of, row))


def in_words(of: Resource, row: Row) -> str:
    """One line: its name, and what is known of each column."""
    told = [
        f"{field}={cell(field, value)}" for _, field in of.columns[1:] if (value := getattr(row, field)) is not None
    ]
    return " ".join([row.name, *(one for one in told if not one.endswith("=–"))])


async def until(url: str, of: Resource, name: str, wish: str, seconds: float) -> str:
    """What is to be said when a field has its value.

    Args:
        wish: ``field=value``.

    Raises:
        Mistake: rows have no such field, it does not come in time, or the server cannot be used.
    """
    field, sign, value = wish.partition("=")
    known = [one.name for one in fields(of.row)]
    if not sign or field not in known:
        raise Mistake(f"{of.name} have no field {field!r}", f"Write field=value. {near(field, known)}")
    row = await awaited(url, of, name, field, value, timedelta(seconds=seconds))
    return f"{row.name} {field}={value}"
