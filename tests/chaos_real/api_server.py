"""A Kubernetes API server that goes, and machines that do not do what they should: a fleet of another kind, of
:mod:`tests.storm`."""

from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Final

from tests.chaos_real.fault import Fault
from tests.chaos_real.needs import Needs
from tests.storm.leases import LATE
from tests.storm.plan import Size
from tests.storm.platforms import CONTRACTS, KUBERNETES, MACHINES, MIXED, Platform
from tests.storm.weather import weather

_SIZE: Final = Size(sites=10, windows=40, workers=2, lasts=timedelta(seconds=20), kills=8)


async def storm(folder: Path, seed: int) -> tuple[float | None, tuple[str, ...]]:
    dice = Random(f"API server/{seed}")
    platform = Platform(dice.choice((KUBERNETES, *MACHINES, MIXED)), dice.choice(CONTRACTS))
    try:
        outcome = await weather(folder, seed, _SIZE, _unheard, platform=platform)
    except AssertionError as error:
        return None, (f"I8 {platform}: {error}",)
    late = [f"{outcome.ends.late} releases were late"] if outcome.ends.late else []
    return outcome.ends.latest.total_seconds(), tuple(f"I7 {platform}: {one}" for one in (*outcome.faults, *late))


def _unheard(text: str) -> None:
    """What a storm says of itself while it lasts."""


def none() -> Needs:
    """It brings its own."""
    return Needs()


FAULTS: Final = (
    Fault(
        "API server killed",
        f"kill -9 of a Kubernetes API server (the double), its operator and provisioners, {_SIZE.kills} times in "
        f"{_SIZE.lasts.total_seconds():.0f} s, while {_SIZE.windows} windows come and go at {_SIZE.sites} sites, on "
        "pods and machines of Cluster API and k0rdent, of which some fail, stall or do not leave",
        "the end of a window's grace → its node is gone, the latest of all; each lease ends once, nothing is left over",
        goal_s=LATE.total_seconds(),
        needs=none,
        minutes=1,
        alone=storm,
    ),
)
