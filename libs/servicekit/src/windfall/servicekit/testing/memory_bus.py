"""The bus in memory: JetStream's promises without a server.

A :class:`MemoryDomain` is one server's store. Durable consumers survive their bus, as they do on a server; ids are kept
once; sourcing links carry events from site to hub and orders from hub to site, and can be cut and healed.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from uuid import uuid4

from opentelemetry.trace import SpanKind

from windfall.contracts.envelope import TRACEPARENT, Letter, Unreadable, unseal
from windfall.contracts.message import Message
from windfall.contracts.subjects import MAX_MESSAGE_BYTES, Source, StreamSpec, matches
from windfall.servicekit.bus import DELIVERIES, Ears, Handler, Hearing, M, back_off, broken, buried, messaging, rest
from windfall.servicekit.errors import Mistake, Poison, Transient
from windfall.servicekit.telemetry import outgoing_trace, span

log = logging.getLogger(__name__)


@dataclass
class _Stored:
    sequence: int
    letter: Letter


@dataclass
class _Consumer:
    subjects: tuple[str, ...]
    passed_over: frozenset[int] = frozenset()
    """Sequences that were not the newest of their subject when the consumer was made."""
    position: int = 0
    deliveries: int = 0
    """Of the message at the position: at most one is outstanding."""


@dataclass
class _Stream:
    spec: StreamSpec
    letters: list[_Stored] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    consumers: dict[str, _Consumer] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def next_for(self, consumer: _Consumer) -> _Stored | None:
        """The oldest letter that is not done with; what the consumer does not hear is passed over for good."""
        letters = self.letters
        while consumer.position < len(letters):
            stored = letters[consumer.position]
            heard = any(matches(subject, stored.letter.subject) for subject in consumer.subjects)
            if heard and stored.sequence not in consumer.passed_over:
                return stored
            consumer.position += 1
        return None


@dataclass
class _Link:
    """One sourcing: from a stream of the origin into a stream of the target."""

    target: "MemoryDomain"
    target_stream: str
    source: Source
    position: int = 0
    generation: int = 0
    """Of the target's store when the position was last right."""


