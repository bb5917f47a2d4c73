"""Says again to another tenant of the hub what its coordinator lends it.

What a site said comes into the hub's stream by sourcing, which no subscription hears and no account exports: it is
taken from the stream by a consumer of its own for each borrower, and counts as lent when the borrower's stream has
acknowledged it. A borrower whose stream is away holds up its own loans and nobody else.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import api

from windfall.contracts.envelope import MESSAGE_ID
from windfall.contracts.subjects import EVENTS_STREAM
from windfall.contracts.tenancy import Loan, lending_to
from windfall.servicekit.bus import ACK_WAIT, back_off
from windfall.servicekit.clock import Clock
from windfall.servicekit.nats_access import Access
from windfall.servicekit.nats_client import connected

log = logging.getLogger(__name__)

_FETCH: Final = timedelta(seconds=5)
_PUBLISH: Final = timedelta(seconds=2)


async def lend(url: str, access: Access, borrower: str, loans: Sequence[Loan], clock: Clock) -> None:
    """Lend one tenant what it is lent, for ever.

    Args:
        url: the hub's server.
        access: of whoever lends.
        loans: to this borrower.
        clock: on which it waits before it tries again.

    Raises:
        Mistake: a file that ``access`` names cannot be used.
    """
    name = lending_to(borrower)
    client = await connected(url, access, name=name, max_reconnect_attempts=-1, error_cb=_troubled)
    failures, trouble = 0, ""
    try:
        while True:
            try:
                await _taken(client, name, {loan.subject: loan.lent_as for loan in loans})
                failures, trouble = 0, ""
            except (TimeoutError, nats.errors.Error) as error:
                failures += 1
                seen = f"{type(error).__name__} {error}".strip()
                log.log(logging.DEBUG if seen == trouble else logging.WARNING, "%s: not lent yet: %s", name, seen)
                trouble = seen
                await clock.sleep(back_off(failures))
    finally:
        await client.close()


async def _taken(client: Client, name: str, lent_as: Mapping[str, str]) -> None:
    """Take what waits, and return once nothing does."""
    jetstream = client.jetstream(timeout=_PUBLISH.total_seconds())
    await jetstream.add_consumer(EVENTS_STREAM, _consumer(name, sorted(lent_as)))
    waiting = await jetstream.pull_subscribe_bind(name, stream=EVENTS_STREAM)
    try:
        while True:
            try:
                facts = await waiting.fetch(1, timeout=_FETCH.total_seconds())
            except nats.errors.TimeoutError:
                return
            for fact in facts:
                try:
                    await jetstream.publish(lent_as[fact.subject], fact.data, headers=_headers(fact))
                except nats.errors.Error:
                    # It comes again, and has one id.
                    await fact.nak()
                    raise
                await fact.ack()
    finally:
        await waiting.unsubscribe()


def _consumer(name: str, subjects: list[str]) -> api.ConsumerConfig:
    # One at a time, so that their order holds; and for as long as the stream keeps it.
    return api.ConsumerConfig(
        durable_name=name,
        filter_subjects=subjects,
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT.total_seconds(),
        max_ack_pending=1,
    )


def _headers(fact: Msg) -> dict[str, str]:
    """Of JetStream's own, the id alone: a stream takes nothing that says it was sourced elsewhere."""
    return {key: text for key, text in (fact.headers or {}).items() if key == MESSAGE_ID or not key.startswith("Nats-")}


async def _troubled(error: Exception) -> None:
    log.debug("%s: %s", type(error).__name__, error)
