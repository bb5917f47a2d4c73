"""What a NATS server lets each service and each site's leaf do, from who says and who hears what. Whatever is not here
is refused. Pure.

A service says its own sentences, buries what it cannot handle, declares the streams of its domain, and has consumers
under its own name and no other's. It hears through these alone: on no subject of ours may it listen, but on the one
where it is asked for its log, and its answers come where no other service listens.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from windfall.contracts.commands import COMMANDS, SiteCommand
from windfall.contracts.events import EVENTS, SiteEvent
from windfall.contracts.message import Message
from windfall.contracts.speaking import OPERATOR, hears, says
from windfall.contracts.subjects import (
    COMMANDS_STREAM,
    DEAD_PREFIX,
    DEAD_STREAM,
    DELIVERED,
    EVENTS_STREAM,
    HUB,
    HUB_SERVICES,
    LEASES_BUCKET,
    ORDERS_STREAM,
    PREFIX,
    SITE_SERVICES,
    log_asked,
    log_told,
    stream_for,
    subject_for,
)
from windfall.contracts.tenancy import Loan, lending_to

COMES_AND_GOES: Final = frozenset({"site-trainer", OPERATOR})
"""Each process of these follows events with a consumer of its own, whose name nobody knows before."""
INBOX: Final = "_INBOX"


@dataclass(frozen=True)
class Permissions:
    """Subjects, as a server's configuration has them."""

    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    withheld: tuple[str, ...] = ()
    """Of what ``publish`` allows, what it does not."""


def services_at(domain: str) -> tuple[str, ...]:
    """Who has a key at a domain's server, people aside."""
    return (*HUB_SERVICES, OPERATOR) if domain == HUB else SITE_SERVICES


def inbox_of(domain: str, service: str) -> str:
    """Prefix of the subjects on which a service's answers come."""
    return f"{INBOX}.{domain}.{service}"


def of_service(service: str, domain: str) -> Permissions:
    """What a service may do at its domain's server.

    Raises:
        ValueError: no such service speaks there.
    """
    if service not in services_at(domain):
        raise ValueError(f"{service!r} is no service of {'the hub' if domain == HUB else 'a site'}")
    elsewhere = "$JS.*.API.INFO" if domain == HUB else f"$JS.{HUB}.API.INFO"
    publish = (
        *(subject_for(kind, _whom(kind, domain)) for kind in said(service)),
        f"{DEAD_PREFIX}.{service}.>",
        "$JS.API.INFO",
        elsewhere,
        "$JS.API.STREAM.LIST",
        *(f"$JS.API.STREAM.{verb}.{stream}" for stream in _streams(service, domain) for verb in _DECLARING),
        *_hearing(service),
        *(_leases() if service in HUB_SERVICES else ()),
        *_telling(service),
    )
    return Permissions(publish, (f"{inbox_of(domain, service)}.>", *_asked(service)), tuple(_withheld(service, domain)))


def of_lender(loans: Iterable[Loan]) -> tuple[str, ...]:
    """What the coordinator of a tenant may say beyond :func:`of_service`: what is lent, and no more."""
    lent = tuple(loans)
    made = [loan.lent_as for loan in lent]
    for name in sorted({lending_to(loan.borrower) for loan in lent}):
        made += _consumer(EVENTS_STREAM, name)
    return tuple(made)


def of_leaf(site: str) -> Permissions:
    """What a site's server may do at the hub's: take its own orders, and deliver its own facts when it is asked."""
    return Permissions(
        publish=(
            f"$JS.{HUB}.API.INFO",
            f"$JS.{HUB}.API.CONSUMER.CREATE.{ORDERS_STREAM}.*.{PREFIX}.command.*.*.{site}",
            f"{DELIVERED}.{HUB}.{site}.>",
            f"{INBOX}.{HUB}.>",
            "$JSC.>",
            f"$JS.FC.{ORDERS_STREAM}.>",
        ),
        subscribe=(
            f"$JS.{site}.API.INFO",
            f"$JS.{site}.API.CONSUMER.CREATE.{EVENTS_STREAM}",
            f"$JS.{site}.API.CONSUMER.CREATE.{EVENTS_STREAM}.>",
            f"{DELIVERED}.{site}.{HUB}.>",
            f"{INBOX}.{site}.>",
            "$JSC.>",
            f"$JS.FC.{EVENTS_STREAM}.>",
        ),
    )


def said(service: str) -> Sequence[type[Message]]:
    """The sentences of a service."""
    return [kind for kind in (*EVENTS, *COMMANDS) if service in says(kind)]


def heard(service: str) -> Sequence[type[Message]]:
    """The sentences on which a service acts."""
    return [kind for kind in (*EVENTS, *COMMANDS) if service in hears(kind)]


_DECLARING: Final = ("INFO", "CREATE", "UPDATE")
_OF_A_CONSUMER: Final = ("CONSUMER.DURABLE.CREATE", "CONSUMER.CREATE", "CONSUMER.INFO", "CONSUMER.MSG.NEXT")


def _whom(kind: type[Message], domain: str) -> str:
    """At a site, what is said there is about that site; an order names whom it is for."""
    return domain if domain != HUB and issubclass(kind, SiteEvent | SiteCommand) else "*"


def _streams(service: str, domain: str) -> tuple[str, ...]:
    if service == OPERATOR:
        return ()
    own = (EVENTS_STREAM, COMMANDS_STREAM, DEAD_STREAM)
    return (*own, ORDERS_STREAM) if domain == HUB else own


def _hearing(service: str) -> Iterator[str]:
    streams = {stream_for(kind) for kind in heard(service)} | ({EVENTS_STREAM} if service in COMES_AND_GOES else set())
    for stream in sorted(streams):
        own = "*" if service in COMES_AND_GOES and stream == EVENTS_STREAM else service
        yield from _consumer(stream, own)


def _withheld(service: str, domain: str) -> Iterator[str]:
    """Where a process may name its consumer as it likes, it may not take another service's name."""
    if service in COMES_AND_GOES:
        for other in services_at(domain):
            if other not in COMES_AND_GOES:
                yield from _consumer(EVENTS_STREAM, other)


def _consumer(stream: str, name: str) -> Iterator[str]:
    yield from (f"$JS.API.{verb}.{stream}.{name}" for verb in _OF_A_CONSUMER)
    yield f"$JS.ACK.{stream}.{name}.>"


def _asked(service: str) -> tuple[str, ...]:
    """An operator of Kubernetes is read there."""
    return () if service == OPERATOR else (log_asked(service),)


def _telling(service: str) -> tuple[str, ...]:
    return () if service == OPERATOR else (log_told(service, "*"),)


def _leases() -> Iterator[str]:
    stream = f"KV_{LEASES_BUCKET}"
    yield f"$KV.{LEASES_BUCKET}.>"
    yield from (f"$JS.API.STREAM.{verb}.{stream}" for verb in ("INFO", "CREATE", "MSG.GET"))
    yield f"$JS.API.DIRECT.GET.{stream}.>"


def everybody(domain: str) -> Mapping[str, Permissions]:
    """Every service of a domain with what it may do."""
    return {service: of_service(service, domain) for service in services_at(domain)}
