"""``windfall web``, and the page beside a demo: a feed, the server that it follows and where it is served."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from urllib.parse import urlsplit

from aiohttp import web
from nats.aio.client import Client

from windfall.cli.server import connection, stream_info
from windfall.cli.web.app import application
from windfall.cli.web.feed import Feed
from windfall.cli.web.following import count_dead, follow, told_by
from windfall.cli.web.listening import Door
from windfall.cli.web.picture import Picture
from windfall.contracts.subjects import EVENTS_STREAM
from windfall.servicekit.errors import ExitCode, Mistake

_GOODBYE_S = 2.0
TRACE_ID = "{trace_id}"


async def serve(url: str, door: Door, trace_url: str | None, say: Callable[[str], None]) -> None:
    """Serve the page until this is interrupted or told to end.

    Raises:
        Mistake: the server cannot be used, or the door cannot be opened.
    """
    template = trace_template(trace_url)
    over = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)
    async with connection(url) as client:
        await stream_info(client, EVENTS_STREAM)
        async with page(client, door, trace_url=template) as (address, following):
            if door.warning:
                say(door.warning)
            say(f"the page is at {address} and follows {url}; ctrl-c ends it")
            ended = asyncio.ensure_future(over.wait())
            await asyncio.wait((ended, following), return_when=asyncio.FIRST_COMPLETED)
            if not ended.cancel():
                return
            await following


@asynccontextmanager
async def page(
    client: Client,
    door: Door,
    *,
    now: Callable[[], tuple[datetime, float]] | None = None,
    trace_url: str | None = None,
) -> AsyncIterator[tuple[str, asyncio.Future[None]]]:
    """The page for the time of the block: its address, and what ends only when the server cannot be followed.

    Args:
        now: business time and its speed, where somebody knows better than the events.
        trace_url: with ``{trace_id}`` in it.

    Raises:
        Mistake: the address is in use or not ours, or the server keeps no events.
    """
    picture = Picture()
    feed = Feed(picture, now or partial(told_by, picture), {"trace_url": trace_url} if trace_url else None)
    runner = web.AppRunner(application(feed, loopback=door.loopback), access_log=None, shutdown_timeout=_GOODBYE_S)
    await runner.setup()
    site = web.TCPSite(runner, door.host, door.port, ssl_context=door.context)
    following = asyncio.ensure_future(_following(client, picture, feed))
    try:
        try:
            await site.start()
        except OSError as error:
            raise Mistake(
                f"cannot listen on {door.host}:{door.port} ({error.strerror})",
                "Choose a free port with --listen",
                ExitCode.RESOURCE,
            ) from error
        yield door.url(runner.addresses[0][1]), following
    finally:
        feed.end()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await runner.cleanup()


async def _following(client: Client, picture: Picture, feed: Feed) -> None:
    both = [asyncio.ensure_future(work) for work in (follow(client, picture, feed), count_dead(client, picture, feed))]
    try:
        await asyncio.gather(*both)
    finally:
        for task in both:
            task.cancel()


def trace_template(url: str | None) -> str | None:
    """Where a trace is looked at, with a place for its id: Jaeger's address is enough.

    Raises:
        Mistake: it is no web address.
    """
    if url is None:
        return None
    address = urlsplit(url)
    if address.scheme not in ("http", "https") or not address.hostname:
        raise Mistake(
            f"{url!r} is no web address", f"Say where traces are seen, like http://jaeger:16686/trace/{TRACE_ID}"
        )
    return url if TRACE_ID in url else f"{url.rstrip('/')}/trace/{TRACE_ID}"
