"""A NATS server as a person's command meets it: connect, read a stream from any point on, store a sentence."""

import asyncio
import logging
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import windfall.servicekit.websockets_later  # noqa: F401 -- before nats-py

# isort: split
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext, api

from windfall.cli.refusals import is_refusal, unreachable
from windfall.contracts.envelope import Letter
from windfall.contracts.subjects import EVENTS_STREAM, HUB, hub_streams, site_streams
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.nats_access import Access
from windfall.servicekit.nats_client import connected
from windfall.servicekit.settings import NatsSettings, load

if TYPE_CHECKING:
    from windfall.servicekit.natsserver import ServerPlan

DEFAULT_URL: Final = "nats://127.0.0.1:4222"
OLDEST: Final = (2, 10, 0)
"""Older servers ignore ``filter_subjects`` without a word."""

_CONNECT_TIMEOUT_S: Final = 5.0
_FETCH_TIMEOUT_S: Final = 1.0
_BATCH: Final = 500
_LOST: Final = timedelta(milliseconds=250)
_JETSTREAM_LOST: Final = (nats.js.errors.NotFoundError, nats.js.errors.ServiceUnavailableError, nats.errors.Error)


@dataclass(frozen=True)
class Stored:
    """A letter with its place in a stream."""

    sequence: int
    letter: Letter


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[Client]:
    """A connection that reconnects for ever once it stood.

    Raises:
        Mistake: nobody answers there, it refuses us, it is too old, or what we show to it cannot be used.
    """
    access = load(NatsSettings, os.environ).nats_access
    try:
        client = await asyncio.wait_for(_connect(url, access), _CONNECT_TIMEOUT_S)
    except (TimeoutError, OSError, ValueError, nats.errors.Error) as error:
        raise unreachable(url, error) from error
    try:
        _new_enough(client, url)
        yield client
    finally:
        with suppress(nats.errors.Error):
            # Whatever was to be stored has been acknowledged already.
            await client.close()


async def _connect(url: str, access: Access) -> Client:
    # nats-py's end of a TLS connection makes asyncio tell the person a thing that concerns nobody.
    logging.getLogger("asyncio").addFilter(_concerns_somebody)
    # A closed door is told at once; the client itself would knock for ever.
    address = urlsplit(url)
    _, writer = await asyncio.open_connection(address.hostname, address.port or 4222)
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
    refused: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def told(error: Exception) -> None:
        """Once it stands, reconnecting is the client's business, and an error that matters is raised where it was
        awaited. Before that, who was refused is refused again."""
        if is_refusal(error) and not refused.done():
            refused.set_result(error)

    connecting = asyncio.ensure_future(
        connected(
            url,
            access,
            name="windfall",
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.25,
            connect_timeout=2,
            error_cb=told,
        )
    )
    try:
        both: set[asyncio.Future[Any]] = {connecting, refused}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done():
            raise refused.result()
        return await connecting
    finally:
        connecting.cancel()
        refused.cancel()


def _concerns_somebody(record: logging.LogRecord) -> bool:
    return "eof_received() has no effect" not in record.getMessage()


def _new_enough(client: Client, url: str) -> None:
    version = client.connected_server_version
    if (version.major, version.minor, version.patch) < OLDEST:
        raise Mistake(
            f"the NATS server at {url} is {version.major}.{version.minor}.{version.patch}, which is too old",
            f"Run nats-server {'.'.join(map(str, OLDEST))} or newer",
            ExitCode.SERVER,
        )


async def store(client: Client, letter: Letter) -> bool:
    """Have a stream keep a letter; false when it held one with this id already.

    Raises:
        Mistake: no stream of this server takes the subject, or the server does not acknowledge.
    """
    try:
        ack = await client.jetstream().publish(letter.subject, letter.body, headers=dict(letter.headers))
    except (nats.js.errors.NoStreamResponseError, nats.errors.NoRespondersError) as error:
        raise Mistake(
            f"no stream of this server takes {letter.subject}",
            "Speak to a server of this fleet whose services have started",
            ExitCode.SERVER,
        ) from error
    except (TimeoutError, nats.errors.Error) as error:
        raise Mistake(
            f"the server did not acknowledge {letter.subject} ({error or type(error).__name__})",
            "Try again: a second copy under the same id is kept once",
            ExitCode.SERVER,
        ) from error
    return not ack.duplicate


async def declared(servers: Sequence["ServerPlan"]) -> None:
    """Make the streams of a hub and its sites before any service does.

    A stream that sources another is made after it: a server that finds none tries again only seconds later, and those
    are minutes of a replay.
    """
    from windfall.servicekit.nats import declare_stream

    sites = tuple(server.domain for server in servers if server.domain != HUB)
    async with AsyncExitStack() as open_ones:
        clients = {server.domain: await open_ones.enter_async_context(connection(server.url)) for server in servers}
        wanted = [
            (domain, spec)
            for domain in clients
            for spec in (hub_streams(sites) if domain == HUB else site_streams(domain))
        ]
        for domain, spec in sorted(wanted, key=lambda pair: bool(pair[1].sources)):
            await declare_stream(clients[domain].jetstream(), spec)


async def last_sequence(client: Client, stream: str) -> int:
    """Place of the newest letter of a stream; 0 when it is empty.

    Raises:
        Mistake: the server has no such stream.
    """
    return (await stream_info(client, stream)).state.last_seq