class MemoryDomain:
    """One JetStream domain. ``lag`` is how long a sourced message takes."""

    def __init__(self, name: str, lag: timedelta = timedelta(milliseconds=2)) -> None:
        self.name = name
        self._lag = lag
        self._streams: dict[str, _Stream] = {}
        self._links: list[_Link] = []
        self._generation = 0
        self._cut: set[str] = set()
        self._neighbours: dict[str, MemoryDomain] = {}
        self._buses: dict[MemoryBus, None] = {}
        self._up = asyncio.Event()
        self._up.set()

    @property
    def reachable(self) -> bool:
        """Whether the server runs. Set it to false to kill the server, to true to start it on the same store."""
        return self._up.is_set()

    @reachable.setter
    def reachable(self, up: bool) -> None:
        if up == self.reachable:
            return
        if not up:
            self._up.clear()
            return
        self._up.set()
        for domain in (self, *self._neighbours.values()):
            for name in domain._streams:
                domain._flow(name)
        for bus in self._buses:
            bus.reconnected()

    async def up(self) -> None:
        """Wait until the server runs."""
        await self._up.wait()

    def attach(self, bus: "MemoryBus") -> None:
        """Tell a bus when the store may have been lost."""
        self._buses[bus] = None

    def detach(self, bus: "MemoryBus") -> None:
        self._buses.pop(bus, None)

    def join(self, other: "MemoryDomain") -> None:
        """Connect two domains, as a leaf connection does. What each sources from the other begins to flow."""
        self._neighbours[other.name] = other
        other._neighbours[self.name] = self
        for domain in (self, other):
            for stream in domain._streams.values():
                domain._source(stream.spec)

    def cut(self, other: str) -> None:
        """Cut the link; both sides go on by themselves."""
        self._cut.add(other)
        self._neighbours[other]._cut.add(self.name)

    def heal(self, other: str) -> None:
        """Mend the link; what was stored meanwhile flows in order."""
        neighbour = self._neighbours[other]
        self._cut.discard(other)
        neighbour._cut.discard(self.name)
        for domain in (self, neighbour):
            for name in domain._streams:
                domain._flow(name)

    def wipe(self) -> None:
        """Lose the store, as a replaced disk does."""
        lost = list(self._streams.values())
        self._streams.clear()
        self._generation += 1
        for link in self._links:
            link.position = 0
        for stream in lost:
            stream.arrived.set()
        for bus in self._buses:
            bus.reconnected()

    def declare(self, specs: Sequence[StreamSpec]) -> None:
        """Make what is missing and attach its sources."""
        for spec in specs:
            if spec.name in self._streams:
                continue
            self._streams[spec.name] = _Stream(spec)
            self._source(spec)

    def _source(self, spec: StreamSpec) -> None:
        for source in spec.sources:
            origin = self._neighbours.get(source.domain)
            if origin is not None:
                origin._link(self, spec.name, source)
                origin._flow(source.stream)

    def consumer(self, name: str, hearing: Hearing) -> _Consumer:
        stream = self._streams[hearing.stream]
        if name not in stream.consumers:
            newest = {stored.letter.subject: stored.sequence for stored in stream.letters}
            older = {stored.sequence for stored in stream.letters} - set(newest.values())
            stream.consumers[name] = _Consumer(hearing.subjects, frozenset(older if hearing.newest else ()))
        consumer = stream.consumers[name]
        consumer.subjects = hearing.subjects
        return consumer

    def store(self, letter: Letter) -> None:
        """Keep a letter in the stream that captures its subject.

        Raises:
            Transient: no stream does, or the server is away.
        """
        if not self.reachable:
            raise Transient(f"{self.name} is away")
        for name, stream in self._streams.items():
            if stream.spec.takes(letter.subject):
                self._keep(name, letter)
                return
        raise Transient(f"no stream captures {letter.subject}")

    def letters(self, stream: str) -> list[Letter]:
        """What a stream holds, oldest first."""
        return [stored.letter for stored in self._streams[stream].letters] if stream in self._streams else []

    @property
    def identity(self) -> str:
        return f"{self.name}-{self._generation}"

    def stream(self, name: str) -> _Stream | None:
        return self._streams.get(name)

    def _keep(self, name: str, letter: Letter) -> None:
        stream = self._streams[name]
        if letter.id:
            if letter.id in stream.ids:
                return
            stream.ids.add(letter.id)
        stream.letters.append(_Stored(len(stream.letters) + 1, letter))
        arrived, stream.arrived = stream.arrived, asyncio.Event()
        arrived.set()
        self._flow(name)

    def _link(self, target: "MemoryDomain", target_stream: str, source: Source) -> None:
        known = [link for link in self._links if link.target is target and link.target_stream == target_stream]
        if not known:
            self._links.append(_Link(target, target_stream, source, generation=target._generation))

    def _flow(self, name: str) -> None:
        for link in self._links:
            if link.source.stream == name and link.target.name not in self._cut:
                asyncio.get_running_loop().call_later(self._lag.total_seconds(), self._copy, link)

    def _copy(self, link: _Link) -> None:
        origin = self._streams.get(link.source.stream)
        if link.target.name in self._cut or not self.reachable or not link.target.reachable or origin is None:
            return
        if link.target.stream(link.target_stream) is None:
            return
        if link.generation != link.target._generation:
            link.position, link.generation = 0, link.target._generation
        fresh, link.position = origin.letters[link.position :], len(origin.letters)
        for stored in fresh:
            if link.source.filter_subject is None or matches(link.source.filter_subject, stored.letter.subject):
                link.target._keep(link.target_stream, stored.letter)


