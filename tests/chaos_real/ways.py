"""Links between a site and the hub that are cut, held, slow or noisy."""

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Final

from tests.chaos_real.fault import Fault, Strike
from tests.chaos_real.fleet import Fleet
from tests.chaos_real.judgement import Violated
from tests.chaos_real.keys import over_tls
from tests.chaos_real.needs import SITES, Needs, calm
from windfall.contracts.events import ContributionAccepted, RoundCompleted, SiteLeft

SILENT_S: Final = 15.0
"""A partition that is longer is seen: the site is said to have left."""


def partition(seconds: float) -> Strike:
    """Nothing passes between a site and the hub for so long, neither NATS nor gRPC, and nobody is told."""

    async def struck(fleet: Fleet, dice: random.Random) -> float:
        site = dice.choice(SITES)
        began = datetime.now(UTC)
        fleet.links[site].hold()
        try:
            await asyncio.sleep(seconds)
        finally:
            fleet.links[site].heal()
        since = datetime.now(UTC)
        took = await _back(fleet, site, since)
        if seconds > SILENT_S:
            if not any(fleet.wall(one) > began and one.site == site for one in fleet.said(SiteLeft)):
                raise Violated(f"I10 {site} was away for {seconds:.0f} s, and nobody said so")
            others = [one for one in fleet.said(RoundCompleted) if began < fleet.wall(one) < since]
            if not others:
                raise Violated("I8 no round was completed without it")
        return took

    return struck


async def flapping(fleet: Fleet, dice: random.Random) -> float:
    """Every connection of a site breaks every second or two, five times."""
    site = dice.choice(SITES)
    for _ in range(5):
        fleet.links[site].cut()
        await asyncio.sleep(dice.uniform(0.5, 2))
    return await _back(fleet, site, datetime.now(UTC))


async def slow(fleet: Fleet, dice: random.Random) -> float:
    """Both sites lie 35 ms away behind 5 MB/s each way for 10 s; rounds go on."""
    for link in fleet.links.values():
        for proxy in link.each:
            proxy.become(timedelta(milliseconds=35), 5e6)
    since = datetime.now(UTC)
    try:
        await fleet.train(since)
        took = (datetime.now(UTC) - since).total_seconds()
        await asyncio.sleep(10)
        late = [one for one in fleet.said(SiteLeft) if fleet.wall(one) > since]
        if late:
            raise Violated(f"I8 {late[0].site} was left behind on a slow link ({late[0].reason})")
    finally:
        for link in fleet.links.values():
            for proxy in link.each:
                proxy.become(timedelta(0), None)
    await fleet.train(datetime.now(UTC))
    return took


async def spoilt(fleet: Fleet, dice: random.Random) -> float:
    """For three seconds, a byte of every other packet that a site exchanges with the coordinator is another one."""
    site = dice.choice(SITES)
    proxy = fleet.links[site].rpc
    changed = 0

    def spoil(passing: bytes) -> bytes:
        nonlocal changed
        if dice.random() < 0.5:
            return passing
        changed += 1
        place = dice.randrange(len(passing))
        return passing[:place] + bytes([passing[place] ^ (1 << dice.randrange(8))]) + passing[place + 1 :]

    way = dice.choice((proxy.up, proxy.down))
    way.spoil = spoil
    try:
        await asyncio.sleep(3)
    finally:
        way.spoil = None
    if not changed:
        raise AssertionError("nothing passed that could be spoilt")
    return await _back(fleet, site, datetime.now(UTC))


async def _back(fleet: Fleet, site: str, since: datetime) -> float:
    """Until a contribution of the site counts, and the hub has heard what it said meanwhile."""
    counted = await fleet.until(ContributionAccepted, since, lambda one: one.site == site)
    took = (fleet.wall(counted) - since).total_seconds()
    await fleet.train(since)
    return took


_COUNTS: Final = "the link is whole again → a contribution of the site counts"
_FLOWER: Final = "Flower 1.41: after 58 s a frozen site is offline, and that round's work of it is lost"


def _held(name: str, seconds: float, minutes: float, long: bool = False) -> Fault:
    return Fault(
        f"partition {name}",
        f"nothing passes between a site and the hub for {name}; nobody is told",
        _COUNTS,
        partition(seconds),
        peers=_FLOWER,
        needs=calm if seconds > SILENT_S else Needs,
        minutes=minutes,
        long=long,
    )


FAULTS: Final = (
    _held("1 s", 1, 0.3),
    _held("10 s", 10, 0.5),
    _held("60 s", 60, 1.5),
    _held("10 min", 600, 10.5, long=True),
    Fault("link flaps", "every connection of a site breaks five times", _COUNTS, flapping, peers=_FLOWER),
    Fault(
        "link 35 ms, 5 MB/s",
        "both sites are that far away for 10 s (emulated); nobody may be left behind",
        "the link is slow → a round that began then has both sites",
        slow,
    ),
    Fault(
        "corrupted chunk",
        "for 3 s a bit flips in every other packet between a site and the coordinator (mTLS, as beyond loopback)",
        _COUNTS,
        spoilt,
        needs=over_tls,
    ),
)
