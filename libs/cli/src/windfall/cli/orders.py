"""``windfall drain|cordon|uncordon SITE``, ``windfall pause|resume|stop|rollback FEDERATION``: a person's orders."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

import windfall.servicekit.websockets_later  # noqa: F401 -- before nats-py

# isort: split
import nats.errors
from nats.aio.client import Client

from windfall.cli.events import SOURCE
from windfall.cli.nearest import near
from windfall.cli.server import connection, known_sites, store
from windfall.contracts.commands import (
    CordonSite,
    PauseFederation,
    ReadmitSite,
    ReleaseNode,
    ResumeFederation,
    RollBack,
    StopFederation,
    UncordonSite,
)
from windfall.contracts.envelope import seal
from windfall.contracts.message import Message
from windfall.contracts.subjects import COMMANDS_STREAM, subject_for
from windfall.servicekit.errors import ExitCode, Mistake


def draining(site: str, reason: str) -> tuple[Message, ...]:
    """No more leases, and the one that is held is given back when what was trained is delivered."""
    return (*cordoning(site, reason), ReleaseNode(id=uuid4(), at=_now(), site=site, reason=reason))


def cordoning(site: str, reason: str) -> tuple[Message, ...]:
    """No more leases; what is held is kept."""
    return (CordonSite(id=uuid4(), at=_now(), site=site, reason=reason),)


def uncordoning(site: str, reason: str) -> tuple[Message, ...]:
    """Leases again."""
    return (UncordonSite(id=uuid4(), at=_now(), site=site, reason=reason),)


def stopping(federation: str, reason: str) -> tuple[Message, ...]:
    """The running round is finished, the final model written, and nothing more begun."""
    return (StopFederation(id=uuid4(), at=_now(), federation=federation, reason=reason),)


def pausing(federation: str, reason: str) -> tuple[Message, ...]:
    """The running round is finished, and no other begun until it is resumed."""
    return (PauseFederation(id=uuid4(), at=_now(), federation=federation, reason=reason),)


def resuming(federation: str, reason: str) -> tuple[Message, ...]:
    """Rounds again, from where it was paused."""
    return (ResumeFederation(id=uuid4(), at=_now(), federation=federation, reason=reason),)


def rolling_back(federation: str, reason: str) -> tuple[Message, ...]:
    """On from the best model; what came after it is not kept."""
    return (RollBack(id=uuid4(), at=_now(), federation=federation, reason=reason),)


def readmitting(federation: str, site: str, reason: str) -> tuple[Message, ...]:
    """A site that was shut out may join again."""
    return (ReadmitSite(id=uuid4(), at=_now(), federation=federation, member=site, reason=reason),)


async def give(url: str, orders: Sequence[Message], site: str = "", federation: str = "") -> None:
    """Have a server keep orders until their addressee takes them.

    Args:
        site: whom they concern, if the server must know it.
        federation: whom they concern; where coordinators take orders here, one of them must be its own.

    Raises:
        Mistake: the server cannot be used, or does not know the site or the federation.
    """
    async with connection(url) as client:
        known = await known_sites(client)
        if site and site not in known:
            raise Mistake(f"unknown site {site!r}", near(site, list(known)))
        # Where none has started yet, an order waits for whichever comes.
        if federation and (heeded := await _heeded(client)) and federation not in heeded:
            raise Mistake(f"no coordinator here takes orders for {federation!r}", near(federation, heeded))
        for order in orders:
            await store(client, seal(order, SOURCE))


async def _heeded(client: Client) -> list[str]:
    """Federations whose orders some coordinator of this server's domain hears, running or not."""
    try:
        consumers = await client.jetstream().consumers_info(COMMANDS_STREAM)
    except (TimeoutError, nats.errors.Error) as error:
        raise Mistake(
            f"the server does not say who takes orders ({error or type(error).__name__})",
            "Speak to the hub's server when its services have started, with a key that may ask it",
            ExitCode.SERVER,
        ) from error
    prefix = subject_for(StopFederation, "")
    subjects = [
        one for found in consumers for one in found.config.filter_subjects or [found.config.filter_subject or ""]
    ]
    return sorted({one.removeprefix(prefix) for one in subjects if one.startswith(prefix)})


def _now() -> datetime:
    return datetime.now(UTC)
