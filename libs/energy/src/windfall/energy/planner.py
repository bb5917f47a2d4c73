"""When each site is to train, so that the work is done in time at the least carbon, or cost.

The work is a number of site-hours of a reference site; a site of speed 2 does two in an hour. Every site is either on
or off in each slot of the forecast; coming on costs a start-up, in energy and in time. Minimising

    Σ on · level · kW · Δt + Σ starts      so that      Σ on · speed · Δt - lost ≥ work

is done by its Lagrangian: at a price λ of a site-hour each site can be planned alone and exactly, by dynamic
programming over {off, on} × slots; the work done grows with λ, so the smallest λ that does enough is found by
bisection, many prices at a time. (Everett 1963; the same relaxation commits generators of power plants: Muckstadt and
Koenig 1977.) A price buys whole stretches, so the plan may do more than was asked for: what is too much is not run,
because the work is done before, and until then it is one more reserve.

Two things answer the forecast's error. A *reserve* is planned in addition: a share of the standard deviation of the
planned work, since the far ends of stretches are uncertain. And *patience*: what is paid now counts a little more than
what can still be paid later, because later more is known; so dear power is put off until it is surely needed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from windfall.energy.forecast import ForecastError
from windfall.energy.power import PUBLISHED, PowerModel

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RESERVED: Final = 0.3
"""Of the standard deviation. With the patience below, 0.3 gave less carbon than 0, and 0.6 with a patience of 0.5 more,
as means over twelve noisy forecasts of the published study's trace; other seeds and traces may want another."""
PATIENCE: Final = 0.2
"""By how much power of the first slot is counted dearer than that of the last. 0 and 0.5 were worse, likewise."""

PRICES: Final = 12
ROUNDS: Final = 4
"""12 prices in 4 rounds find λ to a 14,000th of its range."""


@dataclass(frozen=True)
class Capacity:
    """What one site can do."""

    name: str
    power: PowerModel = PUBLISHED
    speed: float = 1.0
    """Site-hours of the reference site that it does in an hour."""
    start_up_s: float = 240.0
    drain_s: float = 0.0
    is_on: bool = False
    """Its node runs now: going on costs no start-up."""

    @property
    def kw_per_speed(self) -> float:
        return self.power.training_kw / self.speed


@dataclass(frozen=True, eq=False)
class Plan:
    """On or off for S sites in n slots."""

    on: Bools
    """Shape (S, n)."""
    price: float
    """λ: what the dearest site-hour of the plan costs, in the unit of ``levels`` × kWh."""
    work: float
    """Site-hours that it does."""
    reserve: float
    """Of these, in hand for the forecast's error."""
    cost: float
    """Σ level × kWh: grams for intensities."""
    met: bool
    """Whether the work is done within the slots."""


def plan(
    sites: Sequence[Capacity], levels: Floats, slots_s: Floats, work: float, error: ForecastError | None = None
) -> Plan:
    """The cheapest plan that does the work within the slots; all that pays or not when even everything is too little.

    Args:
        sites: S sites.
        levels: shape (S, n): forecast of each site's intensity in g/kWh, or price per kWh.
        slots_s: shape (n,): seconds of each slot.
        work: site-hours of the reference site.
        error: of the forecast; none plans without reserve.
    """
    honest = Schedule(tuple(sites), levels, slots_s)
    reserve, seen = 0.0, honest
    if error is not None:
        seen = Schedule(honest.sites, levels * _urgency(slots_s), slots_s)
        reserve = RESERVED * _deviation(seen, _cheapest(seen, work).on, error)
    found = _cheapest(seen, work + reserve)
    return Plan(
        on=found.on,
        price=found.price,
        work=found.work,
        reserve=max(0.0, min(reserve, found.work - work)),
        cost=float(honest.cost(found.on[None])[0]),
        met=found.work >= work - 1e-9,
    )


def _urgency(slots_s: Floats) -> Floats:
    ends = np.cumsum(slots_s)
    return np.asarray(1.0 + PATIENCE * (1.0 - ends / ends[-1]))


@dataclass(frozen=True, eq=False)
class _Found:
    on: Bools
    price: float
    work: float


def _cheapest(schedule: "Schedule", work: float) -> _Found:
    low, high = schedule.lowest_price, schedule.highest_price
    for _ in range(ROUNDS):
        prices = np.linspace(low, high, PRICES)
        on = schedule.best(prices)
        done = schedule.work(on)
        enough = np.flatnonzero(done >= work)
        place = int(enough[0]) if len(enough) else PRICES - 1
        low, high = float(prices[max(0, place - 1)]), float(prices[place])
        if place == 0 or not len(enough):
            break
    return _Found(on[place], float(prices[place]), float(done[place]))


