"""NATS servers that are killed, come back, come back empty, or lose a stream."""

import asyncio
import random
from datetime import UTC, datetime
from typing import Final

from tests.chaos_real.fault import Fault
from tests.chaos_real.fleet import Fleet, wiped
from tests.chaos_real.judgement import Violated
from tests.chaos_real.needs import SITES
from tests.chaos_real.processes import eventually
from windfall.cli.server import connection
from windfall.contracts.events import ContributionAccepted, RoundCompleted
from windfall.contracts.subjects import COMMANDS_STREAM, EVENTS_STREAM, HUB

_AWAY_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)
_SEEN_WITHIN_S: Final = 10.0


async def site_server(fleet: Fleet, dice: random.Random) -> float:
    return await _away(fleet, dice.choice(SITES), dice.choice(_AWAY_S))


async def hub_server(fleet: Fleet, dice: random.Random) -> float:
    return await _away(fleet, HUB, dice.choice(_AWAY_S))


async def site_wiped(fleet: Fleet, dice: random.Random) -> float:
    return await _away(fleet, dice.choice(SITES), dice.choice(_AWAY_S), wipe=True)


async def hub_wiped(fleet: Fleet, dice: random.Random) -> float:
    return await _away(fleet, HUB, dice.choice(_AWAY_S), wipe=True)


async def stream_deleted(fleet: Fleet, dice: random.Random) -> float:
    """An operator's mistake: a stream is deleted, or what a service reads it by."""
    domain = dice.choice((HUB, *SITES))
    since = datetime.now(UTC)
    async with connection(fleet.url_of(domain)) as client:
        manager = client.jetstream()
        stream = dice.choice((EVENTS_STREAM, COMMANDS_STREAM))
        if dice.random() < 0.5:
            await manager.delete_stream(stream)
        else:
            for consumer in await manager.consumers_info(stream):
                await manager.delete_consumer(stream, consumer.name)
    return await _whole(fleet, domain, since)


async def _away(fleet: Fleet, domain: str, seconds: float, wipe: bool = False) -> float:
    server = fleet.server(domain)
    rounds = len(fleet.said(RoundCompleted))
    began = asyncio.get_running_loop().time()
    await server.hold()
    if wipe:
        wiped(fleet.store_of(domain))
    await _seen(fleet, domain)
    await asyncio.sleep(max(0.0, seconds - (asyncio.get_running_loop().time() - began)))
    server.start()
    await server.stands()
    since = datetime.now(UTC)
    took = await _whole(fleet, domain, since)
    if len(fleet.said(RoundCompleted)) == rounds:
        raise Violated("I3 no round was completed")
    return took


async def _seen(fleet: Fleet, domain: str) -> None:
    """A service without its server says so where a kubelet asks it."""
    for part in fleet.services_of(domain):
        try:
            await eventually(part.lacks, _SEEN_WITHIN_S)
        except TimeoutError:
            raise Violated(f"I10 {part.name} says that it is ready {_SEEN_WITHIN_S:.0f} s without its server") from None


async def _whole(fleet: Fleet, domain: str, since: datetime) -> float:
    """Until its services are ready, and something that was said after the server was back is at the hub."""
    await fleet.stand(fleet.services_of(domain))
    if domain == HUB:
        await fleet.until(RoundCompleted, since)
    else:
        await fleet.until(ContributionAccepted, since, lambda one: one.site == domain)
    if lacking := await fleet.settled("" if domain == HUB else domain):
        raise Violated(f"I1 {len(lacking)} words, like {lacking[0]}")
    return (datetime.now(UTC) - since).total_seconds()


_BACK: Final = "it accepts connections again → its services are ready, and what is said reaches the hub's stream"
FAULTS: Final = (
    Fault(
        "site's NATS killed",
        f"kill -9 of a site's nats-server, back after {_AWAY_S[0]} to {_AWAY_S[-1]:.0f} s with its store",
        _BACK,
        site_server,
        10,
    ),
    Fault(
        "hub's NATS killed",
        f"kill -9 of the hub's nats-server, back after {_AWAY_S[0]} to {_AWAY_S[-1]:.0f} s with its store",
        _BACK,
        hub_server,
        10,
        "Flower 1.41's SuperLink: in memory, the run is lost and every site must be started again; with SQLite and "
        "processes apart it survives, back after 18 s",
    ),
    Fault(
        "site's NATS wiped",
        "as above, and it comes back with an empty store",
        f"{_BACK}, all of it",
        site_wiped,
        10,
    ),
    Fault(
        "hub's NATS wiped",
        "as above, and it comes back with an empty store",
        _BACK,
        hub_wiped,
        10,
        "Jepsen, NATS 2.12.1: acknowledged messages are lost for good",
    ),
    Fault(
        "stream deleted",
        "EVENTS or COMMANDS of any domain is deleted, or all that reads it",
        "the deletion → as above",
        stream_deleted,
        10,
        "FastStream 0.7.8: its subscriber hears nothing ever again",
    ),
)
