"""Processes of a site that die by kill -9 at a named place between two writes."""

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
from tests.chaos_real.processes import eventually
from windfall.contracts.events import ContributionAccepted, SiteJoined
from windfall.provisioner import crashpoints as provisioners
from windfall.provisioner.settings import TRAINER_PREFIX
from windfall.servicekit import crashpoint
from windfall.site_trainer import crashpoints as trainers

_AT_THE_END: Final = {"leave.said", "drained.journaled"}
"""By these a trainer comes when its window ends."""
_ELSEWHERE: Final = {"kubernetes.lease-written", "kubernetes.part-written", "order.given"}
"""By these a provisioner comes in a cluster, or when a window ends."""
OF_TRAINERS: Final = tuple(sorted({*trainers.POINTS, "journal.written", "journal.committed"} - _AT_THE_END))
OF_PROVISIONERS: Final = tuple(sorted({*provisioners.POINTS, *crashpoint.KIT} - _ELSEWHERE))
_WITHIN_S: Final = 120.0


async def trainer(fleet: Fleet, dice: random.Random) -> float:
    """It is started to die at a place, dies there, and is started again by its provisioner, which is told of it by
    nobody."""
    site, place = dice.choice(SITES), dice.choice(OF_TRAINERS)
    provisioner = fleet.parts[f"provisioner@{site}"]
    first = fleet.trainer(site)
    variable = TRAINER_PREFIX + crashpoint.VARIABLE.removeprefix("WINDFALL_")
    await provisioner.kill({variable: place})
    await fleet.stand([provisioner])
    os.kill(first, signal.SIGKILL)
    doomed = await _another(fleet, site, first)
    dies = asyncio.ensure_future(_over(doomed))
    # Whoever comes after it lives.
    await provisioner.kill()
    try:
        async with asyncio.timeout(_WITHIN_S):
            await dies
    except TimeoutError:
        raise Violated(f"I8 {site}'s trainer never came by {place}") from None
    return await _member_again(fleet, site, datetime.now(UTC))


async def provisioner(fleet: Fleet, dice: random.Random) -> float:
    """It is started to die at a place, and its trainer dies: it dies there, at its start or while it sees to another
    trainer."""
    site, place = dice.choice(SITES), dice.choice(OF_PROVISIONERS)
    part = fleet.parts[f"provisioner@{site}"]
    deaths = len(part.deaths)
    await part.kill({crashpoint.VARIABLE: place})
    await fleet.stand([part])
    os.kill(fleet.trainer(site), signal.SIGKILL)
    async with asyncio.timeout(_WITHIN_S):
        await part.died(deaths + 2)
    since = datetime.now(UTC)
    if part.deaths[-1] != -signal.SIGKILL:
        raise Violated(f"I10 it ended with {part.deaths[-1]} and not at {place}")
    await fleet.stand([part])
    return await _member_again(fleet, site, since)


async def _member_again(fleet: Fleet, site: str, since: datetime) -> float:
    joined = await fleet.until(SiteJoined, since, lambda one: one.site == site)
    await fleet.until(ContributionAccepted, since, lambda one: one.site == site and one.attempt >= joined.attempt)
    return (fleet.wall(joined) - since).total_seconds()


async def _another(fleet: Fleet, site: str, first: int) -> int:
    async def there() -> bool:
        return any(pid != first for pid in fleet.trainers(site))

    await eventually(there, _WITHIN_S)
    return next(pid for pid in fleet.trainers(site) if pid != first)


async def _over(pid: int) -> None:
    """Wait until a process has ended that is nobody's child here (pidfd_open(2))."""
    over = asyncio.Event()
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


FAULTS: Final = (
    Fault(
        "trainer killed at a place",
        f"kill -9 of a site's trainer at one of {len(OF_TRAINERS)} named places between two writes, and twice of its "
        "provisioner",
        "its death there → the same site is a member again",
        trainer,
        8,
        "as for a trainer that is killed",
    ),
    Fault(
        "provisioner killed at a place",
        f"kill -9 of a site's trainer, and of its provisioner at one of {len(OF_PROVISIONERS)} named places, at its "
        "start or while it sees to another one",
        "its death there → the same site is a member again",
        provisioner,
        8,
        "as for a trainer that is killed",
    ),
)
