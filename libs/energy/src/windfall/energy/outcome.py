"""What a simulated fleet drew, emitted and did, from the lives of its nodes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from windfall.energy.column import moment
from windfall.energy.ledger import Account
from windfall.energy.power import PowerModel, SiteState
from windfall.energy.simulate import STATES, Life
from windfall.energy.tally import Uses, held


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
    power: Mapping[str, PowerModel]
    """Of each site."""
    start: datetime
    end: datetime
    """When the work was done, or the simulated time over."""
    finished: bool
    """Whether all of the work that was asked for was done; true when none was."""
    deadline: datetime | None
    account: Account
    trained_h: Mapping[str, float]
    """Site-hours of training of each site, in hours of the reference site."""
    uses: tuple[Uses, ...]
    """How well each site used its windows."""
    cost: float | None = None
    """Of the energy, in the currency of the prices; none without prices."""
    notes: tuple[str, ...] = field(default=())

    @property
    def hours(self) -> float:
        return (self.end - self.start) / timedelta(hours=1)

    @property
    def starts(self) -> int:
        """How often a node was brought up."""
        provisioning = STATES.index(SiteState.PROVISIONING)
        return sum(int(np.count_nonzero(life.codes == provisioning)) for life in self.lives)

    @property
    def window_use(self) -> Iterator[WindowUse]:
        """Of the windows that count, site after site, made as they are asked for."""
        for uses in self.uses:
            rows = zip(uses.begins.tolist(), uses.ends.tolist(), uses.shares.tolist(), strict=True)
            yield from (WindowUse(uses.site, moment(begin), moment(end), share) for begin, end, share in rows)

    @property
    def least_window_use(self) -> float | None:
        """Of the windows that count; none when there were none."""
        return min((float(uses.shares.min()) for uses in self.uses if len(uses.shares)), default=None)

    @property
    def mean_window_use(self) -> float | None:
        """Share of all clean time, of windows that count, in which sites trained."""
        clean_s = sum(float((uses.ends - uses.begins).sum()) for uses in self.uses)
        trained_s = sum(float(uses.shares @ (uses.ends - uses.begins)) for uses in self.uses)
        return trained_s / clean_s if clean_s else None

    @property
    def in_time(self) -> bool:
        """Whether the work was done by the deadline."""
        return self.finished and (self.deadline is None or self.end <= self.deadline)

    def intervals(self) -> Iterator[dict[str, Any]]:
        """Every state of every site, without gap or overlap from start to end, as plain JSON values, one by one."""
        for life in self.lives:
            power = self.power[life.site]
            since, to, codes = held(life, self.end)
            for begin, end, code in zip(since.tolist(), to.tolist(), codes.tolist(), strict=True):
                state = STATES[code]
                yield {
                    "site": life.site,
                    "state": state.value,
                    "start": moment(begin).isoformat(),
                    "end": moment(end).isoformat(),
                    "power_kw": power.kw(state),
                }

    def summary(self) -> dict[str, Any]:
        """The figures as plain JSON values; the windows, of which there may be many, one by one."""
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
            "windows": (
                {
                    "site": use.site,
                    "start": use.start.isoformat(),
                    "end": use.end.isoformat(),
                    "used_share": round(use.share, 4),
                }
                for use in self.window_use
            ),
            "notes": list(self.notes),
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
