"""Processes that are stopped in their tracks and wake up as if nothing had happened."""

import asyncio
import os
import random
import signal
from datetime import UTC, datetime
from typing import Final

from tests.chaos_real.fault import Fault
from tests.chaos_real.fleet import Fleet
from tests.chaos_real.judgement import Violated
from tests.chaos_real.needs import SITES
from windfall.contracts.events import ContributionAccepted, SiteJoined, SiteLeft


async def zombie(fleet: Fleet, dice: random.Random) -> float:
    """A trainer sleeps through the end of its membership and wakes up with it."""
    site = dice.choice(SITES)
    await asyncio.sleep(dice.uniform(0, 1))
    old = max(one.attempt for one in fleet.said(SiteJoined) if one.site == site)
    pid, since = fleet.trainer(site), datetime.now(UTC)
    os.kill(pid, signal.SIGSTOP)
    try:
        left = await fleet.until(SiteLeft, since, lambda one: one.site == site)
        await asyncio.sleep(dice.uniform(0, 3))
    finally:
        os.kill(pid, signal.SIGCONT)
    awake = datetime.now(UTC)
    joined = await fleet.until(SiteJoined, awake, lambda one: one.site == site)
    await fleet.until(ContributionAccepted, awake, lambda one: one.site == site and one.attempt == joined.attempt)
    ghosts = [
        one for one in fleet.said(ContributionAccepted) if (one.site, one.attempt) == (site, old) and one.at > left.at
    ]
    if ghosts or joined.attempt <= old:
        raise Violated(f"I2 {site} was heard under attempt {old}, which was over")
    return (fleet.wall(joined) - awake).total_seconds()


async def coordinator(fleet: Fleet, dice: random.Random) -> float:
    """The coordinator sleeps for longer than any of its deadlines."""
    fleet.coordinator.send(signal.SIGSTOP)
    await asyncio.sleep(dice.uniform(2, 12))
    fleet.coordinator.send(signal.SIGCONT)
    awake = datetime.now(UTC)
    done = await fleet.train(awake)
    return (fleet.wall(done) - awake).total_seconds()


async def server(fleet: Fleet, dice: random.Random) -> float:
    """A NATS server hangs: its connections stand, and nobody answers."""
    part = fleet.server(dice.choice(("hub", *SITES)))
    part.send(signal.SIGSTOP)
    await asyncio.sleep(dice.uniform(2, 12))
    part.send(signal.SIGCONT)
    awake = datetime.now(UTC)
    await fleet.stand()
    done = await fleet.train(awake)
    return (fleet.wall(done) - awake).total_seconds()


FAULTS: Final = (
    Fault(
        "trainer a zombie",
        "SIGSTOP of a trainer until it has left the federation, then SIGCONT with its old membership",
        "SIGCONT → the site is a member anew; nothing of the old membership counts",
        zombie,
        8,
        "Flower 1.41: that round's work is lost; the site is back in the next round",
    ),
    Fault(
        "coordinator asleep",
        "SIGSTOP of the coordinator for 2 to 12 s, then SIGCONT",
        "SIGCONT → a round that began afterwards has both sites",
        coordinator,
    ),
    Fault(
        "NATS asleep",
        "SIGSTOP of any nats-server for 2 to 12 s, then SIGCONT",
        "SIGCONT → everybody is ready, and a round that began afterwards has both sites",
        server,
        10,
    ),
)
