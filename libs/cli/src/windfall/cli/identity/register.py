"""Who is enrolled, who asks to be, and by which token: decisions as pure functions over one frozen value.

Each gives the register after it. What it may not do it refuses with a cause and a cure; nothing is changed then.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from windfall.cli.identity.authority import SKEW
from windfall.contracts.message import Instant, Name
from windfall.contracts.tenancy import DEFAULT

TOKEN_LASTS: Final = timedelta(hours=24)
HISTORY: Final = 1000
"""Entries that are kept, the youngest."""


class Cause(StrEnum):
    """What kind of refusal it is."""

    TOKEN = "token"  # noqa: S105 - a kind, no secret
    CLOCK = "clock"
    REQUEST = "request"
    CERTIFICATE = "certificate"
    UNKNOWN = "unknown"


class Refusal(Exception):
    """The register says no, and why, in a line for a person."""

    def __init__(self, cause: Cause, reason: str, cure: str) -> None:
        super().__init__(f"{reason}. {cure}")
        self.cause, self.reason, self.cure = cause, reason, cure


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Token(Frozen):
    """A one-time token. Only the digest of its secret is known here."""

    site: Name
    digest: str
    expires_at: Instant
    used_for: str = ""
    """The keys that it was used for; with these alone it can be shown again."""
    tenant: Name = DEFAULT
    """Whose hub it joins."""
    owner: Name | None = None
    """Whose site it is; none: its own."""


class Wish(Frozen):
    """What a site asks for."""

    site: Name
    leaf_nkey: str
    requests: Mapping[str, str]
    """Signing requests by service, DER in base64."""

    @property
    def keys(self) -> str:
        """One name for all of its keys."""
        parts = (self.site, self.leaf_nkey, *(f"{name}={text}" for name, text in sorted(self.requests.items())))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class Waiting(Frozen):
    """A wish under a token that was good."""

    wish: Wish
    asked_at: Instant
    approved: bool
    tenant: Name = DEFAULT
    owner: Name | None = None


class Certified(Frozen):
    """A certificate of a site's, as it was issued."""

    service: str
    serial: str
    """Hexadecimal."""
    der: str
    """Base64."""
    until: Instant


class Member(Frozen):
    """An enrolled site."""

    wish: Wish
    since: Instant
    certificates: tuple[Certified, ...]
    tenant: Name = DEFAULT
    owner: Name | None = None


class Guest(Frozen):
    """A tenant beside the default one."""

    federation: Name
    coordinator: str
    """``host:port`` at which its sites find its coordinator."""
    keys: Mapping[str, str]
    """Public nkeys of its coordinator and its ``admin``."""
    max_bytes: int = Field(ge=1)
    """Of its streams."""
    since: Instant


class Lent(Frozen):
    """What one tenant lets another hear."""

    fact: str
    """``noun.verb.whom``."""
    lender: Name
    borrower: Name


class Entry(Frozen):
    """One line of the register's history."""

    at: Instant
    what: str
    site: Name
    """Or the tenant."""
    detail: str = ""


class Register(Frozen):
    """Everything that the hub knows of who belongs to the fleet."""

    tokens: Mapping[str, Token] = Field(default_factory=dict)
    """By digest."""
    waiting: Mapping[str, Waiting] = Field(default_factory=dict)
    """By site."""
    members: Mapping[str, Member] = Field(default_factory=dict)
    revoked: Mapping[str, Instant] = Field(default_factory=dict)
    """Serials of certificates that no longer count, until they would have ended anyway."""
    history: tuple[Entry, ...] = ()
    tenants: Mapping[str, Guest] = Field(default_factory=dict)
    """Those beside the default one, by name."""
    loans: tuple[Lent, ...] = ()


def give_token(
    register: Register,
    site: str,
    digest: str,
    now: datetime,
    lasts: timedelta,
    tenant: str = DEFAULT,
    owner: str | None = None,
) -> Register:
    """A token for a site; one that was given to it before and not used holds no longer.

    Args:
        owner: whose site it is; none: its own.

    Raises:
        Refusal: there is no such tenant, or the site is another's.
    """
    if tenant != DEFAULT and tenant not in register.tenants:
        raise Refusal(Cause.UNKNOWN, f"no tenant {tenant} is here", "`windfall tenant list` shows who is there")
    before = register.members.get(site)
    if before is not None and before.tenant != tenant:
        raise Refusal(Cause.REQUEST, f"{site} is a site of {before.tenant}", "Name the site otherwise")
    kept = {key: token for key, token in register.tokens.items() if token.site != site or token.used_for}
    token = Token(site=site, digest=digest, expires_at=now + lasts, tenant=tenant, owner=owner)
    return noted(
        register, now, "token", site, f"until {token.expires_at:%Y-%m-%d %H:%M}Z", tokens={**kept, digest: token}
    )


