"""What the owner of a site allows its trainer, whatever a coordinator says. Pure.

Each question has an answer in one line, naming the line of the policy that forbids; an empty answer forbids nothing.
"""

import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from math import inf
from typing import Annotated, Final, Self
from zoneinfo import ZoneInfo

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from windfall.contracts.jurisdiction import Jurisdiction, within
from windfall.contracts.message import Name
from windfall.contracts.v1 import training_pb2 as pb
from windfall.lowcomm.accounting import epsilon_of, mu_squared

FINEST_LOSS: Final = 0.01
"""Nats: what the protocol promises, whatever a policy says."""

_HOURS: Final = re.compile(r"(\d\d:\d\d)-(\d\d:\d\d)")


@dataclass(frozen=True)
class Hours:
    """From a time of the day until another, which may be that of the next day."""

    begin: time
    end: time

    def __str__(self) -> str:
        return f"{self.begin:%H:%M}-{self.end:%H:%M}"

    def __contains__(self, at: time) -> bool:
        if self.begin < self.end:
            return self.begin <= at < self.end
        return at >= self.begin or at < self.end


def _hours(given: object) -> object:
    if not isinstance(given, str):
        return given
    found = _HOURS.fullmatch(given)
    if found is None or found[1] == found[2]:
        raise ValueError(f"{given!r} is no span of a day like '22:00-06:00'")
    return Hours(time.fromisoformat(found[1]), time.fromisoformat(found[2]))


class Privacy(BaseModel):
    """Differential privacy of what a site says: each contribution is cut to a norm and has Gaussian noise."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    norm: float = Field(gt=0)
    """Euclidean: a longer contribution is cut down to it."""
    noise: float = Field(gt=0)
    """Standard deviation of the noise in every parameter, as a multiple of ``norm``."""
    most_epsilon: float = Field(gt=0)
    """The budget: a contribution that would make epsilon more than this does not leave."""
    delta: float = Field(default=1e-5, gt=0, lt=1)
    """That epsilon goes with."""


class Told(BaseModel):
    """What all contributions of a site tell of its data."""

    model_config = ConfigDict(frozen=True)

    mu_squared: float = 0.0
    """See ``windfall.lowcomm.accounting``."""


class SitePolicy(BaseModel):
    """What may be joined, trained and sent. A list that is absent allows anything, an empty one nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    federations: tuple[Name, ...] | None = None
    """Federations that may be joined."""
    coordinators: tuple[str, ...] | None = None
    """Hosts of the coordinators that may be joined, as in ``WINDFALL_COORDINATOR`` without the port. Beyond loopback
    TLS must be on: it holds the host against the coordinator's certificate."""
    tasks: tuple[str, ...] | None = None
    """Tasks that may be trained."""
    codecs: tuple[str, ...] | None = None
    """Codecs in which contributions may be written."""
    jurisdiction: Jurisdiction | None = None
    """Under whose law the site lies; it is said when it joins."""
    jurisdictions: tuple[Jurisdiction, ...] | None = None
    """Where the coordinator, and everybody whom its federation admits, must lie; ``CA`` takes ``CA-QC`` in."""
    least_tokens: int = Field(default=1, ge=1)
    """Tokens behind a contribution, and behind what a heartbeat counts, at least: nothing leaves that follows from a
    few samples."""
    loss_bucket: float = Field(default=FINEST_LOSS, ge=FINEST_LOSS, le=10)
    """Nats: the loss that is told is a multiple of it."""
    most_contributions_per_day: int | None = Field(default=None, ge=0)
    most_bytes_per_day: int | None = Field(default=None, ge=0)
    """Of contributions."""
    privacy: Privacy | None = None
    """None adds no noise."""
    quiet: tuple[Annotated[Hours, BeforeValidator(_hours)], ...] = ()
    """Hours in which the trainer sends nothing, like ``22:00-06:00``: it delivers and leaves before they begin."""
    zone: str = "UTC"
    """Whose hours and days are meant, like ``America/Toronto``."""

    @field_validator("zone")
    @classmethod
    def _known(cls, zone: str) -> str:
        try:
            ZoneInfo(zone)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError(f"there is no time zone {zone!r}") from error
        return zone

    @model_validator(mode="after")
    def _lies_somewhere_allowed(self) -> Self:
        if self.jurisdiction and self.jurisdictions is not None and not within(self.jurisdiction, self.jurisdictions):
            raise ValueError(f"the site's own {self.jurisdiction} is not within its jurisdictions")
        return self


class Sent(BaseModel):
    """What has left on one day of the site."""

    model_config = ConfigDict(frozen=True)

    day: date
    contributions: int = 0
    bytes: int = 0
    last: str = ""
    """SHA-256 of the last contribution: one that sets out again is counted once."""


@dataclass(frozen=True)
class Offer:
    """Whom a trainer was told to join."""

    federation: str
    host: str
    """Of the coordinator."""
    loopback: bool
    tls: bool


def before_join(policy: SitePolicy, offer: Offer, sent: Sent, now: datetime, told: Told = Told()) -> str:
    """Why the site does not ask to be admitted."""
    if policy.federations is not None and offer.federation not in policy.federations:
        return f"federations: {offer.federation} is none of {_listed(policy.federations)}"
    if policy.coordinators is not None:
        if offer.host not in policy.coordinators:
            return f"coordinators: this one is none of the {len(policy.coordinators)} that may be joined"
        if not offer.tls and not offer.loopback:
            return "coordinators: without TLS nobody knows which one it is"
    return _quiet(policy, now) or _used_up(policy, sent, now) or before_pack(policy, told)


