"""The bus as a service sees it: what it hears, and the promise of how."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol, TypeVar

from windfall.contracts.envelope import MESSAGE_ID, Letter
from windfall.contracts.message import Message
from windfall.contracts.subjects import dead_subject, is_command, stream_for, subject_for
from windfall.servicekit.errors import ExitCode, Mistake, Transient

M = TypeVar("M", bound=Message)
Handler = Callable[[M], Awaitable[None]]

ACK_WAIT: Final = timedelta(seconds=10)
"""How long a delivery may stay silent. Long work is kept in progress for its handler."""
DELIVERIES: Final = 30
"""Deliveries after which a message is buried, however transient each failure claimed to be."""

DEAD_REASON: Final = "windfall-dead-reason"
"""Header of a dead letter: why it could not be handled."""


class Bus(Protocol):
    """One service's connection to its domain. Register with ``hears`` before ``start``."""

    def hears(self, kind: type[M], whom: str, handler: Handler[M]) -> None:
        """Call ``handler`` for each sentence of this kind about ``whom`` (``*`` for everybody).

        One at a time and in order within a stream; at least once, so handlers are idempotent. ``Transient`` brings the
        message back later, ``Poison`` buries it with the reason, and so does a message that is no sentence at all.
        ``Mistake`` ends the service, and so does any other error: the message waits for the next start, and is buried
        when it has broken that many starts.
        """

    def follows(self, kind: type[M], whom: str, handler: Handler[M]) -> None:
        """As ``hears``, for a process that comes and goes beside others of its service's name: each of them hears for
        itself, from the newest event of this kind on, whenever that was said. The newest one comes again after a
        restart, and when the bus has lost the consumer.
        """

    async def start(self) -> None:
        """Connect, declare streams and consumers, begin to deliver.

        Raises:
            Mistake: the server refuses us or is too old.
        """

    async def stop(self) -> None:
        """Finish the delivery in hand, acknowledge it, disconnect."""

    async def publish(self, letter: Letter) -> None:
        """Return when a stream has stored the letter. Raises ``Transient`` or ``Poison``."""

    async def publish_all(self, letters: Sequence[Letter]) -> None:
        """Return when streams have stored all of these letters, each stream its own in this order. Raises ``Transient``
        when some may be stored and others not, ``Poison`` when one of them never can be."""

    async def store_identity(self) -> str:
        """Names the store behind the bus; another name means that the old store's messages are gone."""

    @property
    def ready(self) -> bool:
        """Whether the service is connected and its consumers stand."""


@dataclass(frozen=True)
class Hearing:
    """What one consumer of a service takes from one stream."""

    stream: str
    subjects: tuple[str, ...]
    newest: bool = False
    """A consumer of this process alone, which begins with the newest message of each subject."""


class Ears:
    """Who handles what: the registry that every bus shares."""

    def __init__(self) -> None:
        self._handlers: dict[type[Message], Handler[Any]] = {}
        self._subjects: dict[tuple[str, bool], list[str]] = {}

    def hears(self, kind: type[M], whom: str, handler: Handler[M]) -> None:
        """Register; one handler per kind.

        Raises:
            ValueError: the kind has a handler already.
        """
        self._register(kind, whom, handler, newest=False)

    def follows(self, kind: type[M], whom: str, handler: Handler[M]) -> None:
        """Register, from the newest on.

        Raises:
            ValueError: the kind has a handler already, or is a command, which one process alone may take.
        """
        if is_command(kind):
            raise ValueError(f"{kind.__name__} is a command: hear it")
        self._register(kind, whom, handler, newest=True)

    def hearings(self) -> Sequence[Hearing]:
        """The consumers that this service needs."""
        return [
            Hearing(stream, tuple(sorted(subjects)), newest)
            for (stream, newest), subjects in sorted(self._subjects.items())
        ]

    async def handle(self, message: Message) -> None:
        """Give a sentence to its handler; a kind that nobody hears is none of this service's business."""
        handler = self._handlers.get(type(message))
        if handler is not None:
            await handler(message)

    def _register(self, kind: type[M], whom: str, handler: Handler[M], newest: bool) -> None:
        if kind in self._handlers:
            raise ValueError(f"{kind.__name__} is heard already")
        self._handlers[kind] = handler
        self._subjects.setdefault((stream_for(kind), newest), []).append(subject_for(kind, whom))


def rest(error: Transient, delivery: int) -> timedelta:
    """How long a message rests after a failed delivery: as the handler asked, else backing off."""
    return back_off(delivery) if error.retry_after is None else error.retry_after


def back_off(delivery: int) -> timedelta:
    """How long a message rests after its n-th failed delivery: 0.2 s, doubled each time, at most 30 s."""
    return timedelta(seconds=min(30.0, 0.2 * 2 ** min(delivery - 1, 10)))


def buried(service: str, letter: Letter, reason: str) -> Letter:
    """The dead letter of what a service could not handle. Burying it twice is burying it once."""
    headers = {**letter.headers, DEAD_REASON: json.dumps(reason)[1:-1][:500]}
    if letter.id:
        headers[MESSAGE_ID] = f"dead-{service}-{letter.id}"
    return Letter(dead_subject(service, letter.subject), headers, letter.body)


def messaging(operation: str, letter: Letter, service: str | None = None) -> dict[str, str | int | None]:
    """Span attributes of the OpenTelemetry messaging conventions; ``service`` is the one that hears."""
    return {
        "messaging.system": "nats",
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": letter.subject,
        "messaging.consumer.group.name": service,
        "messaging.message.id": letter.id,
        "messaging.message.body.size": len(letter.body),
    }


def broken(subject: str, error: Exception) -> Mistake:
    """What ends a service whose handler raised what no handler should."""
    return Mistake(f"the handler of {subject} broke: {error!r}", "See the log above", ExitCode.FAILED)
