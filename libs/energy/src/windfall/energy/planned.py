"""A fleet that follows a plan: the planner is asked at the readings of the traces, and the gates do as it says."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

import numpy as np
from numpy.typing import NDArray

from windfall.energy.budget import within
from windfall.energy.column import Column, moment
from windfall.energy.gate import Gate, look
from windfall.energy.levels import continued
from windfall.energy.lookahead import VERDICTS, runs_of
from windfall.energy.node import Change
from windfall.energy.planner import Capacity, Plan, plan
from windfall.energy.policy import Policy
from windfall.energy.power import SiteState
from windfall.energy.simulate import HORIZON, Aim, Life, Lived, Objective, SimulatedSite
from windfall.energy.verdict import Verdict

_FINE_S: Final = 24 * 3600.0
_COARSE_S: Final = 1800.0
_NEGLIGIBLE: Final = 25.0
"""g/kWh that are not worth a new plan."""
_RUNNING: Final = (SiteState.PROVISIONING, SiteState.IDLE, SiteState.TRAINING)


@dataclass(frozen=True)
class Planned:
    """What came of planning."""

    lives: list[Life]
    plans: int
    """How often it was planned."""
    missed: bool
    """The last plan could not do the work in time."""


def by_plan(
    sites: Sequence[SimulatedSite],
    start: datetime,
    end: datetime,
    policy: Policy,
    aim: Aim,
    horizon: timedelta | None = HORIZON,
    replan: timedelta = timedelta(0),
) -> Planned:
    """The planner says who is on; gates follow it, so that starts are warm in time and drains are, too.

    Args:
        sites: on common instants.
        start: trace time.
        end: trace time.
        policy: start-up, drain and the forecast's error; its thresholds do not matter.
        aim: the objective with its work, deadline and budget.
        horizon: of the forecast; none: all that comes. Beyond it the last day that is seen repeats itself.
        replan: at least so long between two plans, unless power turns out dearer than planned; zero plans at every
            reading.
    """
    fleet = _Fleet(sites, start, end, policy, aim, horizon)
    planned_at: datetime | None = None
    for index, now in enumerate(fleet.times.tolist()):
        at = moment(now)
        fleet.wait(at)
        if fleet.remaining(at) <= 0.0:
            break
        if planned_at is None or at - planned_at >= replan or fleet.surprised(index):
            fleet.plan(index)
            planned_at = at
        fleet.follow(index, at)
    fleet.wait(end)
    lives = [life.told(site.name, end) for site, life in zip(sites, fleet.lived, strict=True)]
    return Planned(lives, fleet.plans, missed=not fleet.current.met)


class _Fleet:
    """Sites under one plan, on their way through their traces."""

    def __init__(
        self,
        sites: Sequence[SimulatedSite],
        start: datetime,
        end: datetime,
        policy: Policy,
        aim: Aim,
        horizon: timedelta | None,
    ) -> None:
        assert aim.work_site_hours is not None, "a plan needs to know the work"
        self._sites, self._aim, self._work = sites, aim, aim.work_site_hours
        self._horizon_s = np.inf if horizon is None else horizon.total_seconds()
        self._error = None if all(site.forecast is None for site in sites) else policy.error
        self._columns = [site.column.cut(start.timestamp(), end.timestamp()) for site in sites]
        self.times = self._columns[0].times
        self._bounds = np.append(self.times, end.timestamp())
        deadline = min(end, aim.deadline or end).timestamp()
        self._deadline = int(np.searchsorted(self.times, deadline, "left"))
        # What is worth a start is for the planner to say.
        self._policy = replace(policy, dwell=timedelta(0), minimum_window=timedelta(0), payback=0.0)
        self.lived = [Lived(self._policy, start) for _ in sites]
        self._gates = [Gate() for _ in sites]
        self.current = Plan(np.zeros((len(sites), 0), bool), 0.0, 0.0, 0.0, 0.0, met=False)
        self._assumed = np.zeros((len(sites), 0))
        self._planned = 0
        self.plans = 0

    def wait(self, until: datetime) -> None:
        """Time passes without a reading."""
        self._gates = [life.wait(gate, until) for life, gate in zip(self.lived, self._gates, strict=True)]

    def remaining(self, at: datetime) -> float:
        """Site-hours of work that are left."""
        pairs = zip(self._sites, self.lived, strict=True)
        return self._work - sum(site.speed * _trained_s(life.changes, at) / 3600.0 for site, life in pairs)

    def surprised(self, index: int) -> bool:
        """Whether power that the plan uses now is far dearer than it assumed."""
        slot = index - self._planned
        if slot >= self.current.on.shape[1]:
            return True
        if self._aim.objective is Objective.COST:
            # Prices are known.
            return False
        measured = np.array([column.values[index] for column in self._columns])
        dearer = measured > 1.5 * np.abs(self._assumed[:, slot]) + _NEGLIGIBLE
        return bool((dearer & self.current.on[:, slot]).any())

    def plan(self, index: int) -> None:
        """Ask the planner, from a reading until the deadline; after it, until the end."""
        last = self._deadline if index < self._deadline else len(self.times)
        slots_s = np.diff(self._bounds[index : last + 1])
        groups = _groups(slots_s)
        if self._aim.objective is Objective.COST:
            levels = np.stack([_prices(site, self.times[index:last]) for site in self._sites])
        else:
            pairs = zip(self._sites, self._columns, strict=True)
            levels = np.stack([_levels(site, column, index, last, self._horizon_s) for site, column in pairs])
        at, sites = moment(self.times[index]), self._capacity()
        remaining = self.remaining(at)
        coarse_s = np.add.reduceat(slots_s, groups)
        coarse = np.add.reduceat(levels * slots_s, groups, axis=1) / coarse_s
        if self._aim.objective is Objective.BUDGET and self._aim.budget_kg is not None:
            left_g = self._aim.budget_kg * 1000.0 - self._spent_g(at)
            found = within(sites, coarse, coarse_s, remaining, left_g, self._error)
        else:
            found = plan(sites, coarse, coarse_s, remaining, self._error)
        self.current = replace(found, on=np.repeat(found.on, np.diff(np.append(groups, len(slots_s))), axis=1))
        self._assumed, self._planned, self.plans = levels, index, self.plans + 1

    def follow(self, index: int, at: datetime) -> None:
        """Each gate looks at its part of the plan."""
        for place, life in enumerate(self.lived):
            codes = np.where(self.current.on[place, index - self._planned :], 1, -1).astype(np.int8)
            ahead = runs_of(self.times[index + 1 : index + len(codes)], codes[1:]) if len(codes) > 1 else None
            verdict = VERDICTS[int(codes[0])] if len(codes) else Verdict.DIRTY
            self._gates[place], steps = look(self._gates[place], at, verdict, ahead, self._policy)
            life.move(steps)

    def _capacity(self) -> list[Capacity]:
        return [
            Capacity(
                site.name,
                site.power,
                site.speed,
                self._policy.start_up.total_seconds(),
                self._policy.drain.total_seconds(),
                is_on=life.node.state in _RUNNING,
            )
            for site, life in zip(self._sites, self.lived, strict=True)
        ]

    def _spent_g(self, at: datetime) -> float:
        lives = zip(self._sites, self._columns, self.lived, strict=True)
        return sum(_spent_g(site, column, life.changes, at) for site, column, life in lives)


def _groups(slots_s: NDArray[np.float64]) -> NDArray[np.intp]:
    """Where slots begin that are planned as one: more than a day ahead forecasts are an hour off, and half hours do."""
    begins = np.cumsum(slots_s) - slots_s
    groups = np.where(begins < _FINE_S, np.arange(len(slots_s)), len(slots_s) + begins // _COARSE_S)
    return np.flatnonzero(np.append(True, groups[1:] != groups[:-1]))


def _levels(site: SimulatedSite, column: Column, index: int, last: int, horizon_s: float) -> NDArray[np.float64]:
    """The forecast from ``index`` until ``last``, with its last day repeated where it sees no further."""
    if site.forecast is None:
        seen = column.values[index : min(last, int(np.searchsorted(column.times, column.times[index] + horizon_s)) + 1)]
    else:
        offset = int(np.searchsorted(site.forecast.column.times, column.times[1])) - 1
        seen = site.forecast.ahead(index + offset, horizon_s)[: last - index]
    return continued(np.asarray(seen), column.step, last - index)


def _prices(site: SimulatedSite, times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per kWh. They are known: markets settle them the day before."""
    assert site.price is not None, "a cost needs prices"
    return site.price.values[[site.price.at(when) for when in times]] / 1000.0


def _spent_g(site: SimulatedSite, column: Column, changes: Sequence[Change], until: datetime) -> float:
    """Grams that a node's life has emitted until an instant."""
    bounds = np.array([*(at.timestamp() for at, _ in changes), until.timestamp()])
    kw = np.array([site.power.kw(state) for _, state in changes])
    return float(kw @ np.diff(column.integral(bounds))) / 3600.0


def _trained_s(changes: Sequence[Change], until: datetime) -> float:
    """Seconds of training until an instant."""
    total, since = timedelta(0), None
    for at, state in changes:
        if since is not None:
            total += at - since
        since = at if state is SiteState.TRAINING else None
    return (total + (until - since if since is not None else timedelta(0))).total_seconds()
