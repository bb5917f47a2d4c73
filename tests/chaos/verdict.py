"""Whether a run was as it must be, and the shortest schedule under which it is not."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from tests import invariants
from tests.chaos.faults import Fault
from tests.chaos.strikes import strike
from tests.chaos.world import HEALED_H, MIDNIGHT, World
from windfall.contracts.events import RoundCompleted
from windfall.contracts.message import Message
from windfall.servicekit.testing.virtual import Deadlock, run_virtual

_ROOM = Path("/dev/shm")
"""Memory, where there is such a place: a simulated disk need not be waited for."""
_LONGEST_VIOLATION: Final = 500
"""Characters."""


@dataclass(frozen=True)
class Verdict:
    """Of one schedule.

    Attributes:
        violation: which invariant does not hold, and how; empty when all do.
        rounds: that were completed.
        deaths: of services, by their names.
        again_s: from the healing of everything to the next round that was completed, in seconds of the fleet's time.
        digest: of every event that the hub's stream holds, in order.
    """

    seed: int
    schedule: tuple[Fault, ...]
    violation: str
    rounds: int = 0
    deaths: dict[str, int] = field(default_factory=dict)
    again_s: float | None = None
    digest: str = ""


def tried(seed: int, schedule: Sequence[Fault]) -> Verdict:
    """Let a fleet live through a schedule, and look at what came of it."""
    folder = Path(tempfile.mkdtemp(dir=_ROOM if _ROOM.is_dir() else None))
    try:
        world = World(folder, seed)
        try:
            events = run_virtual(world.live(schedule, strike))
            once = list({event.id: event for event in events}.values())
            _check(world, once)
        except (AssertionError, Deadlock) as broken:
            said = f"{type(broken).__name__}: {broken}".splitlines()[0][:_LONGEST_VIOLATION]
            return Verdict(seed, tuple(schedule), said, 0, dict(world.deaths))
        rounds = [event.at for event in once if isinstance(event, RoundCompleted)]
        healed = MIDNIGHT + timedelta(hours=HEALED_H)
        again = min(at for at in rounds if at > healed) - healed
        return Verdict(seed, tuple(schedule), "", len(rounds), dict(world.deaths), again.total_seconds(), _digest(once))
    finally:
        shutil.rmtree(folder)


def _digest(events: Sequence[Message]) -> str:
    sha = hashlib.sha256()
    for event in events:
        sha.update(event.model_dump_json().encode())
    return sha.hexdigest()


def _check(world: World, events: Sequence[Message]) -> None:
    invariants.check(events)
    invariants.check_replicas(events, world.fleet.bases)
    for (service, whom), journal in world.fleet.journals.items():
        assert not journal.unsaid(1), f"{service} of {whom} has something left to say"
    healed = MIDNIGHT + timedelta(hours=HEALED_H)
    after = [event for event in events if isinstance(event, RoundCompleted) and event.at > healed]
    assert after, "no round is completed after everything is whole again"


def shrunk(schedule: Sequence[Fault], fails: Callable[[Sequence[Fault]], bool]) -> tuple[Fault, ...]:
    """The faults without any of which it does not fail any more: one after the other is left out, until none can be."""
    left = tuple(schedule)
    for fault in schedule:
        fewer = tuple(one for one in left if one is not fault)
        if fewer != left and fails(fewer):
            left = fewer
    return left
