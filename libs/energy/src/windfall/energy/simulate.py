"""What a simulated fleet is made of: its sites, what it is to reach, and lives that nodes lead on virtual time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from windfall.energy.column import Column, Seconds, moment
from windfall.energy.gate import Gate, Step, due, tick
from windfall.energy.node import Change, Node, Timing, next_due, obey, pass_time
from windfall.energy.noise import Noisy
from windfall.energy.policy import Policy
from windfall.energy.power import PUBLISHED, PowerModel, SiteState

Codes = NDArray[np.int8]
STATES: Final = tuple(SiteState)
"""In the order of their codes."""
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


@dataclass(frozen=True, eq=False)
class Life:
    """What one site's node did, kept small: a year of a thousand sites is some millions of changes."""

    site: str
    seconds: Seconds
    """When the state changed, oldest first, the first at the beginning; shape (n,)."""
    codes: Codes
    """To what, as places in ``STATES``; shape (n,)."""

    @classmethod
    def of(cls, site: str, changes: Iterable[Change]) -> "Life":
        """The same as arrays."""
        told = tuple(changes)
        seconds = np.array([at.timestamp() for at, _ in told], np.float64)
        return cls(site, seconds, np.array([STATES.index(state) for _, state in told], np.int8))

    @property
    def changes(self) -> tuple[Change, ...]:
        """Oldest first."""
        pairs = zip(self.seconds.tolist(), self.codes.tolist(), strict=True)
        return tuple((moment(at), STATES[code]) for at, code in pairs)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Life)
            and self.site == other.site
            and np.array_equal(self.seconds, other.seconds)
            and np.array_equal(self.codes, other.codes)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays have none


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
        return Life.of(site, (change for change in self.changes if change[0] < end))


def always_on(names: Iterable[str], start: datetime, policy: Policy) -> list[Life]:
    """Every site starts at once and trains until the end."""
    ready = start + policy.start_up
    return [Life.of(name, ((start, SiteState.PROVISIONING), (ready, SiteState.TRAINING))) for name in names]


def finished_at(
    lives: Sequence[Life], speeds: Sequence[float], end: datetime, work_site_hours: float
) -> datetime | None:
    """When so much has been trained, by all sites together; none when it never is."""
    training = [life.codes == STATES.index(SiteState.TRAINING) for life in lives]
    begins = [life.seconds[trains] for life, trains in zip(lives, training, strict=True)]
    ends = [np.append(life.seconds[1:], end.timestamp())[trains] for life, trains in zip(lives, training, strict=True)]
    gained = np.concatenate([np.full(len(each), speed) for each, speed in zip(begins, speeds, strict=True)])
    edges = np.concatenate((*begins, *ends))
    if not len(edges):
        return None
    order = np.argsort(edges, kind="stable")
    times, rates = edges[order], np.cumsum(np.concatenate((gained, -gained))[order])
    done = np.concatenate(([0.0], np.cumsum(rates[:-1] * np.diff(times))))
    work = work_site_hours * 3600.0
    after = int(np.searchsorted(done, work - 1e-6))
    if after == len(done):
        return None
    last = max(0, after - 1)
    return moment(float(times[last] + (work - done[last]) / rates[last]))


def ended(lives: Sequence[Life], at: datetime) -> list[Life]:
    """The lives until the work is done, when every node goes."""
    off = STATES.index(SiteState.OFF)
    cut = []
    for life in lives:
        before = life.seconds < at.timestamp()
        seconds, codes = life.seconds[before], life.codes[before]
        if len(codes) and codes[-1] != off:
            seconds, codes = np.append(seconds, at.timestamp()), np.append(codes, np.int8(off))
        cut.append(Life(life.site, seconds, codes))
    return cut
