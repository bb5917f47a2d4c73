"""Processes that are killed with -9."""

import asyncio
import os
import random
import signal
from datetime import UTC, datetime, timedelta
from typing import Final

from tests.chaos_real.fault import Fault
from tests.chaos_real.fleet import COORDINATOR, SERVICES, Fleet
from tests.chaos_real.judgement import Violated
from tests.chaos_real.needs import SITES
from windfall.contracts.events import ContributionAccepted, SiteJoined, SiteLeft
from windfall.federation_coordinator import crashpoints
from windfall.servicekit import crashpoint

_SEEN_WITHIN_S: Final = 10.0
RARE: Final = {
    "join.admitted",
    "leave.journaled",
    "export.written",
    "rebuild.planned",
    "rebuild.done",
    "fallback.laid",
    "finish.journaled",
}
"""Places by which a coordinator does not come while its sites just train."""
PLACES: Final = tuple(sorted({*crashpoints.POINTS, *crashpoint.KIT} - RARE - {"evaluation.done"}))


async def trainer(fleet: Fleet, dice: random.Random) -> float:
    site = dice.choice(SITES)
    await asyncio.sleep(dice.uniform(0, 1))
    since = datetime.now(UTC)
    os.kill(fleet.trainer(site), signal.SIGKILL)
    joined = await fleet.until(SiteJoined, since, lambda one: one.site == site)
    took = (fleet.wall(joined) - since).total_seconds()
    try:
        await fleet.until(SiteLeft, since, lambda one: one.site == site, _SEEN_WITHIN_S)
    except TimeoutError:
        raise Violated(f"I10 nobody said within {_SEEN_WITHIN_S:.0f} s that {site} had left") from None
    await fleet.until(ContributionAccepted, since, lambda one: one.site == site and one.attempt == joined.attempt)
    return took


async def coordinator(fleet: Fleet, dice: random.Random) -> float:
    await asyncio.sleep(dice.uniform(0, 1))
    return await _coordinator_back(fleet)


async def at_place(fleet: Fleet, dice: random.Random) -> float:
    """It is started to die at a place, dies there while both sites train, and is started again."""
    place = dice.choice(PLACES)
    count = dice.randint(1, 3)
    part = fleet.coordinator
    deaths = len(part.deaths)
    await part.kill({crashpoint.VARIABLE: f"{place}:{count}"})
    async with asyncio.timeout(120):
        await part.died(deaths + 2)
    since = datetime.now(UTC)
    if part.deaths[-1] != -signal.SIGKILL:
        raise Violated(f"I10 it ended with {part.deaths[-1]} and not at {place}")
    return await _ready_again(fleet, since)


async def service(fleet: Fleet, dice: random.Random) -> float:
    """Any of a site's services; its trainer goes on meanwhile."""
    site, name = dice.choice(SITES), dice.choice(SERVICES)
    part = fleet.parts[f"{name}@{site}"]
    trainers = fleet.trainers(site)
    since = datetime.now(UTC)
    await part.kill()
    await fleet.stand([part])
    took = (datetime.now(UTC) - since).total_seconds()
    if fleet.trainers(site) != trainers:
        raise Violated(f"I9 {site} trained in {trainers}, and then in {fleet.trainers(site)}")
    await fleet.train(since + timedelta(seconds=took))
    return took


async def _coordinator_back(fleet: Fleet) -> float:
    since = datetime.now(UTC)
    await fleet.parts[COORDINATOR].kill()
    return await _ready_again(fleet, since)


async def _ready_again(fleet: Fleet, since: datetime) -> float:
    members = {one.site: one.attempt for one in fleet.said(SiteJoined)}
    await fleet.stand([fleet.coordinator])
    took = (datetime.now(UTC) - since).total_seconds()
    await fleet.train(since)
    again = [one for one in fleet.said(SiteJoined) if fleet.wall(one) > since and one.attempt > members[one.site]]
    if again:
        raise Violated(f"I1 {again[0].site} had to join again")
    return took


FAULTS: Final = (
    Fault(
        "trainer killed",
        "kill -9 of a site's trainer within a round",
        "kill → the same site is a member again, in a new process; its provisioner starts it",
        trainer,
        8,
        "Flower 1.41: seen after 53 s, round 46–56 s longer, work lost; NVFlare 2.9: the job fails after 8.6 s",
    ),
    Fault(
        "coordinator killed",
        "kill -9 of the coordinator within a round",
        "kill → it is ready again on the same disk; nobody joins anew, and a whole round follows",
        coordinator,
        3,
        "Flower 1.41: the run has failed after 49–62 s; NVFlare 2.9: after 10 s",
    ),
    Fault(
        "coordinator killed at a place",
        f"kill -9 of the coordinator at one of {len(PLACES)} named places between two writes",
        "its death there → as above",
        at_place,
        3,
        "as above",
    ),
    Fault(
        "site service killed",
        "kill -9 of a site's energy-watcher, provisioner or profiler",
        "kill → it is ready again; the site trains on in the same process",
        service,
        8,
        "Flower 1.41: a SuperNode that dies takes its ClientApp with it",
    ),
)
