"""``windfall links``: the link matrix of a fleet, from whom to whom, as its sites measured it last.

Nobody keeps it: it is a fold over the events that the hub's stream holds, the same for whoever reads them.
"""

from collections.abc import Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import nats.js.errors
from nats.aio.client import Client

from windfall.cli.server import connection, letters
from windfall.contracts.envelope import Unreadable, unseal
from windfall.contracts.events import LinkDegraded, LinkMeasured, LinkRecovered, NodeProfiled
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, HUB, subject_for

_KINDS: Final = (NodeProfiled, LinkMeasured, LinkDegraded, LinkRecovered)


@dataclass(frozen=True)
class Measured:
    """One way. What could not be measured is what it was before; none before there was anything."""

    site: str
    target: str
    at: datetime
    rtt_ms: float | None = None
    jitter_ms: float | None = None
    up_mb_per_s: float | None = None
    down_mb_per_s: float | None = None
    degraded: tuple[str, ...] = ()
    """Parts that are out of their band."""


Matrix = Mapping[tuple[str, str], Measured]
"""By site and target."""


def heard(matrix: Matrix, message: Message) -> Matrix:
    """The matrix after one event."""
    match message:
        case NodeProfiled():
            found = message.measured
            told = found.link_rtt_ms, None, found.link_up_mb_per_s, found.link_down_mb_per_s
            return _measured(matrix, message.site, HUB, message.at, told)
        case LinkMeasured():
            parts = message.rtt_ms, message.jitter_ms, message.up_mb_per_s, message.down_mb_per_s
            return _measured(matrix, message.site, message.target, message.at, parts)
        case LinkDegraded() | LinkRecovered():
            before = _known(matrix, message.site, message.target, message.at)
            others = tuple(part for part in before.degraded if part != message.part)
            after = (*others, message.part) if isinstance(message, LinkDegraded) else others
            key = message.site, message.target
            return {**matrix, key: replace(before, degraded=tuple(sorted(after)))}
        case _:
            return matrix


def matrix_of(messages: Iterable[Message]) -> Matrix:
    """What events say, in their order."""
    matrix: Matrix = {}
    for message in messages:
        matrix = heard(matrix, message)
    return matrix


async def read(url: str) -> Matrix:
    """The matrix as a server's events have it now.

    Raises:
        Mistake: the server cannot be used.
    """
    subjects = [subject_for(kind, "*") for kind in _KINDS]
    async with connection(url) as client:
        newest = max([await _newest(client, subject) for subject in subjects])
        matrix: Matrix = {}
        if not newest:
            return matrix
        async with aclosing(letters(client, EVENTS_STREAM, subjects)) as stream:
            async for stored in stream:
                with suppress(Unreadable):  # `windfall events tail` shows what is none
                    matrix = heard(matrix, unseal(stored.letter))
                if stored.sequence >= newest:
                    break
        return matrix


def _measured(matrix: Matrix, site: str, target: str, at: datetime, parts: tuple[float | None, ...]) -> Matrix:
    before = _known(matrix, site, target, at)
    old = before.rtt_ms, before.jitter_ms, before.up_mb_per_s, before.down_mb_per_s
    rtt, jitter, up, down = (was if now is None else now for was, now in zip(old, parts, strict=True))
    after = replace(before, at=at, rtt_ms=rtt, jitter_ms=jitter, up_mb_per_s=up, down_mb_per_s=down)
    return {**matrix, (site, target): after}


def _known(matrix: Matrix, site: str, target: str, at: datetime) -> Measured:
    return matrix.get((site, target)) or Measured(site, target, at)


async def _newest(client: Client, subject: str) -> int:
    """Place of the newest event of this kind; 0 when there is none, or no stream yet."""
    try:
        return (await client.jetstream().get_last_msg(EVENTS_STREAM, subject)).seq or 0
    except nats.js.errors.NotFoundError:
        return 0