@dataclass(frozen=True, eq=False)
class Schedule:
    """The problem as arrays: S sites, n slots, and L prices at a time."""

    sites: tuple[Capacity, ...]
    levels: Floats
    slots_s: Floats

    def __post_init__(self) -> None:
        if self.levels.shape != (len(self.sites), len(self.slots_s)):
            expected = (len(self.sites), len(self.slots_s))
            raise ValueError(f"levels of shape {self.levels.shape} where {expected} is expected")

    @property
    def _hours(self) -> Floats:
        return self.slots_s / 3600.0

    def _of(self, name: str) -> Floats:
        return np.array([getattr(site, name) for site in self.sites])

    @property
    def _power(self) -> tuple[Floats, Floats]:
        return (
            np.array([site.power.training_kw for site in self.sites]),
            np.array([site.power.provisioning_kw for site in self.sites]),
        )

    @property
    def lowest_price(self) -> float:
        """At which nothing that costs anything is done."""
        return min(0.0, float((self.levels * self._power[0][:, None] / self._of("speed")[:, None]).min()))

    @property
    def highest_price(self) -> float:
        """At which everything is done, start-ups included."""
        dearest = float((self.levels * self._power[0][:, None] / self._of("speed")[:, None]).max())
        shortest = float(self._hours.min())
        lost = 1.0 + float(((self._of("start_up_s") + self._of("drain_s")) / 3600.0).max()) / shortest
        return max(dearest, 1.0) * lost * 1.01

    def best(self, prices: Floats) -> Bools:
        """The best on/off for each price, shape (L, S, n), by dynamic programming from the last slot to the first."""
        training_kw, provisioning_kw = self._power
        speed, hours = self._of("speed"), self._hours
        start_h, drain_h = self._of("start_up_s") / 3600.0, self._of("drain_s") / 3600.0
        worth = prices[:, None] * speed
        slots, shape = len(hours), (len(prices), len(self.sites))
        stays, comes = np.empty((slots, *shape), bool), np.empty((slots, *shape), bool)
        on_value, off_value = np.zeros(shape), np.zeros(shape)
        within = worth * start_h
        for slot in range(slots - 1, -1, -1):
            level = self.levels[:, slot]
            gain = (worth - training_kw * level) * hours[slot]
            start = within - start_h * (training_kw - provisioning_kw) * level
            if slot:
                start = np.minimum(start, start_h * provisioning_kw * self.levels[:, slot - 1])
            go_on = gain + on_value
            come = go_on - start - worth * drain_h
            stays[slot], comes[slot] = go_on >= off_value, come > off_value
            on_value = np.where(stays[slot], go_on, off_value)
            off_value = np.where(comes[slot], come, off_value)
        on = np.empty((*shape, slots), bool)
        running = np.broadcast_to(np.array([site.is_on for site in self.sites]), shape)
        for slot in range(slots):
            running = np.where(running, stays[slot], comes[slot])
            on[:, :, slot] = running
        return on

    def work(self, on: Bools) -> Floats:
        """Site-hours that plans of shape (L, S, n) do, shape (L,)."""
        lost_h = (self._of("start_up_s") + self._of("drain_s")) / 3600.0
        done = on @ self._hours - self._starts(on).sum(axis=2) * lost_h
        return np.asarray((np.maximum(done, 0.0) * self._of("speed")).sum(axis=1))

    def cost(self, on: Bools) -> Floats:
        """Σ level × kWh of plans of shape (L, S, n), shape (L,), start-ups at the level of their slot."""
        training_kw, provisioning_kw = self._power
        energy = on * (training_kw[:, None] * self._hours)
        start_h = self._of("start_up_s") / 3600.0
        starts = self._starts(on) * (start_h * (provisioning_kw - training_kw))[:, None]
        return np.asarray(((energy + starts) * self.levels).sum(axis=(1, 2)))

    def _starts(self, on: Bools) -> Bools:
        before = np.concatenate((np.zeros((*on.shape[:2], 1), bool), on[:, :, :-1]), axis=2)
        before[:, :, 0] = np.array([site.is_on for site in self.sites])
        return np.asarray(on & ~before)


def _deviation(schedule: Schedule, on: Bools, error: ForecastError) -> float:
    """One standard deviation of the planned work, in site-hours: every change of the plan comes early or late."""
    hours = np.concatenate(([0.0], np.cumsum(schedule.slots_s)))[:-1] / 3600.0
    changes = on[:, 1:] != on[:, :-1]
    timing = np.minimum(
        error.timing_at_once.total_seconds() / 3600.0 + error.timing_share * hours[1:],
        error.timing_most.total_seconds() / 3600.0,
    )
    speed = np.array([site.speed for site in schedule.sites])
    return float(np.sqrt(((changes * timing * speed[:, None]) ** 2).sum()))
