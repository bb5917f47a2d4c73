"""The bus on NATS JetStream, through FastStream and nats-py.

Why not FastStream's defaults: its acknowledgement policy drops a message whose handler raised, its pull subscriber
never recovers a lost consumer or stream, and once its reconnect attempts are used up its fetch loop starves the event
loop. So: manual acknowledgement, reconnect for ever, consumers declared and watched by us, and a closed connection ends
the process.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import nats.errors
import nats.js.errors
from faststream import AckPolicy
from faststream.nats import JStream, PullSub
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from opentelemetry.trace import SpanKind

from windfall.contracts.envelope import TRACEPARENT, Letter
from windfall.contracts.subjects import DEAD_STREAM, MAX_MESSAGE_BYTES, StreamSpec
from windfall.servicekit import metrics
from windfall.servicekit.batch import by_stream, stored_as_one
from windfall.servicekit.bus import ACK_WAIT, Ears, Handler, Hearing, M, messaging
from windfall.servicekit.errors import ExitCode, Mistake, Poison, Transient
from windfall.servicekit.instruments import CONSUMERS_LOST, LAG, PUBLISHED, STORE_USE
from windfall.servicekit.jetstream import declare_consumer, declare_stream
from windfall.servicekit.listener import Listener
from windfall.servicekit.nats_access import Access
from windfall.servicekit.nats_broker import KeyBroker
from windfall.servicekit.nats_tls import warn_if_plain
from windfall.servicekit.sourcing import Sourcing
from windfall.servicekit.telemetry import outgoing_trace, span

log = logging.getLogger(__name__)

OLDEST_SERVER: Final = (2, 10, 0)
"""Older servers ignore ``filter_subjects`` and stream sources' filters without a word."""

_API_TIMEOUT_S: Final = 5.0
_FLUSH_TIMEOUT_S: Final = 5
_PUBLISH_TIMEOUT_S: Final = 2.0
_WATCH_EVERY: Final = timedelta(seconds=1)
_FETCH_TIMEOUT_S: Final = 1.0
"""A fetch that was waiting when the server died is not answered by the next one: this is how long it holds up."""
_STOP_TIMEOUT_S: Final = 20.0
_PENDING_BYTES: Final = 16 * 1024 * 1024
"""What the client may keep for a server that is away: enough for a month of fetch requests, which fail when it is full
and would then be repeated without a pause."""