class MemoryBus:
    """See :class:`windfall.servicekit.bus.Bus`.

    Harsher than the real one in one respect: ``stop`` cuts the delivery in hand, as a crash would, and it comes again.
    """

    def __init__(
        self,
        domain: MemoryDomain,
        service: str,
        streams: Sequence[StreamSpec],
        on_mistake: Callable[[Mistake], None] = lambda mistake: None,
        on_store_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._domain = domain
        self._service = service
        self._process = f"{service}-{uuid4().hex}"
        self._streams = streams
        self._on_mistake = on_mistake
        self._on_store_lost = on_store_lost
        self._ears = Ears()
        self._tasks: list[asyncio.Task[None]] = []
        self._standing = False

    @property
    def ready(self) -> bool:
        return self._standing and self._domain.reachable

    def hears(self, kind: type[M], whom: str, handler: Handler[M]) -> None:
        self._ears.hears(kind, whom, handler)

    def follows(self, kind: type[M], whom: str, handler: Handler[M]) -> None:
        self._ears.follows(kind, whom, handler)

    async def start(self) -> None:
        if not self._domain.reachable:
            await self._domain.up()
        self._domain.declare(self._streams)
        self._domain.attach(self)
        for hearing in self._ears.hearings():
            self._domain.consumer(self._consumer(hearing), hearing)
            self._tasks.append(asyncio.create_task(self._consume(hearing), name=f"{self._service}-{hearing.stream}"))
        self._standing = True

    async def stop(self) -> None:
        self._standing = False
        self._domain.detach(self)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def publish(self, letter: Letter) -> None:
        if len(letter.body) > MAX_MESSAGE_BYTES:
            raise Poison(f"body of {len(letter.body)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
        await asyncio.sleep(0)
        if TRACEPARENT not in letter.headers:
            self._domain.store(letter)
            return
        operation = letter.headers.get("ce-type", letter.subject)
        attributes = messaging("send", letter)
        with span(f"send {operation}", kind=SpanKind.PRODUCER, parent=letter.headers, attributes=attributes):
            self._domain.store(Letter(letter.subject, {**letter.headers, **outgoing_trace()}, letter.body))

    async def publish_all(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            await self.publish(letter)

    async def store_identity(self) -> str:
        if not self._domain.reachable:
            raise Transient(f"{self._domain.name} is away")
        self._domain.declare(self._streams)
        return self._domain.identity

    def reconnected(self) -> None:
        """The server is back, perhaps without its store."""
        self._on_store_lost()

    def _consumer(self, hearing: Hearing) -> str:
        return self._process if hearing.newest else self._service

    async def _consume(self, hearing: Hearing) -> None:
        while True:
            if not self._domain.reachable:
                await self._domain.up()
            stream = self._domain.stream(hearing.stream)
            if stream is None:
                self._domain.declare(self._streams)
                continue
            consumer = self._domain.consumer(self._consumer(hearing), hearing)
            waiting = stream.next_for(consumer)
            if waiting is None:
                await stream.arrived.wait()
                continue
            consumer.deliveries += 1
            rest = await self._deliver(waiting.letter, consumer.deliveries)
            if rest is None:
                consumer.position = waiting.sequence
                consumer.deliveries = 0
            else:
                await asyncio.sleep(rest.total_seconds())

    async def _deliver(self, letter: Letter, delivery: int) -> timedelta | None:
        """None when the message is done with, else how long it rests."""
        try:
            if delivery > DELIVERIES:
                raise Poison(f"delivered {delivery - 1} times and never handled")
            await self._hear(unseal(letter), letter)
        except Transient as error:
            return rest(error, delivery)
        except (Poison, Unreadable) as error:
            if not self._domain.reachable:
                return back_off(delivery)
            self._domain.store(buried(self._service, letter, str(error)))
        except Mistake as error:
            self._on_mistake(error)
            return back_off(delivery)
        except Exception as error:
            # The root above every handler: whatever it is, it ends the service and keeps the message, and is not lost
            # in a subscriber that would log it and go on.
            log.exception("the handler of %s broke", letter.subject)
            self._on_mistake(broken(letter.subject, error))
            return back_off(delivery)
        return None

    async def _hear(self, message: Message, letter: Letter) -> None:
        operation = letter.headers.get("ce-type", letter.subject)
        attributes = messaging("process", letter, self._service)
        with span(f"process {operation}", kind=SpanKind.CONSUMER, parent=letter.headers, attributes=attributes):
            await self._ears.handle(message)
