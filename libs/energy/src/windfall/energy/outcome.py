"""What a simulated fleet drew, emitted and did, from the lives of its nodes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np

from windfall.energy.column import Column, moment, spans_below
from windfall.energy.ledger import Account, Usage
from windfall.energy.power import SiteState
from windfall.energy.simulate import Life, SimulatedSite

COUNTED: Final = timedelta(minutes=30)
"""Windows from this length on count for how well windows are used."""
_HOUR_S: Final = 3600.0


@dataclass(frozen=True)
class WindowUse:
    """One stretch of clean power, as far as the run lasted, and the share of it in which the site trained."""

    site: str
    start: datetime
    end: datetime
    share: float


@dataclass(frozen=True)
class Outcome:
    """One policy's run. Energy is of a step signal: a reading holds until the next one."""

    policy: str
    lives: tuple[Life, ...]
    start: datetime
    end: datetime
    """When the work was done, or the simulated time over."""
    finished: bool
    """Whether all of the work that was asked for was done; true when none was."""
    deadline: datetime | None
    account: Account
    trained_h: Mapping[str, float]
    """Site-hours of training of each site, in hours of the reference site."""
    window_use: tuple[WindowUse, ...]
    cost: float | None = None
    """Of the energy, in the currency of the prices; none without prices."""
    notes: tuple[str, ...] = field(default=())

    @property
    def hours(self) -> float:
        return (self.end - self.start) / timedelta(hours=1)

    @property
    def starts(self) -> int:
        """How often a node was brought up."""
        return sum(state is SiteState.PROVISIONING for life in self.lives for _, state in life.changes)

    @property
    def least_window_use(self) -> float | None:
        """Of the windows that count; none when there were none."""
        return min((use.share for use in self.window_use), default=None)

    @property
    def mean_window_use(self) -> float | None:
        """Share of all clean time, of windows that count, in which sites trained."""
        lengths = [(use.end - use.start).total_seconds() for use in self.window_use]
        if not lengths:
            return None
        return sum(use.share * length for use, length in zip(self.window_use, lengths, strict=True)) / sum(lengths)

    @property
    def in_time(self) -> bool:
        """Whether the work was done by the deadline."""
        return self.finished and (self.deadline is None or self.end <= self.deadline)

    def intervals(self, sites: Mapping[str, SimulatedSite]) -> list[dict[str, Any]]:
        """Every state of every site, without gap or overlap from start to end, as plain JSON values."""
        return [
            {
                "site": life.site,
                "state": state.value,
                "start": since.isoformat(),
                "end": until.isoformat(),
                "power_kw": sites[life.site].power.kw(state),
            }
            for life in self.lives
            for since, until, state in _held(life, self.end)
        ]

    def summary(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        total = self.account.total
        return {
            "policy": self.policy,
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "hours": round(self.hours, 4),
            "finished": self.finished,
            "deadline": self.deadline.isoformat() if self.deadline else None,
            "in_time": self.in_time,
            "emissions_kg": round(total.emissions_kg, 6),
            "energy_kwh": round(total.energy_kwh, 6),
            "clean_energy_share": _rounded(total.clean_energy_share),
            "cost": _rounded(self.cost),
            "site_hours": round(sum(self.trained_h.values()), 4),
            "starts": self.starts,
            "least_window_use": _rounded(self.least_window_use),
            "mean_window_use": _rounded(self.mean_window_use),
            "sites": {
                name: {
                    "emissions_kg": round(usage.emissions_kg, 6),
                    "energy_kwh": round(usage.energy_kwh, 6),
                    "clean_energy_share": _rounded(usage.clean_energy_share),
                    "site_hours": round(self.trained_h[name], 4),
                }
                for name, usage in self.account.sites.items()
            },
            "windows": [
                {
                    "site": use.site,
                    "start": use.start.isoformat(),
                    "end": use.end.isoformat(),
                    "used_share": round(use.share, 4),
                }
                for use in self.window_use
            ],
            "notes": list(self.notes),
        }


def usage(life: Life, site: SimulatedSite, until: datetime, clean_below_g_per_kwh: float) -> Usage:
    """Energy and emissions of one node's life."""
    held = list(_held(life, until))
    kw = np.array([site.power.kw(state) for _, _, state in held])
    since = np.array([start.timestamp() for start, _, _ in held])
    to = np.array([end.timestamp() for _, end, _ in held])
    clean = site.column.where(clean_below_g_per_kwh)
    return Usage(
        energy_kwh=float(kw @ (to - since)) / _HOUR_S,
        emissions_kg=float(kw @ _between(site.column, since, to)) / _HOUR_S / 1000.0,
        clean_energy_kwh=float(kw @ _between(clean, since, to)) / _HOUR_S,
    )


def cost(life: Life, site: SimulatedSite, until: datetime) -> float:
    """Of one node's energy, by the site's prices per MWh."""
    assert site.price is not None, "a cost needs prices"
    held = list(_held(life, until))
    kw = np.array([site.power.kw(state) for _, _, state in held])
    since = np.array([start.timestamp() for start, _, _ in held])
    to = np.array([end.timestamp() for _, end, _ in held])
    return float(kw @ _between(site.price, since, to)) / _HOUR_S / 1000.0


def training_h(life: Life, site: SimulatedSite, until: datetime) -> float:
    """Site-hours of the reference site."""
    spans = (end - start for start, end, state in _held(life, until) if state is SiteState.TRAINING)
    return site.speed * (sum(spans, timedelta(0)) / timedelta(hours=1))


def window_use(
    life: Life, site: SimulatedSite, start: datetime, until: datetime, clean_below_g_per_kwh: float
) -> list[WindowUse]:
    """How much of each stretch of clean power the site trained in."""
    if until <= start:
        return []
    training = [(a.timestamp(), b.timestamp()) for a, b, state in _held(life, until) if state is SiteState.TRAINING]
    begins = np.array([begin for begin, _ in training])
    ends = np.array([end for _, end in training])
    found = []
    # A stretch counts by its own length; what lies after the end of the run could not be used.
    for begin, end in spans_below(site.column, clean_below_g_per_kwh):
        begin, within = max(begin, start.timestamp()), min(end, until.timestamp())
        if end - begin < COUNTED.total_seconds() or within <= begin:
            continue
        first, last = np.searchsorted(ends, begin, "right"), np.searchsorted(begins, within, "left")
        used = np.minimum(ends[first:last], within) - np.maximum(begins[first:last], begin)
        found.append(WindowUse(life.site, moment(begin), moment(within), float(used.sum()) / (within - begin)))
    return found


def _held(life: Life, until: datetime) -> Sequence[tuple[datetime, datetime, SiteState]]:
    ends = [*(at for at, _ in life.changes[1:]), until]
    return [
        (since, min(end, until), state)
        for (since, state), end in zip(life.changes, ends, strict=True)
        if since < min(end, until)
    ]


def _between(column: Column, since: np.ndarray[Any, Any], to: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return column.integral(to) - column.integral(since)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
