"""Where sentences travel: subjects, streams and the consumers of each service. Constants, never settings.

A subject is ``windfall.v1.<noun>.<verb>.<whom>`` for an event and ``windfall.v1.command.<service>.<verb>.<whom>`` for a
command. The hub and every site run a JetStream domain of their own with the same three streams:

* ``EVENTS`` holds what was said in the domain; the hub's also sources every site's, which therefore takes the facts
  that may leave the site (``windfall.contracts.leaving``) and no other.
* ``COMMANDS`` is the work queue of the domain's services; a site's also sources the hub's ``ORDERS`` for that site.
* ``DEAD`` holds what could not be handled, until a person reads, replays or drops it.

The hub has one more, ``ORDERS``: commands for sites, from which each site takes its own.

No stream takes the lines of a service's log, and no leaf connection lets them through: they are for whoever asks at the
service's own server (``windfall.contracts.logs``).
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final

from windfall.contracts.commands import COMMANDS
from windfall.contracts.events import EVENTS
from windfall.contracts.leaving import FACTS
from windfall.contracts.message import Message

PREFIX: Final = "windfall.v1"
DEAD_PREFIX: Final = "windfall.dead"
EVERYTHING: Final = "windfall.>"
"""What a leaf connection denies in both directions: facts cross domains by sourcing, never by core routing."""
DELIVERED: Final = "_DELIVERED"
"""Under ``_DELIVERED.<to>.<from>`` a stream's source delivers from one domain into another: names that a server can
allow to these two alone."""
HUB: Final = "hub"
"""JetStream domain of the hub; no site may have this name."""

SITE_SERVICES: Final = ("energy-watcher", "provisioner", "profiler", "site-trainer")
HUB_SERVICES: Final = ("federation-coordinator",)

LOGS: Final = "windfall.logs"
"""Under it a service is asked for its log, and answers. It lies under ``EVERYTHING``, so it ends at its own server."""

MAX_MESSAGE_BYTES: Final = 256 * 1024
"""Largest body on the bus. Weights and data never travel there, so nothing honest comes near it."""


class Retention(StrEnum):
    """How a stream lets go of messages."""

    LIMITS = "limits"
    WORK_QUEUE = "workqueue"


@dataclass(frozen=True)
class Source:
    """A stream of another domain that flows into this one."""

    stream: str
    domain: str
    deliver: str
    """Prefix of the subjects on which it does."""
    filter_subject: str | None = None


@dataclass(frozen=True)
class StreamSpec:
    """A stream as code declares it: file storage, bounded, with a duplicate window for message ids."""

    name: str
    subjects: tuple[str, ...]
    retention: Retention
    max_bytes: int
    max_age: timedelta
    discard_new: bool
    """True pushes back on the speaker when the stream is full; False drops the oldest."""
    duplicate_window: timedelta = timedelta(hours=1)
    sources: tuple[Source, ...] = ()

    def takes(self, subject: str) -> bool:
        """Whether it keeps what is said on this subject."""
        return any(matches(pattern, subject) for pattern in self.subjects)


EVENTS_STREAM: Final = "EVENTS"
COMMANDS_STREAM: Final = "COMMANDS"
ORDERS_STREAM: Final = "ORDERS"
DEAD_STREAM: Final = "DEAD"
LEASES_BUCKET: Final = "WINDFALL_LEASES"
"""Key-value bucket of the hub: who leads, where several processes of a service could."""

_MIB = 1024 * 1024
_EVENTS_SUBJECT = f"{PREFIX}.*.*.*"


def site_streams(site: str) -> tuple[StreamSpec, ...]:
    """The streams of a site's own domain.

    Raises:
        ValueError: the site carries the hub's name.
    """
    if site == HUB:
        raise ValueError(f"a site cannot be called {HUB!r}: that is the hub's domain")
    orders = Source(ORDERS_STREAM, HUB, f"{DELIVERED}.{site}.{HUB}", f"{PREFIX}.command.*.*.{site}")
    own = tuple(f"{PREFIX}.command.{service}.*.*" for service in SITE_SERVICES)
    facts = tuple(f"{PREFIX}.{topic}.{site}" for topic in FACTS)
    return (
        _events(facts, ()),
        _commands(own, (orders,)),
        _dead(),
    )


def hub_streams(sites: tuple[str, ...]) -> tuple[StreamSpec, ...]:
    """The streams of the hub's domain, which sources the events of these sites.

    Raises:
        ValueError: a site carries the hub's name, or two carry the same.
    """
    if HUB in sites:
        raise ValueError(f"a site cannot be called {HUB!r}: that is the hub's domain")
    if twice := sorted({site for site in sites if sites.count(site) > 1}):
        raise ValueError(f"two sites are called {', '.join(twice)}")
    own = tuple(f"{PREFIX}.command.{service}.*.*" for service in HUB_SERVICES)
    orders = tuple(f"{PREFIX}.command.{service}.*.*" for service in SITE_SERVICES)
    return (
        _events((_EVENTS_SUBJECT,), tuple(Source(EVENTS_STREAM, site, f"{DELIVERED}.{HUB}.{site}") for site in sites)),
        _commands(own, ()),
        StreamSpec(ORDERS_STREAM, orders, Retention.LIMITS, 64 * _MIB, timedelta(days=1), discard_new=True),
        _dead(),
    )


def _events(subjects: tuple[str, ...], sources: tuple[Source, ...]) -> StreamSpec:
    return StreamSpec(
        EVENTS_STREAM,
        subjects,
        Retention.LIMITS,
        256 * _MIB,
        timedelta(days=30),
        discard_new=False,
        sources=sources,
    )


def _commands(subjects: tuple[str, ...], sources: tuple[Source, ...]) -> StreamSpec:
    return StreamSpec(
        COMMANDS_STREAM,
        subjects,
        Retention.WORK_QUEUE,
        64 * _MIB,
        timedelta(days=1),
        discard_new=True,
        sources=sources,
    )


def _dead() -> StreamSpec:
    return StreamSpec(
        DEAD_STREAM,
        (f"{DEAD_PREFIX}.>",),
        Retention.LIMITS,
        64 * _MIB,
        timedelta(days=30),
        discard_new=False,
    )


KINDS: Final[dict[str, type[Message]]] = {kind.topic: kind for kind in (*EVENTS, *COMMANDS)}
"""Every sentence by its topic."""


@lru_cache(maxsize=4096)
def matches(pattern: str, subject: str) -> bool:
    """NATS subject matching: ``*`` is one token, a last ``>`` is one or more."""
    wanted, given = pattern.split("."), subject.split(".")
    for position, part in enumerate(wanted):
        if part == ">":
            return len(given) > position
        if position >= len(given) or part not in ("*", given[position]):
            return False
    return len(wanted) == len(given)


def is_command(kind: type[Message]) -> bool:
    """Whether a sentence is an order (one addressee, work queue) rather than a fact."""
    return kind in COMMANDS


def subject_for(kind: type[Message], whom: str) -> str:
    """The subject on which this kind of sentence about ``whom`` travels; ``*`` for everybody."""
    middle = f"command.{kind.topic}" if is_command(kind) else kind.topic
    return f"{PREFIX}.{middle}.{whom}"


def subject_of(message: Message) -> str:
    """The subject of one sentence."""
    return subject_for(type(message), message.whom)


def stream_for(kind: type[Message]) -> str:
    """The stream of its own domain in which a service hears this kind of sentence."""
    return COMMANDS_STREAM if is_command(kind) else EVENTS_STREAM


def type_of(kind: type[Message]) -> str:
    """The CloudEvents ``type`` of a sentence: its subject without whom it concerns."""
    return subject_for(kind, "").removesuffix(".")


def dead_subject(consumer: str, subject: str) -> str:
    """Where a sentence that ``consumer`` could not handle is kept."""
    return f"{DEAD_PREFIX}.{consumer}.{subject}"


def log_asked(service: str) -> str:
    """Where a service is asked for the lines of its log."""
    return f"{LOGS}.asked.{service}"


def log_told(service: str, token: str) -> str:
    """Where it tells them to whoever asked under this token; ``*`` for everybody, of a service or of a token.

    It is no inbox: those of a hub and of a site are heard by each other.
    """
    return f"{LOGS}.told.{service}.{token}"
