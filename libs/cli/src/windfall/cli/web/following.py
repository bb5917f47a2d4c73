"""From a server's streams into the feed: what it keeps, then everything new, for ever."""

import asyncio
import logging
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Final

import nats.errors
from nats.aio.client import Client

from windfall.cli.dead_letters import exhumed
from windfall.cli.recording import heard
from windfall.cli.server import kept, known_sites, letters, stream_info
from windfall.cli.web.feed import Feed
from windfall.cli.web.picture import Picture
from windfall.contracts.envelope import Letter, Unreadable
from windfall.contracts.events import EVENTS
from windfall.contracts.subjects import DEAD_PREFIX, DEAD_STREAM, EVENTS_STREAM, HUB, subject_for
from windfall.servicekit.errors import Mistake

log = logging.getLogger(__name__)

HISTORY: Final = 20_000
"""Events that are read one by one; of what is older, the newest of each kind and site."""
_LIVE: Final = timedelta(minutes=20)
"""A server whose newest event is nearer than that speaks of now; otherwise it replays another day."""
_LOOK: Final = timedelta(seconds=3)
"""How often the dead letters are counted: that one was dropped is nowhere said."""


async def follow(client: Client, picture: Picture, feed: Feed, history: int = HISTORY) -> None:
    """Read for ever.

    Args:
        history: events that are read one by one.

    Raises:
        Mistake: the server keeps no events.
    """
    # A hub that sources nobody would name itself.
    feed.publish(picture.know([site for site in await known_sites(client) if site != HUB]))
    start = max(1, (await stream_info(client, EVENTS_STREAM)).state.last_seq - history + 1)
    if start > 1:
        await _older(client, picture, feed, start)
    async with aclosing(letters(client, EVENTS_STREAM, (), start)) as stream:
        async for stored in stream:
            _take(picture, feed, stored.letter)


async def count_dead(client: Client, picture: Picture, feed: Feed) -> None:
    """Keep the list of dead letters as the server has it, for ever; a server that is away is asked again."""
    known = (0, 0)
    while True:
        try:
            state = (await stream_info(client, DEAD_STREAM)).state
            if (state.messages, state.last_seq) != known:
                dead = []
                async with aclosing(kept(client, DEAD_STREAM, [f"{DEAD_PREFIX}.>"])) as stream:
                    async for stored in stream:
                        dead.append(exhumed(stored))
                feed.publish(picture.bury(dead, len(dead)))
                known = (state.messages, state.last_seq)
        except (Mistake, nats.errors.Error) as error:
            log.info("dead letters cannot be counted now: %s", error)
        await asyncio.sleep(_LOOK.total_seconds())


def told_by(picture: Picture) -> tuple[datetime, float]:
    """Business time as the events have it: now, or in a replay whose clock is not known the newest of them."""
    now = datetime.now(UTC)
    if picture.newest_at is None or abs(now - picture.newest_at) < _LIVE:
        return now, 1.0
    return picture.newest_at, 0.0


async def _older(client: Client, picture: Picture, feed: Feed, start: int) -> None:
    subjects = [subject_for(kind, "*") for kind in EVENTS]
    async with aclosing(kept(client, EVENTS_STREAM, subjects, newest=True)) as stream:
        async for stored in stream:
            if stored.sequence < start:
                _take(picture, feed, stored.letter)


def _take(picture: Picture, feed: Feed, letter: Letter) -> None:
    try:
        feed.publish(picture.take(heard(letter)))
    except Unreadable as error:
        log.info("%s is no event: %s", letter.subject, error)
