"""What a fault is, and what came of one run of it."""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos_real.fleet import Fleet
from tests.chaos_real.needs import Needs

Strike = Callable[[Fleet, random.Random], Awaitable[float]]
"""Does it to a fleet that trains, waits until it is whole again, and gives the seconds that this took; whatever an
invariant forbids meanwhile is raised as ``Violated``."""

Alone = Callable[[Path, int], Awaitable[tuple[float | None, tuple[str, ...]]]]
"""Builds a fleet of its own in a folder, hurts it as a seed says, and gives the seconds of the recovery, if it
recovered, and what does not hold."""


@dataclass(frozen=True)
class Fault:
    """One way in which a fleet is hurt."""

    name: str
    does: str
    """What happens, in one sentence."""
    recovery: str
    """What is measured: from when until when, and who recovers."""
    strike: Strike | None = None
    goal_s: float | None = None
    """95 % of recoveries take no longer."""
    peers: str = ""
    """What others were measured to do."""
    needs: Callable[[], Needs] = field(default=Needs)
    minutes: float = 0.25
    """What one run takes about, on two cores."""
    long: bool = False
    """Run only when it is named."""
    alone: Alone | None = None
    """Instead of a strike, where it takes a fleet of another kind."""
    day_ends: bool = False
    """Its fleet's day is over afterwards, and so is its fleet."""


@dataclass(frozen=True)
class Run:
    """One run of a fault.

    Attributes:
        recovery_s: none where it did not recover.
        violations: what did not hold afterwards.
        load: processes that wanted a processor, on average over the last minute.
    """

    fault: str
    seed: int
    recovery_s: float | None
    violations: tuple[str, ...]
    wall_s: float
    load: float