async def stream_info(client: Client, stream: str) -> api.StreamInfo:
    """What the server knows about a stream.

    Raises:
        Mistake: the server has no such stream.
    """
    try:
        return await client.jetstream().stream_info(stream)
    except (TimeoutError, nats.errors.Error) as error:
        raise Mistake(
            f"the server has no stream {stream} ({type(error).__name__})",
            "Speak to a server of this fleet whose services have started",
            ExitCode.SERVER,
        ) from error


async def known_sites(client: Client) -> tuple[str, ...]:
    """The sites whose events this server keeps: the hub knows those that it sources, a site itself."""
    info = await stream_info(client, EVENTS_STREAM)
    apis = [source.external.api for source in info.config.sources or [] if source.external]
    sourced = [match[1] for text in apis if (match := re.fullmatch(r"\$JS\.(.+)\.API", text))]
    domain = (await client.jetstream().account_info()).domain
    return tuple(sorted(sourced)) or ((domain,) if domain else ())


async def domain_of(client: Client) -> str:
    """Whose server this is: the hub's, or a site's; empty when it has no name.

    Raises:
        Mistake: the server does not say.
    """
    try:
        return (await client.jetstream().account_info()).domain or ""
    except (TimeoutError, nats.errors.Error) as error:
        raise Mistake(
            f"the server does not say whose it is ({type(error).__name__})",
            "Speak to a server of this fleet, with a key that may ask it",
            ExitCode.SERVER,
        ) from error


async def letters(
    client: Client, stream: str, subjects: Sequence[str] = (), start: int = 1
) -> AsyncGenerator[Stored, None]:
    """Every letter of a stream from place ``start`` on, in order, and then each new one, for ever.

    The reader's place is kept here and not on the server, so that a server that restarts, or that has no such stream
    yet, is only a pause. One that lost its store is heard from the beginning: what is said again has the same ids.
    """
    place, made = start, None
    while True:
        try:
            jetstream = client.jetstream()
            info = await jetstream.stream_info(stream)
            if made not in (None, info.created) or info.state.last_seq < place - 1:
                place = 1
            made = info.created
            reader = await _reader(jetstream, stream, subjects, place)
            try:
                async for stored in _read(reader):
                    place = stored.sequence + 1
                    yield stored
            finally:
                with suppress(nats.errors.Error):
                    # The server forgets it by itself when it cannot be told.
                    await reader.unsubscribe()
        except (TimeoutError, *_JETSTREAM_LOST):
            await asyncio.sleep(_LOST.total_seconds())


async def kept(
    client: Client, stream: str, subjects: Sequence[str], newest: bool = False, most: int | None = None
) -> AsyncGenerator[Stored, None]:
    """What a stream holds now, in order.

    Args:
        newest: only the newest letter of each subject.
        most: only what lies in so many of the newest places.

    Raises:
        Mistake: the server does not answer, or has no such stream.
    """
    last = (await stream_info(client, stream)).state.last_seq
    jetstream = client.jetstream()
    policy, start = api.DeliverPolicy.LAST_PER_SUBJECT if newest else api.DeliverPolicy.ALL, None
    if most is not None and last > most:
        policy, start = api.DeliverPolicy.BY_START_SEQUENCE, last - most + 1
    config = api.ConsumerConfig(
        filter_subjects=list(subjects) or None,
        deliver_policy=policy,
        opt_start_seq=start,
        ack_policy=api.AckPolicy.NONE,
        inactive_threshold=60.0,
        mem_storage=True,
    )
    try:
        info = await jetstream.add_consumer(stream, config)
        waiting = info.num_pending or 0
        reader = await jetstream.pull_subscribe_bind(info.name, stream)
        try:
            while waiting > 0:
                for message in await reader.fetch(min(waiting, _BATCH), timeout=_CONNECT_TIMEOUT_S):
                    waiting -= 1
                    letter = Letter(message.subject, dict(message.headers or {}), message.data)
                    yield Stored(message.metadata.sequence.stream, letter)
        finally:
            with suppress(nats.errors.Error):
                await reader.unsubscribe()
    except (TimeoutError, nats.errors.Error) as error:
        raise Mistake(
            f"the server did not give what its stream {stream} holds ({type(error).__name__})",
            "Try again",
            ExitCode.SERVER,
        ) from error


async def _reader(
    jetstream: JetStreamContext, stream: str, subjects: Sequence[str], start: int
) -> JetStreamContext.PullSubscription:
    config = api.ConsumerConfig(
        filter_subjects=list(subjects) or None,
        deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=max(1, start),
        ack_policy=api.AckPolicy.NONE,
        inactive_threshold=60.0,
        mem_storage=True,
    )
    info = await jetstream.add_consumer(stream, config)
    return await jetstream.pull_subscribe_bind(info.name, stream)


async def _read(reader: JetStreamContext.PullSubscription) -> AsyncIterator[Stored]:
    while True:
        try:
            batch = await reader.fetch(100, timeout=_FETCH_TIMEOUT_S)
        except nats.errors.TimeoutError:
            # Nothing new, or nobody there any more: only the server can tell.
            await reader.consumer_info()
            continue
        for message in batch:
            letter = Letter(message.subject, dict(message.headers or {}), message.data)
            yield Stored(message.metadata.sequence.stream, letter)
