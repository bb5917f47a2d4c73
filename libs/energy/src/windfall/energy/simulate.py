"""What a simulated fleet is made of: its sites, what it is to reach, and lives that nodes lead on virtual time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from windfall.energy.column import Column
from windfall.energy.gate import Gate, Step, due, tick
from windfall.energy.node import Change, Node, Timing, next_due, obey, pass_time
from windfall.energy.noise import Noisy
from windfall.energy.policy import Policy
from windfall.energy.power import PUBLISHED, PowerModel, SiteState

HORIZON: Final = timedelta(hours=72)
"""No provider sees further."""


class Objective(StrEnum):
    """What a fleet is to do with its windows."""

    FAST = "fast"
    """Use every clean window."""
    CARBON = "carbon"
    """The work by the deadline, at least carbon."""
    BUDGET = "budget"
    """The work as early as a budget of carbon allows."""
    COST = "cost"
    """The work by the deadline, at least cost."""


@dataclass(frozen=True, eq=False)
class SimulatedSite:
    """One site: its trace, and what it draws and does."""

    name: str
    column: Column
    """gCO2/kWh."""
    forecast: Noisy | None = None
    """None: it sees what comes, as it comes."""
    power: PowerModel = PUBLISHED
    speed: float = 1.0
    price: Column | None = None
    """Per MWh, on the same instants; for the objective *cost*."""


@dataclass(frozen=True)
class Aim:
    """What is to be reached."""

    objective: Objective = Objective.FAST
    work_site_hours: float | None = None
    """None: as much as there are windows for."""
    deadline: datetime | None = None
    budget_kg: float | None = None


@dataclass(frozen=True)
class Life:
    """What one site's node did."""

    site: str
    changes: tuple[Change, ...]
    """Oldest first, the first at the beginning."""


class Lived:
    """A node on the way through its trace."""

    def __init__(self, policy: Policy, start: datetime) -> None:
        self._policy = policy
        self._timing = Timing(policy.start_up, policy.drain)
        self.node = Node()
        self._due: datetime | None = None
        self.changes: list[Change] = [(start, SiteState.OFF)]

    def wait(self, gate: Gate, until: datetime) -> Gate:
        """Time passes without a reading."""
        while (at := due(gate, self._policy)) is not None and at < until:
            gate, steps = tick(gate, at, self._policy)
            if not steps:
                break
            self.move(steps)
        self._pass(until)
        return gate

    def move(self, steps: Iterable[Step]) -> None:
        """The gate moved."""
        for step in steps:
            self._pass(step.at)
            self.node, changes = obey(self.node, step, self._timing)
            self.changes += changes
            self._due = next_due(self.node)

    def _pass(self, until: datetime) -> None:
        if self._due is not None and self._due <= until:
            self.node, changes = pass_time(self.node, until, self._timing)
            self.changes += changes
            self._due = next_due(self.node)

    def told(self, site: str, end: datetime) -> Life:
        """The life until the end."""
        return Life(site, tuple(change for change in self.changes if change[0] < end))


def always_on(names: Iterable[str], start: datetime, policy: Policy) -> list[Life]:
    """Every site starts at once and trains until the end."""
    ready = start + policy.start_up
    return [Life(name, ((start, SiteState.PROVISIONING), (ready, SiteState.TRAINING))) for name in names]


def finished_at(
    lives: Sequence[Life], speeds: Sequence[float], end: datetime, work_site_hours: float
) -> datetime | None:
    """When so much has been trained, by all sites together; none when it never is."""
    edges: list[tuple[datetime, float]] = []
    for life, speed in zip(lives, speeds, strict=True):
        bounds = [*(at for at, _ in life.changes), end]
        for place, (since, state) in enumerate(life.changes):
            if state is SiteState.TRAINING:
                edges += [(since, speed), (bounds[place + 1], -speed)]
    edges.sort()
    left, rate, now = work_site_hours * 3600.0, 0.0, None
    for at, change in edges:
        if now is not None and rate > 0.0:
            done = rate * (at - now).total_seconds()
            if done >= left - 1e-6:
                return now + timedelta(seconds=left / rate)
            left -= done
        rate, now = rate + change, at
    return None


def ended(lives: Sequence[Life], at: datetime) -> list[Life]:
    """The lives until the work is done, when every node goes."""
    cut = []
    for life in lives:
        before = tuple(change for change in life.changes if change[0] < at)
        off = ((at, SiteState.OFF),) if before and before[-1][1] is not SiteState.OFF else ()
        cut.append(Life(life.site, (*before, *off)))
    return cut