def ask(
    register: Register, wish: Wish, digest: str, now: datetime, theirs: datetime, *, automatic: bool
) -> tuple[Register, bool]:
    """A site shows its token and asks to be enrolled; whether it may be admitted now, too.

    Args:
        digest: of the token's secret.
        theirs: the site's clock.
        automatic: nobody need approve.

    Raises:
        Refusal: the token does not hold for this, or the clocks are apart.
    """
    _same_time(now, theirs)
    token = register.tokens.get(digest)
    if token is None:
        raise Refusal(Cause.TOKEN, "this hub gave no such token", _ANOTHER.format(site=wish.site))
    if token.site != wish.site:
        raise Refusal(
            Cause.TOKEN, f"the token is for {token.site}, not for {wish.site}", _ANOTHER.format(site=wish.site)
        )
    if token.used_for and token.used_for != wish.keys:
        raise Refusal(Cause.TOKEN, "the token was used already, with other keys", _ANOTHER.format(site=wish.site))
    if token.used_for:
        return register, _admissible(register, wish)
    if now >= token.expires_at:
        raise Refusal(
            Cause.TOKEN, f"the token expired at {token.expires_at:%Y-%m-%d %H:%M}Z", _ANOTHER.format(site=wish.site)
        )
    if any(one.wish.leaf_nkey == wish.leaf_nkey for name, one in register.members.items() if name != wish.site):
        raise Refusal(Cause.REQUEST, "the key of its NATS server is another site's", "Make new keys and join again")
    used = token.model_copy(update={"used_for": wish.keys})
    waiting = Waiting(wish=wish, asked_at=now, approved=automatic, tenant=token.tenant, owner=token.owner)
    after = noted(
        register,
        now,
        "asked",
        wish.site,
        tokens={**register.tokens, digest: used},
        waiting={**register.waiting, wish.site: waiting},
    )
    return after, automatic


def approve(register: Register, site: str, now: datetime) -> Register:
    """A person lets a site in that waits.

    Raises:
        Refusal: none of this name does.
    """
    waiting = register.waiting.get(site)
    if waiting is None:
        raise Refusal(Cause.UNKNOWN, f"no site {site} asks to be enrolled", "`windfall site requests` lists who does")
    approved = {**register.waiting, site: waiting.model_copy(update={"approved": True})}
    return noted(register, now, "approved", site, waiting=approved)


def admit(register: Register, site: str, certificates: Iterable[Certified], now: datetime) -> Register:
    """An approved site has its certificates; those that it had before no longer count."""
    waiting = register.waiting[site]
    assert waiting.approved, "asked before"
    before = register.members.get(site)
    kept = {"tenant": waiting.tenant, "owner": waiting.owner}
    member = Member.model_validate({"wish": waiting.wish, "since": now, "certificates": tuple(certificates), **kept})
    return noted(
        register,
        now,
        "enrolled",
        site,
        waiting={name: one for name, one in register.waiting.items() if name != site},
        members={**register.members, site: member},
        revoked=_without(register, before, now),
    )


def holder(register: Register, serial: str, now: datetime) -> tuple[str, Certified]:
    """Whose certificate that is, and which.

    Raises:
        Refusal: it does not count.
    """
    if serial not in register.revoked:
        for site, member in register.members.items():
            for one in member.certificates:
                if one.serial == serial and now < one.until:
                    return site, one
    raise Refusal(
        Cause.CERTIFICATE,
        "this certificate is revoked, has ended or is not one of this hub's",
        "Ask whoever runs the hub for a token, and join again",
    )


def renewed(register: Register, site: str, certified: Certified, now: datetime) -> Register:
    """One more certificate of a service; the one before holds until it ends."""
    member = register.members[site]
    kept = tuple(one for one in member.certificates if now < one.until)
    after = member.model_copy(update={"certificates": (*kept, certified)})
    return noted(register, now, "renewed", site, certified.service, members={**register.members, site: after})


def revoke(register: Register, site: str, reason: str, now: datetime) -> Register:
    """Nothing of a site's counts any longer: certificates, keys, tokens and wishes.

    Raises:
        Refusal: there is nothing of this name.
    """
    member = register.members.get(site)
    if member is None and site not in register.waiting and not _unused(register, site):
        raise Refusal(Cause.UNKNOWN, f"no site {site} is enrolled", "`windfall site list` shows who is")
    return noted(
        register,
        now,
        "revoked",
        site,
        reason,
        tokens={key: token for key, token in register.tokens.items() if token.site != site},
        waiting={name: one for name, one in register.waiting.items() if name != site},
        members={name: one for name, one in register.members.items() if name != site},
        revoked=_without(register, member, now),
    )


_ANOTHER: Final = "Ask whoever runs the hub for another one (`windfall site token {site}`)"


def _same_time(now: datetime, theirs: datetime) -> None:
    apart = abs(now - theirs)
    if apart > SKEW:
        which = "behind" if theirs < now else "ahead of"
        raise Refusal(
            Cause.CLOCK,
            f"the site's clock is {apart.total_seconds() / 60:.0f} min {which} the hub's, which says {now:%H:%M:%S}Z",
            "Set the clock that is wrong (NTP) and join again",
        )


def _admissible(register: Register, wish: Wish) -> bool:
    member, waiting = register.members.get(wish.site), register.waiting.get(wish.site)
    if waiting is not None and waiting.wish.keys == wish.keys:
        return waiting.approved
    return member is not None and member.wish.keys == wish.keys


def _unused(register: Register, site: str) -> bool:
    return any(token.site == site and not token.used_for for token in register.tokens.values())


def _without(register: Register, member: Member | None, now: datetime) -> Mapping[str, datetime]:
    """What is revoked once a member's certificates are; those that have ended are not kept."""
    theirs = {one.serial: one.until for one in member.certificates} if member else {}
    return {serial: until for serial, until in {**register.revoked, **theirs}.items() if until > now}


def noted(register: Register, now: datetime, what: str, site: str, detail: str = "", **changed: object) -> Register:
    """The register with these parts changed, and a line of its history about it."""
    entry = Entry(at=now, what=what, site=site, detail=detail)
    history = (*register.history, entry)[-HISTORY:]
    return register.model_copy(update={**changed, "history": history})
