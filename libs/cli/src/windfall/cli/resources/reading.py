"""Rows of a resource from a server: as they stand, and as they change."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from windfall.cli.resources.resource import Resource, Row, Rows
from windfall.cli.resources.sites import SITES, Site
from windfall.cli.server import connection, kept, known_sites, letters
from windfall.contracts.envelope import Letter, Unreadable, unseal
from windfall.contracts.subjects import EVENTS_STREAM, HUB, subject_for
from windfall.servicekit.errors import ExitCode, Mistake

if TYPE_CHECKING:
    from nats.aio.client import Client


async def rows(url: str, of: Resource) -> Rows:
    """As the server's events have it now.

    Raises:
        Mistake: the server cannot be used.
    """
    async with connection(url) as client:
        found, _ = await _now(client, of)
        return found


async def changes(url: str, of: Resource) -> AsyncGenerator[Row, None]:
    """Every row as it stands, and then each one that changes, for ever.

    Raises:
        Mistake: the server cannot be used.
    """
    async with connection(url) as client:
        found, last = await _now(client, of)
        for row in list(found.values()):
            yield row
        async with aclosing(letters(client, EVENTS_STREAM, _subjects(of), last + 1)) as stream:
            async for stored in stream:
                before = dict(found)
                _take(of, found, stored.letter)
                for name, row in found.items():
                    if before.get(name) != row:
                        yield row


async def awaited(url: str, of: Resource, name: str, field: str, value: str, within: timedelta) -> Row:
    """The row once its field has this value.

    Raises:
        Mistake: the server cannot be used, rows have no such field, or the time is over.
    """
    seen = None
    try:
        async with asyncio.timeout(within.total_seconds()), aclosing(changes(url, of)) as stream:
            async for row in stream:
                if row.name != name:
                    continue
                seen = str(getattr(row, field))
                if seen == value:
                    return row
    except TimeoutError as error:
        stands = f"{field} is {seen}" if seen is not None else f"nothing was heard of {name}"
        raise Mistake(
            f"{name} did not come to {field}={value} within {within.total_seconds():g} s: {stands}",
            f"Look with `windfall describe {of.name} {name}`, or wait longer with --timeout",
            ExitCode.FAILED,
        ) from error
    raise AssertionError("a stream of changes does not end")


async def _now(client: "Client", of: Resource) -> tuple[Rows, int]:
    found: Rows = {}
    if of is SITES:
        # A hub that hears no site yet names itself.
        found = {site: Site(site) for site in await known_sites(client) if site != HUB}
    last = 0
    async with aclosing(kept(client, EVENTS_STREAM, _subjects(of), of.newest)) as stream:
        async for stored in stream:
            last = stored.sequence
            _take(of, found, stored.letter)
    return found, last


def _take(of: Resource, found: Rows, letter: Letter) -> None:
    with suppress(Unreadable):  # `windfall events tail` shows what is none
        of.fold(found, unseal(letter))


def _subjects(of: Resource) -> list[str]:
    return [subject_for(kind, "*") for kind in of.hears]
