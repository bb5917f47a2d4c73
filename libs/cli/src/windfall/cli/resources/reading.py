"""Rows of a resource from a server: as they stand, and as they change."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from windfall.cli.nearest import near
from windfall.cli.resources.resource import SHORTEST_PREFIX, Resource, Row, Rows
from windfall.cli.resources.sites import SITES, Site
from windfall.cli.server import Stored, connection, kept, known_sites, letters
from windfall.contracts.envelope import Unreadable, unseal
from windfall.contracts.subjects import HUB, subject_for
from windfall.servicekit.errors import ExitCode, Mistake

if TYPE_CHECKING:
    from nats.aio.client import Client

_ONE: Final = re.compile(r"[a-z0-9-]+")
"""A token of a subject that names one site or federation, and not all of them."""
_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def rows(url: str, of: Resource, names: tuple[str, ...] = ()) -> Rows:
    """As the server's events have it now.

    Args:
        names: those that are wanted; where the server knows them all by these names, no others are read.

    Raises:
        Mistake: the server cannot be used.
    """
    async with connection(url) as client:
        if names and of.newest and all(map(_ONE.fullmatch, names)):
            found = await _folded(client, of, [subject_for(kind, name) for kind in of.hears for name in names])
            if found.keys() >= set(names):
                return found
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
        async with aclosing(letters(client, of.stream, _subjects(of), last + 1)) as stream:
            async for stored in stream:
                before = dict(found)
                _take(of, found, stored)
                for name, row in found.items():
                    if before.get(name) != row:
                        yield row


async def awaited(url: str, of: Resource, name: str, field: str, value: str, within: timedelta) -> Row:
    """The row once its field has this value. It need not be there yet.

    Raises:
        Mistake: the server cannot be used, rows have no such field, or the time is over.
    """
    seen, names = None, set[str]()
    try:
        async with asyncio.timeout(within.total_seconds()), aclosing(changes(url, of)) as stream:
            async for row in stream:
                names.add(row.name)
                if row.name != name and not _cut(name, row.name):
                    continue
                seen = str(getattr(row, field))
                if seen == value:
                    return row
    except TimeoutError as error:
        late = f"{name} did not come to {field}={value} within {within.total_seconds():g} s"
        if seen is None:
            cure = near(name, sorted(names)) if names else of.empty[:1].upper() + of.empty[1:]
            raise Mistake(f"{late}: nothing was heard of {name}", cure, ExitCode.FAILED) from error
        raise Mistake(
            f"{late}: {field} is {seen}",
            f"Look with `windfall describe {of.name} {name}`, or wait longer with --timeout",
            ExitCode.FAILED,
        ) from error
    raise AssertionError("a stream of changes does not end")


def _cut(name: str, whole: str) -> bool:
    """Whether a name is an id that was cut. The beginning of any other name may be one that is to come."""
    return len(name) >= SHORTEST_PREFIX and whole.startswith(name) and _ID.fullmatch(whole) is not None


async def _now(client: "Client", of: Resource) -> tuple[Rows, int]:
    found = of.begin()
    if of is SITES:
        # A hub that hears no site yet names itself.
        found = {site: Site(site) for site in await known_sites(client) if site != HUB}
    last = 0
    async with aclosing(kept(client, of.stream, _subjects(of), of.newest, of.most)) as stream:
        async for stored in stream:
            last = stored.sequence
            _take(of, found, stored)
    return found, last


async def _folded(client: "Client", of: Resource, subjects: list[str]) -> Rows:
    found = of.begin()
    async with aclosing(kept(client, of.stream, subjects, of.newest)) as stream:
        async for stored in stream:
            _take(of, found, stored)
    return found


def _take(of: Resource, found: Rows, stored: Stored) -> None:
    if of.take is not None:
        of.take(found, stored)
        return
    with suppress(Unreadable):  # `windfall events tail` shows what is none
        of.fold(found, unseal(stored.letter))


def _subjects(of: Resource) -> list[str]:
    return [subject_for(kind, "*") for kind in of.hears]