class NatsBus:
    """See :class:`windfall.servicekit.bus.Bus`.

    Args:
        url: the server of this service's own domain.
        service: who hears: the durable name of its consumers.
        streams: what the domain must have; declared at start and again when they are lost.
        on_mistake: told when a handler meets something that a person must mend; the process should end.
        on_store_lost: told when a stream was made anew, so that the outbox looks.
        ack_wait: how long a delivery may stay silent before the server gives it again.
        access: how the server lets us in.
        replicas: servers that keep a copy of each stream.

    Raises:
        Mistake: a file that ``access`` names cannot be used.
    """

    def __init__(
        self,
        url: str,
        service: str,
        streams: Sequence[StreamSpec],
        on_mistake: Callable[[Mistake], None],
        on_store_lost: Callable[[], None] = lambda: None,
        ack_wait: timedelta = ACK_WAIT,
        access: Access = Access(),
        replicas: int = 1,
    ) -> None:
        warn_if_plain(url)
        self._url = url
        self._inbox = access.inbox
        self._replicas = replicas
        self._service = service
        self._process = f"{service}-{uuid4().hex}"
        self._streams = streams
        self._on_mistake = on_mistake
        self._on_store_lost = on_store_lost
        self._ack_wait = ack_wait
        self._ears = Ears()
        self._listeners: list[Listener] = []
        self._asked: dict[str, Callable[[bytes], None]] = {}
        self._stopping = False
        self._standing = False
        self._watchdog: asyncio.Task[None] | None = None
        self._sourcing = Sourcing((), replicas)
        self._client: Client | None = None
        self._last_trouble = ""
        self._seen = ""
        self._deaf = False
        self._look = asyncio.Event()
        self._use: dict[str, float] = {}
        metrics.observe(LAG, self._lags)
        metrics.observe(STORE_USE, self._uses)
        self._broker = KeyBroker(
            url,
            access,
            name=service,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            connect_timeout=2,
            ping_interval=5,
            max_outstanding_pings=2,
            pending_size=_PENDING_BYTES,
            closed_cb=self._closed,
            error_cb=self._troubled,
            disconnected_cb=self._disconnected,
            reconnected_cb=self._reconnected,
            logger=None,
        )

    def hears(self, kind: type[M], whom: str, handler: Handler[M]) -> None:
        self._ears.hears(kind, whom, handler)

    def follows(self, kind: type[M], whom: str, handler: Handler[M]) -> None:
        self._ears.follows(kind, whom, handler)

    def asked(self, subject: str, heard: Callable[[bytes], None]) -> None:
        """Give what somebody says on a subject that no stream keeps; register before ``start``."""
        self._asked[subject] = heard

    async def tell(self, subject: str, body: bytes) -> bool:
        """Say what no stream keeps to whoever listens now, and return when the server has it; false when it is away."""
        if self._client is None or self._line() is None:
            return False
        try:
            await self._client.publish(subject, body)
            await self._client.flush(timeout=_FLUSH_TIMEOUT_S)
        except (TimeoutError, OSError, nats.errors.Error):
            return False
        return True

    @property
    def ready(self) -> bool:
        return self._standing

    async def start(self) -> None:
        client: Client = await self._broker.connect()
        self._client = client
        version = client.connected_server_version
        if (version.major, version.minor, version.patch) < OLDEST_SERVER:
            found = f"{version.major}.{version.minor}.{version.patch}"
            await self.stop()
            raise Mistake(
                f"the NATS server at {self._url} is {found}; its old filters would lose messages without a word",
                f"Run nats-server {'.'.join(map(str, OLDEST_SERVER))} or newer",
                ExitCode.SERVER,
            )
        self._jetstream: JetStreamContext = client.jetstream(timeout=_API_TIMEOUT_S)
        # First: who asks why the service does not stand is answered.
        for subject, asked in self._asked.items():
            await client.subscribe(subject, cb=_given(asked))
        await self._declared()
        for hearing in self._ears.hearings():
            self._broker.subscriber(
                hearing.subjects[0],
                stream=JStream(hearing.stream, declare=False),
                durable=self._consumer(hearing),
                pull_sub=PullSub(batch_size=1, timeout=_FETCH_TIMEOUT_S),
                # Left to itself FastStream takes no notice of the connection's own prefix.
                inbox_prefix=f"{self._inbox}.".encode(),
                ack_policy=AckPolicy.MANUAL,
                decoder=_undecoded,
                no_reply=True,
            )(self._listener(hearing).deliver)
        await self._broker.start()
        heard = {listener.hearing.stream for listener in self._listeners}
        self._sourcing = Sourcing([spec for spec in self._streams if spec.name in heard], self._replicas)
        self._sourcing.began()
        self._standing = True
        self._watchdog = asyncio.create_task(self._watch(client), name="bus-watchdog")

    async def stop(self) -> None:
        self._stopping = True
        self._standing = False
        for listener in self._listeners:
            listener.stopping = True
        if self._watchdog is not None:
            self._watchdog.cancel()
            await asyncio.wait([self._watchdog])
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._broker.stop()
        except (OSError, nats.errors.Error) as error:
            # A server that is gone cannot take our leave; what we have not acknowledged it will deliver again.
            log.info("left without a word to the server: %s", type(error).__name__)
        if self._client is not None and not self._client.is_closed:
            with suppress(OSError):
                # It writes what it has kept into the broken connection first.
                await self._client.close()

    async def publish(self, letter: Letter) -> None:
        _bounded(letter)
        operation = letter.headers.get("ce-type", letter.subject)
        if TRACEPARENT not in letter.headers:
            with metrics.timed(PUBLISHED, {"messaging.operation.name": "send"}):
                await self._keep(letter)
            return
        with (
            span(
                f"send {operation}",
                kind=SpanKind.PRODUCER,
                parent=letter.headers,
                attributes=messaging("send", letter),
            ),
            metrics.timed(PUBLISHED, {"messaging.operation.name": "send"}),
        ):
            await self._keep(Letter(letter.subject, {**letter.headers, **outgoing_trace()}, letter.body))

    async def publish_all(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            _bounded(letter)
        for together in by_stream(letters, self._streams):
            client = self._connected()
            try:
                stored = await stored_as_one(client, self._jetstream, together)
            except nats.errors.MaxPayloadError as error:
                raise Poison("the server refuses one that is so long") from error
            except (TimeoutError, nats.errors.Error) as error:
                raise Transient(f"a batch was not acknowledged ({type(error).__name__}: {error})") from error
            if not stored:
                for letter in together:
                    await self._keep(letter)

    async def store_identity(self) -> str:
        self._connected()
        try:
            made = await self._made()
        except (TimeoutError, nats.errors.Error) as error:
            raise Transient(f"the store cannot be seen ({type(error).__name__})") from error
        missing = [stream for stream, at in made.items() if at is None]
        if missing:
            raise Transient(f"{', '.join(missing)} is not there")
        return _identity(made)

    def _consumer(self, hearing: Hearing) -> str:
        return self._process if hearing.newest else self._service

    def _listener(self, hearing: Hearing) -> Listener:
        listener = Listener(
            self._service,
            self._consumer(hearing),
            hearing,
            self._ears,
            self._ack_wait,
            self._line,
            self._keep,
            self._on_mistake,
        )
        self._listeners.append(listener)
        return listener

    async def _made(self) -> dict[str, datetime | None]:
        """When each of our streams was made; none for one that is not there."""
        infos = await self._jetstream.streams_info()
        self._use = {
            str(info.config.name): info.state.bytes / room for info in infos if (room := info.config.max_bytes or 0) > 0
        }
        found = {info.config.name: info.created for info in infos}
        return {spec.name: found.get(spec.name) for spec in self._streams}

    def _lags(self) -> Iterator[tuple[float, dict[str, str]]]:
        for listener in self._listeners:
            yield listener.lag, {"windfall.stream": listener.hearing.stream}

    def _uses(self) -> Iterator[tuple[float, dict[str, str]]]:
        for stream, share in dict(self._use).items():
            yield share, {"windfall.stream": stream}

    def _connected(self) -> Client:
        if self._client is None or self._line() is None:
            # The client would keep what we say and send it some day, whatever we decide meanwhile.
            raise Transient("the server is away")
        return self._client

    async def _keep(self, letter: Letter) -> None:
        self._connected()
        headers = dict(letter.headers)
        try:
            await self._jetstream.publish(letter.subject, letter.body, headers=headers, timeout=_PUBLISH_TIMEOUT_S)
        except nats.errors.MaxPayloadError as error:
            raise Poison(f"the server refuses {len(letter.body)} bytes") from error
        except (TimeoutError, nats.errors.Error) as error:
            # A time-out may have been stored all the same: the message id makes saying it again safe.
            raise Transient(f"{letter.subject} was not acknowledged ({type(error).__name__}: {error})") from error

    def _line(self) -> int | None:
        """Which connection this is, counted from the first; none while there is none."""
        if self._client is None or not self._client.is_connected:
            return None
        return int(self._client.stats["reconnects"])

    async def _declared(self) -> bool:
        """Make streams and consumers as the contracts have them; true when a stream was missing."""
        made = False
        while True:
            try:
                for spec in self._streams:
                    made |= await declare_stream(self._jetstream, spec, self._replicas)
                self._seen = self._seen or _identity(await self._made())
                for hearing in self._ears.hearings():
                    await declare_consumer(self._jetstream, self._consumer(hearing), hearing, self._ack_wait)
                return made
            except (nats.js.errors.ServiceUnavailableError, nats.js.errors.NoStreamResponseError) as error:
                log.warning("JetStream is not ready yet: %s", type(error).__name__)
            except (nats.errors.TimeoutError, nats.errors.NoRespondersError) as error:
                log.warning("the server does not answer yet: %s", type(error).__name__)
            except nats.js.errors.APIError as error:
                if error.code != 503:
                    raise Mistake(
                        f"the NATS server at {self._url} refuses our streams ({error.description})",
                        "Give it JetStream, room on its disk and this service's permissions",
                        ExitCode.SERVER,
                    ) from error
                log.warning("JetStream is not ready yet: %s", error.description)
            await asyncio.sleep(_WATCH_EVERY.total_seconds())

    async def _watch(self, client: Client) -> None:
        """Look for lost consumers and streams: FastStream's subscriber would wait on them for ever."""
        # A counter that is first seen at 1 has not grown, for whoever looks at its rate.
        metrics.record(CONSUMERS_LOST, 0)
        # Asked and not only cancelled: asyncio.wait_for, which nats-py waits with, may swallow a cancellation.
        while not self._stopping:
            with suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_EVERY.total_seconds()):
                    await self._look.wait()
            self._look.clear()
            if not client.is_connected:
                continue
            try:
                await self._mend(client)
            except (TimeoutError, nats.errors.Error) as error:
                self._standing = False
                log.info("the server does not answer the watchdog: %s", type(error).__name__)
            except Mistake as error:
                self._on_mistake(error)
                return

    async def _mend(self, client: Client) -> None:
        lost = await self._lost(client)
        if lost:
            log.warning("%s lost on the server: declaring again", ", ".join(lost))
            metrics.record(CONSUMERS_LOST, len(lost))
        if lost or self._deaf:
            # First deaf, then declared: a message that the new consumer gives to a fetch about to be stopped would hold
            # up everything until the server misses its acknowledgement.
            self._deaf = True
            for subscriber in self._broker.subscribers:
                await subscriber.stop()
            if lost:
                await self._declared()
            for subscriber in self._broker.subscribers:
                await subscriber.start()
            self._deaf = False
        # Another service may have made anew what was lost: when streams were made tells, not whether they are there.
        seen = _identity(await self._made())
        if seen != self._seen:
            self._seen = seen
            self._on_store_lost()
        self._standing = client.is_connected
        await self._sourcing.look(client, self._jetstream)

    async def _lost(self, client: Client) -> list[str]:
        lost = [stream for stream, at in (await self._made()).items() if at is None]
        for listener in self._listeners:
            try:
                info = await self._jetstream.consumer_info(listener.hearing.stream, listener.consumer, timeout=2)
            except nats.js.errors.NotFoundError:
                lost.append(f"consumer of {listener.hearing.stream}")
            else:
                await listener.ask_for_lost(client, info)
        return lost

    async def _troubled(self, error: Exception) -> None:
        trouble = f"{type(error).__name__}: {error}"
        # The same trouble comes back with every attempt to connect: once is enough.
        log.log(logging.DEBUG if trouble == self._last_trouble else logging.WARNING, "%s: %s", self._url, trouble)
        self._last_trouble = trouble

    async def _disconnected(self) -> None:
        self._standing = False
        if not self._stopping:
            log.warning("lost the connection to %s; trying for ever", self._url)

    async def _reconnected(self) -> None:
        log.info("connected to %s again", self._url)
        self._last_trouble = ""
        self._sourcing.reconnected()
        self._look.set()
        # The server may have come back without its store.
        self._on_store_lost()

    async def _closed(self) -> None:
        if self._stopping:
            return
        # The fetch loop would now spin without ever yielding, deaf to signals: end here, and be started again.
        log.critical("the connection to %s is closed for good", self._url)
        os._exit(ExitCode.SERVER)


def _identity(made: Mapping[str, datetime | None]) -> str:
    return " ".join(f"{stream}@{at}" for stream, at in made.items())


def _bounded(letter: Letter) -> None:
    if len(letter.body) > MAX_MESSAGE_BYTES:
        raise Poison(f"body of {len(letter.body)} bytes is over the limit of {MAX_MESSAGE_BYTES}")


def _given(heard: Callable[[bytes], None]) -> Callable[[Msg], Awaitable[None]]:
    async def give(message: Msg) -> None:
        heard(message.data)

    return give


async def _undecoded(message: Any) -> bytes:
    body: bytes = message.body
    return body


__all__ = ["DEAD_STREAM", "OLDEST_SERVER", "NatsBus", "declare_stream"]
