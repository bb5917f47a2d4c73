"""A kind of thing that a person can ask for: its rows, its columns, and the events that make them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM

if TYPE_CHECKING:
    from windfall.cli.server import Stored

VERSION: Final = "windfall.dev/cli/v1"
"""Of what ``-o json`` and its like print. A field may be added under it; none is taken away or changes its meaning."""

SHORTEST_PREFIX: Final = 4
"""Characters of an id that may stand for all of it."""

Row = Any
"""A frozen dataclass whose first field is its name."""
Rows = dict[str, Row]
"""By name."""


@dataclass(frozen=True)
class Resource:
    """Of one kind.

    Attributes:
        name: in the plural, as a person types it.
        kind: in the singular, as machines read it.
        aliases: other spellings.
        row: the dataclass of its rows.
        columns: header and field of what a table shows.
        wide: further ones of ``-o wide``.
        hears: the events that make rows.
        fold: takes one event into the rows.
        newest: whether the newest event of each kind and site says everything; otherwise all are read.
        empty: what to do when there is none.
        most: only so many of the newest letters are read; none reads them all.
        stream: that holds them.
        take: takes letters in as they lie, where they need not be sentences.
        begin: rows before the first event, where more is remembered than is shown.
        concerns: whether an event is about a row, where the row that it makes alone does not say so.
    """

    name: str
    kind: str
    aliases: tuple[str, ...]
    row: type
    columns: tuple[tuple[str, str], ...]
    wide: tuple[tuple[str, str], ...]
    hears: tuple[type[Message], ...]
    fold: Callable[[Rows, Message], None]
    newest: bool
    empty: str
    most: int | None = None
    stream: str = EVENTS_STREAM
    take: Callable[[Rows, "Stored"], None] | None = None
    begin: Callable[[], Rows] = dict
    concerns: Callable[[Row, Message], bool] | None = None


def record(row: Row) -> Mapping[str, object]:
    """A row as machines read it: instants in ISO 8601, everything by its field's name."""
    return {one.name: _plain(getattr(row, one.name)) for one in fields(row)}


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    return list(value) if isinstance(value, tuple) else value
