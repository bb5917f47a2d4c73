"""``windfall describe``: one row, and what was said about it last."""

from contextlib import aclosing

from windfall.cli.events import in_words
from windfall.cli.recording import heard
from windfall.cli.resources import showing
from windfall.cli.resources.dead_letters import DEAD_LETTERS
from windfall.cli.resources.events import RECENT
from windfall.cli.resources.reading import rows
from windfall.cli.resources.registry import chosen, resource
from windfall.cli.resources.resource import Resource, Row, Rows
from windfall.cli.server import connection, kept
from windfall.contracts.envelope import Unreadable
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, subject_for


async def described(url: str, what: str, name: str, count: int) -> str:
    """A field a line, and the last events.

    Raises:
        Mistake: there is no such thing, or the server cannot be used.
    """
    of = resource(what)
    (row,) = chosen(of, await rows(url, of, (name,)), (name,))
    # What was said itself is all that there is to say of it.
    lines = [] if of is RECENT or of is DEAD_LETTERS else await _last(url, of, row, count)
    told = showing.described(of, row)
    return f"{told}\n\nLast events:\n" + "\n".join(f"  {line}" for line in lines) if lines else told


async def _last(url: str, of: Resource, row: Row, count: int) -> list[str]:
    whom = getattr(row, "site", None) or getattr(row, "federation", None) or row.name
    # A site's row names the federation that it trains for; what was said of the site itself is asked for.
    whom = row.name if of.newest else whom
    subjects = [subject_for(kind, whom) for kind in of.hears]
    found: list[str] = []
    async with connection(url) as client, aclosing(kept(client, EVENTS_STREAM, subjects)) as stream:
        async for stored in stream:
            try:
                said = heard(stored.letter)
            except Unreadable:
                continue
            if _concerns(of, row, said.message):
                found.append(in_words(said))
    return found[-count:] if count else []


def _concerns(of: Resource, row: Row, message: Message) -> bool:
    if of.concerns is not None:
        return of.concerns(row, message)
    alone: Rows = {}
    of.fold(alone, message)
    return row.name in alone
