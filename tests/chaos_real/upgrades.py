"""A fleet that trains is upgraded service by service, and rolled back, while it goes on."""

import asyncio
import os
import random
import signal
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

from tests.chaos_real.fault import Fault
from tests.chaos_real.fleet import COORDINATOR, SERVICES, Fleet
from tests.chaos_real.judgement import Violated
from tests.chaos_real.needs import SITES, Needs
from tests.chaos_real.processes import eventually
from tests.chaos_real.versions import AFTER, BEFORE, Version, version
from windfall.contracts.events import SiteJoined

_STEPS: Final = (COORDINATOR, *(f"{service}@{site}" for site in SITES for service in (*SERVICES, "site-trainer")))
"""What is replaced one after the other. A trainer runs what its provisioner runs when it starts it."""


@cache
def _both() -> tuple[Version, Version]:
    return version(BEFORE), version(AFTER)


async def rolling(fleet: Fleet, dice: random.Random) -> float:
    """Everything becomes the newer version in an order that nobody chose, and the older one again in another. Gives
    how long the slowest service took to be ready in its other version."""
    before, after = await asyncio.to_thread(_both)
    worst = 0.0
    for other in (after, before):
        for name in dice.sample(_STEPS, len(_STEPS)):
            worst = max(worst, await _replaced(fleet, name, other))
        # Trainers that came before their provisioners.
        for site in SITES:
            if _version_of(fleet.trainer(site)) != str(other.folder):
                await _replaced(fleet, f"site-trainer@{site}", other)
        await fleet.train(datetime.now(UTC))
        running = {name: part.pid for name, part in fleet.parts.items() if not name.startswith("nats@")}
        running |= {f"site-trainer@{site}": fleet.trainer(site) for site in SITES}
        strange = [name for name, pid in running.items() if _version_of(pid) != str(other.folder)]
        if strange:
            raise AssertionError(f"{', '.join(strange)} is not of {other.commit}")
    return worst


async def _replaced(fleet: Fleet, name: str, other: Version) -> float:
    """Ended in order and started in another version; then a whole round that began afterwards."""
    since = datetime.now(UTC)
    service, _, place = name.partition("@")
    if service == "site-trainer":
        await _trainer_anew(fleet, place)
    else:
        members = {one.site: one.attempt for one in fleet.said(SiteJoined)}
        part = fleet.parts[name]
        await part.hold(signal.SIGTERM)
        part.become({"PYTHONPATH": fleet.path(str(other.folder))})
        part.start()
        await fleet.stand([part])
    took = (datetime.now(UTC) - since).total_seconds()
    await fleet.train(since)
    if name == COORDINATOR:
        again = [one for one in fleet.said(SiteJoined) if fleet.wall(one) > since and one.attempt > members[one.site]]
        if again:
            raise Violated(f"I1 {again[0].site} had to join again under {other.commit}")
    return took


async def _trainer_anew(fleet: Fleet, site: str) -> None:
    since = datetime.now(UTC)

    async def runs() -> bool:
        return bool(fleet.trainers(site))

    await eventually(runs, 60)
    os.kill(fleet.trainer(site), signal.SIGKILL)
    await fleet.until(SiteJoined, since, lambda one: one.site == site)


def _version_of(pid: int) -> str:
    """What a process was told when it was born (proc(5))."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    born_with = dict(entry.partition(b"=")[::2] for entry in entries)
    return born_with.get(b"PYTHONPATH", b"").decode().partition(os.pathsep)[0]


def _older() -> Needs:
    return Needs(pythonpath=str(_both()[0].folder), stays=True, calm=True)


FAULTS: Final = (
    Fault(
        "rolling upgrade",
        f"service by service, in any order, from the wheels of {BEFORE} to those of {AFTER}, and back again: 18 times "
        "one is ended with SIGTERM (a trainer with SIGKILL) and comes back in the other version",
        "SIGTERM → the slowest of them is ready in its other version; a whole round follows each",
        rolling,
        needs=_older,
        minutes=5,
        # It needs the history of commits.
        long=True,
    ),
)
