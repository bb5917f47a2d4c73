"""Whom a hub lets in, as rows: sites that are enrolled or wait, what was done about them, and tenants."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from windfall.cli.resources.resource import Resource, Rows
from windfall.contracts.message import Message
from windfall.contracts.tenancy import DEFAULT

_Columns = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Enrolled:
    """A site that belongs to the fleet."""

    name: str
    tenant: str
    since: datetime
    certificates_until: datetime
    """When the first of them ends, if nobody renews it."""


@dataclass(frozen=True)
class Waiting:
    """A site that asks to be let in."""

    name: str
    asked_at: datetime
    keys: str
    """Digest of the public keys that it showed."""


@dataclass(frozen=True)
class Deed:
    """What was asked or done about a site."""

    name: str
    """The site."""
    at: datetime
    what: str
    detail: str


@dataclass(frozen=True)
class Tenant:
    """Who has sites at this hub."""

    name: str
    sites: tuple[str, ...]
    federation: str
    coordinator: str
    bytes_room: int | None
    """That its streams may store; none where the hub's own settings say it."""
    lent: tuple[str, ...]
    """Facts of others that it hears, as ``lender:fact``."""


def enrolled(roster: Mapping[str, Any]) -> list[Enrolled]:
    """By name."""
    return [
        Enrolled(one["site"], one["tenant"], _instant(one["since"]), _instant(one["until"]))
        for one in roster["members"]
    ]


def waiting(roster: Mapping[str, Any]) -> list[Waiting]:
    """By name."""
    return [Waiting(one["site"], _instant(one["asked_at"]), one["keys"]) for one in roster["waiting"]]


def history(roster: Mapping[str, Any]) -> list[Deed]:
    """Oldest first."""
    return [Deed(one["site"], _instant(one["at"]), one["what"], one["detail"]) for one in roster["history"]]


def tenants(told: Mapping[str, Any]) -> list[Tenant]:
    """The default one first, the others by name."""
    return [_tenant(name, told) for name in (DEFAULT, *told["tenants"])]


def _tenant(name: str, told: Mapping[str, Any]) -> Tenant:
    about = told["tenants"].get(name, {})
    return Tenant(
        name,
        tuple(site for site, whose in told["sites"].items() if whose == name),
        about.get("federation", ""),
        about.get("coordinator", ""),
        about.get("max_bytes"),
        tuple(f"{one['lender']}:{one['fact']}" for one in told["loans"] if one["borrower"] == name),
    )


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _of(name: str, kind: str, row: type, empty: str, columns: _Columns, wide: _Columns = ()) -> Resource:
    return Resource(name, kind, (), row, columns, wide, (), _nothing, newest=False, empty=empty)


def _nothing(_: Rows, __: Message) -> None:
    """No event makes a row here: the hub's register itself is asked."""


ENROLLED: Final = _of(
    "sites",
    "EnrolledSite",
    Enrolled,
    "no site is enrolled yet. `windfall site token SITE` lets one ask",
    (("site", "name"), ("since", "since"), ("certificates until", "certificates_until")),
    (("tenant", "tenant"),),
)
WAITING: Final = _of(
    "requests",
    "EnrolmentRequest",
    Waiting,
    "no site waits to be approved",
    (("site", "name"), ("asked", "asked_at"), ("keys", "keys")),
)
HISTORY: Final = _of(
    "history",
    "EnrolmentEntry",
    Deed,
    "nothing was asked yet. `windfall site token SITE` lets a site ask",
    (("at", "at"), ("site", "name"), ("what", "what"), ("detail", "detail")),
)
TENANTS: Final = _of(
    "tenants",
    "Tenant",
    Tenant,
    "nobody is here",
    (("tenant", "name"), ("sites", "sites"), ("federation", "federation"), ("coordinator", "coordinator"),
     ("room", "bytes_room"), ("hears of others", "lent")),
)  # fmt: skip
