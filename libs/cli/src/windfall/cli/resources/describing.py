"""``windfall describe``: one row, and what was said about it last."""

import json
from contextlib import aclosing
from dataclasses import dataclass

from windfall.cli import events
from windfall.cli.recording import Said, heard, line
from windfall.cli.resources import showing
from windfall.cli.resources.dead_letters import DEAD_LETTERS
from windfall.cli.resources.events import RECENT
from windfall.cli.resources.reading import rows
from windfall.cli.resources.registry import chosen, resource
from windfall.cli.resources.resource import Resource, Row, Rows, record
from windfall.cli.resources.versioned import single
from windfall.cli.server import connection, kept
from windfall.contracts.envelope import Unreadable
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, subject_for


@dataclass(frozen=True)
class Described:
    """A row, and the last events about it, oldest first."""

    of: Resource
    row: Row
    last: tuple[Said, ...]


async def described(url: str, what: str, name: str, count: int) -> Described:
    """What there is to say of one.

    Args:
        count: of events, at most.

    Raises:
        Mistake: there is no such thing, or the server cannot be used.
    """
    of = resource(what)
    (row,) = chosen(of, await rows(url, of, (name,)), (name,))
    # What was said itself is all that there is to say of it.
    last = () if of is RECENT or of is DEAD_LETTERS else await _last(url, of, row, count)
    return Described(of, row, last)


def in_words(told: Described) -> str:
    """A field a line, and the last events."""
    text = showing.described(told.of, told.row)
    lines = [f"  {events.in_words(said)}" for said in told.last]
    return "\n".join([text, "", "Last events:", *lines]) if lines else text


def for_machines(told: Described, form: str) -> str:
    """The row as ``windfall get`` has it, and the events as ``windfall events tail -o json`` does."""
    last = [json.loads(line(said)) for said in told.last]
    return single(told.of.kind, {**record(told.row), "last_events": last}, form)


async def _last(url: str, of: Resource, row: Row, count: int) -> tuple[Said, ...]:
    whom = getattr(row, "site", None) or getattr(row, "federation", None) or row.name
    # A site's row names the federation that it trains for; what was said of the site itself is asked for.
    whom = row.name if of.newest else whom
    subjects = [subject_for(kind, whom) for kind in of.hears]
    found: list[Said] = []
    async with connection(url) as client, aclosing(kept(client, EVENTS_STREAM, subjects)) as stream:
        async for stored in stream:
            try:
                said = heard(stored.letter)
            except Unreadable:
                continue
            if _concerns(of, row, said.message):
                found.append(said)
    return tuple(found[-count:]) if count else ()


def _concerns(of: Resource, row: Row, message: Message) -> bool:
    if of.concerns is not None:
        return of.concerns(row, message)
    alone: Rows = {}
    of.fold(alone, message)
    return row.name in alone