def before_train(policy: SitePolicy, reply: pb.JoinReply, codec: str) -> str:
    """Why the site does not train what it is asked to.

    Args:
        codec: the name of the one that contributions would be written in.
    """
    if policy.tasks is not None and reply.task not in policy.tasks:
        return f"tasks: {reply.task[:40]!r} is none of {_listed(policy.tasks)}"
    if policy.codecs is not None and codec not in policy.codecs:
        return f"codecs: {codec[:40]!r} is none of {_listed(policy.codecs)}"
    if policy.jurisdictions is None:
        return ""
    if not within(reply.jurisdiction, policy.jurisdictions):
        where = repr(reply.jurisdiction[:40]) if reply.jurisdiction else "a coordinator that does not say where it lies"
        return f"jurisdictions: {where} is not within {_listed(policy.jurisdictions)}"
    return admitted(policy, tuple(reply.jurisdictions))


def admitted(policy: SitePolicy, jurisdictions: tuple[str, ...]) -> str:
    """Why the site does not train with everybody whom a federation of these jurisdictions admits."""
    if policy.jurisdictions is None:
        return ""
    if not jurisdictions:
        return "jurisdictions: the federation admits sites of any"
    for label in jurisdictions:
        if not within(label, policy.jurisdictions):
            return f"jurisdictions: the federation admits {label[:40]!r}, not within {_listed(policy.jurisdictions)}"
    return ""


def before_pack(policy: SitePolicy, told: Told) -> str:
    """Why nothing more is written of what was trained."""
    privacy = policy.privacy
    if privacy is None or (after := epsilon(policy, telling(policy, told))) <= privacy.most_epsilon:
        return ""
    return (
        f"privacy: with one more contribution epsilon would be {after:.3g} (delta {privacy.delta:g}), at most"
        f" {privacy.most_epsilon:g} may be told"
    )


def telling(policy: SitePolicy, told: Told) -> Told:
    """What is told with one more contribution."""
    if policy.privacy is None:
        return told
    return Told(mu_squared=told.mu_squared + mu_squared(policy.privacy.noise))


def epsilon(policy: SitePolicy, told: Told) -> float:
    """Of all that was told; infinite for a site without noise."""
    return inf if policy.privacy is None else epsilon_of(told.mu_squared, policy.privacy.delta)


def before_push(policy: SitePolicy, manifest: pb.Manifest, sent: Sent, now: datetime) -> str:
    """Why a contribution does not leave."""
    if policy.codecs is not None and manifest.codec not in policy.codecs:
        return f"codecs: {manifest.codec[:40]!r} is none of {_listed(policy.codecs)}"
    if manifest.tokens < policy.least_tokens:
        # How many they are is what must not leave, and why it was withheld does.
        return f"least_tokens: there are fewer than {policy.least_tokens}"
    if quiet := _quiet(policy, now):
        return quiet
    today = on_day(policy, sent, now)
    if manifest.sha256 == today.last:
        return ""
    most = policy.most_bytes_per_day
    if most is not None and today.bytes + manifest.total_bytes > most:
        return f"most_bytes_per_day: {manifest.total_bytes} bytes and the {today.bytes} of today are more than {most}"
    return _used_up(policy, sent, now)


def on_the_way(policy: SitePolicy, beat: pb.Beat) -> pb.Beat:
    """A heartbeat as it leaves: of less than ``least_tokens`` nothing is counted, only that the site trains."""
    if 0 < beat.tokens < policy.least_tokens:
        beat.tokens = beat.steps = 0
    return beat


def counted(policy: SitePolicy, manifest: pb.Manifest, sent: Sent, now: datetime) -> Sent:
    """A contribution sets out; the same one again is not counted again."""
    today = on_day(policy, sent, now)
    if manifest.sha256 == today.last:
        return today
    return Sent(
        day=today.day,
        contributions=today.contributions + 1,
        bytes=today.bytes + manifest.total_bytes,
        last=manifest.sha256,
    )


def bucketed(policy: SitePolicy, loss_nats: float) -> float:
    """The loss as it may be told: the nearest multiple of the bucket."""
    return round(round(loss_nats / policy.loss_bucket) * policy.loss_bucket, 6)


def on_day(policy: SitePolicy, sent: Sent | None, now: datetime) -> Sent:
    """What has left on the day of this instant. A clock that was set back begins no day anew."""
    today = now.astimezone(ZoneInfo(policy.zone)).date()
    return sent if sent is not None and sent.day >= today else Sent(day=today)


def until_quiet(policy: SitePolicy, now: datetime) -> timedelta | None:
    """How long the site may still speak; none when no quiet hours are declared, zero within them."""
    if not policy.quiet:
        return None
    here = now.astimezone(ZoneInfo(policy.zone))
    if _quiet(policy, now):
        return timedelta(0)
    begins = [
        datetime.combine(here.date() + timedelta(days=day), hours.begin, here.tzinfo)
        for hours in policy.quiet
        for day in (0, 1)
    ]
    return min(begin - now for begin in begins if begin > now)


def _quiet(policy: SitePolicy, now: datetime) -> str:
    here = now.astimezone(ZoneInfo(policy.zone))
    for hours in policy.quiet:
        if here.time() in hours:
            return f"quiet: nothing leaves from {hours.begin:%H:%M} to {hours.end:%H:%M} {policy.zone}"
    return ""


def _used_up(policy: SitePolicy, sent: Sent, now: datetime) -> str:
    today = on_day(policy, sent, now)
    most = policy.most_contributions_per_day
    if most is not None and today.contributions >= most:
        return f"most_contributions_per_day: {today.contributions} have left today, at most {most} may"
    if policy.most_bytes_per_day is not None and today.bytes >= policy.most_bytes_per_day:
        return f"most_bytes_per_day: {today.bytes} bytes have left today, at most {policy.most_bytes_per_day} may"
    return ""


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"
