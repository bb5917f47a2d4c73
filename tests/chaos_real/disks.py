"""Disks that are full, and files that are not what was written."""

import asyncio
import os
import random
import signal
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos_real.fault import Fault
from tests.chaos_real.fleet import Fleet
from tests.chaos_real.judgement import Violated
from tests.chaos_real.needs import SITES, Needs
from tests.chaos_real.processes import eventually
from tests.chaos_real.small_disk import MEGABYTES, fill
from windfall.contracts.events import CheckpointDamaged, ContributionAccepted, SiteJoined
from windfall.contracts.subjects import HUB
from windfall.servicekit.errors import ExitCode


async def coordinators_checkpoint(fleet: Fleet, dice: random.Random) -> float:
    """The newest base loses a bit or its end while the coordinator is down."""
    part = fleet.coordinator
    await part.hold()
    damage(fleet.base(), dice)
    since = datetime.now(UTC)
    part.start()
    await fleet.stand([part])
    took = (datetime.now(UTC) - since).total_seconds()
    await fleet.train(since)
    said = await fleet.until(CheckpointDamaged, since, within_s=30)
    if said.remedy != "rebuilt" or said.tokens_lost:
        raise Violated(f"I1 {said.tokens_lost} tokens are lost: {said.detail}")
    return took


async def trainers_checkpoint(fleet: Fleet, dice: random.Random) -> float:
    """A trainer's newest checkpoint is damaged, and the trainer killed."""
    site = dice.choice(SITES)
    path = fleet.plan.state_of("provisioner", site) / "trainer" / "checkpoint.safetensors"

    async def written() -> bool:
        return path.exists()

    await eventually(written, 60)
    since = datetime.now(UTC)
    os.kill(fleet.trainer(site), signal.SIGKILL)
    damage(path, dice)
    joined = await fleet.until(SiteJoined, since, lambda one: one.site == site)
    await fleet.until(ContributionAccepted, since, lambda one: one.site == site and one.attempt == joined.attempt)
    return (fleet.wall(joined) - since).total_seconds()


async def full(fleet: Fleet, dice: random.Random) -> float:
    """The coordinator's disk is full for some seconds."""
    part = fleet.coordinator
    state = fleet.folder / "state" / HUB
    deaths = len(part.deaths)
    ballast = fill(state)
    try:
        await eventually(part.lacks, 30)
    except TimeoutError:
        raise Violated("I10 the coordinator says that it is ready on a full disk") from None
    finally:
        await asyncio.sleep(dice.uniform(0, 5))
        ballast.unlink()
    since = datetime.now(UTC)
    strange = [code for code in part.deaths[deaths:] if code != ExitCode.DISK_FULL]
    if strange:
        raise Violated(f"I10 on a full disk it ended with {strange[0]} and not with {int(ExitCode.DISK_FULL)}")
    await fleet.stand([part])
    done = await fleet.train(since)
    return (fleet.wall(done) - since).total_seconds()


def damage(path: Path, dice: random.Random) -> None:
    """Flip a bit of a file, or cut off its end."""
    data = bytearray(path.read_bytes())
    if dice.random() < 0.3:
        del data[len(data) // 2 :]
    else:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    draft = path.with_name("damaged.tmp")
    draft.write_bytes(data)
    draft.replace(path)


FAULTS = (
    Fault(
        "corrupted checkpoint",
        "a bit of the coordinator's newest base flips, or half of it is gone, and it is started again",
        "its start → it is ready; the base is made again to the same digest, nothing is lost, and it says so",
        coordinators_checkpoint,
        3,
        "Flower 1.41, NVFlare 2.9: there is none while a run goes on",
    ),
    Fault(
        "trainer's checkpoint corrupted",
        "the same of a trainer's, and kill -9",
        "kill → the same site is a member again",
        trainers_checkpoint,
        8,
    ),
    Fault(
        "disk full",
        f"the file system of the hub's services (tmpfs of {MEGABYTES} MB) has no room for up to 5 s",
        "there is room → a round that began afterwards has both sites",
        full,
        needs=lambda: Needs(small_disk_of=HUB),
    ),
)
