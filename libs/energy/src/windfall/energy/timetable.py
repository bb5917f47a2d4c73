"""A plan on the clock: how far each site comes in each slot, when the work is done, and the spans that are told."""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np

from windfall.contracts.commands import Span
from windfall.contracts.events import SignalForecast, SignalKind
from windfall.energy.levels import mean_levels
from windfall.energy.planner import Bools, Capacity, Floats, Schedule

_KWH_PER_MWH = 1000.0


@dataclass(frozen=True)
class Finish:
    """When the work is done."""

    slot: int
    at: datetime


@dataclass(frozen=True, eq=False)
class Timetable:
    """What the planner is asked: S sites, n slots, and the work that is left."""

    sites: tuple[Capacity, ...]
    forecasts: tuple[SignalForecast, ...]
    """Of each site, what the objective weighs: intensities or prices."""
    intensities: tuple[SignalForecast | None, ...]
    """Of each site; none where nobody tells it."""
    bounds: Floats
    """Seconds since the epoch, one more than there are slots."""
    work: float
    """Site-hours of the reference site."""

    @cached_property
    def slots_s(self) -> Floats:
        return np.diff(self.bounds)

    @cached_property
    def levels(self) -> Floats:
        """Shape (S, n): g/kWh, or EUR/kWh."""
        scales = [_KWH_PER_MWH if one.kind is SignalKind.PRICE else 1.0 for one in self.forecasts]
        return np.stack(
            [mean_levels(one, self.bounds) / scale for one, scale in zip(self.forecasts, scales, strict=True)]
        )

    @cached_property
    def grams(self) -> Floats:
        """Shape (S, n): g/kWh; zero where nobody tells it."""
        nothing = np.zeros(len(self.slots_s))
        return np.stack([nothing if one is None else mean_levels(one, self.bounds) for one in self.intensities])

    @property
    def everything(self) -> Bools:
        """Every site in every slot."""
        return np.ones((len(self.sites), len(self.slots_s)), bool)

    def progress(self, on: Bools) -> Floats:
        """Site-hours that each site has done by the end of each slot, shape (S, n); each start loses its time."""
        running = np.array([[site.is_on] for site in self.sites])
        starts = on & ~np.concatenate((running, on[:, :-1]), axis=1)
        lost_h = np.array([[site.start_up_s + site.drain_s] for site in self.sites]) / 3600.0
        speed = np.array([[site.speed] for site in self.sites])
        done = (on * (self.slots_s / 3600.0) - starts * lost_h) * speed
        return np.asarray(np.maximum(np.cumsum(done, axis=1), 0.0))

    def finish(self, on: Bools) -> Finish | None:
        """When a plan has the work done; none when it has not."""
        progress = self.progress(on).sum(axis=0)
        enough = np.flatnonzero(progress >= self.work - 1e-9)
        if not len(enough):
            return None
        slot = int(enough[0])
        rate = sum(site.speed for site, runs in zip(self.sites, on[:, slot], strict=True) if runs)
        over_s = (progress[slot] - self.work) / rate * 3600.0 if rate else 0.0
        at = max(float(self.bounds[slot]), float(self.bounds[slot + 1] - over_s))
        return Finish(slot, datetime.fromtimestamp(at, UTC))

    def cost(self, levels: Floats, on: Bools, finish: Finish | None) -> float:
        """Σ level × kWh until the work is done, or the slots are over."""
        if finish is None:
            return float(Schedule(self.sites, levels, self.slots_s).cost(on[None])[0])
        end = finish.slot + 1
        cut = np.append(self.slots_s[: finish.slot], max(0.0, finish.at.timestamp() - self.bounds[finish.slot]))
        return float(Schedule(self.sites, levels[:, :end], cut).cost(on[None, :, :end])[0])

    def price(self, on: Bools) -> float:
        """What the dearest hour of a plan costs at a site of speed 1: its level × kW; zero when nothing runs."""
        costs = [self.levels[place][on[place]] * site.kw_per_speed for place, site in enumerate(self.sites)]
        return max((float(each.max()) for each in costs if len(each)), default=0.0)

    def spans(self, on: Bools) -> tuple[Span, ...]:
        """When one site runs, oldest first; ``on`` of shape (n,)."""
        edges = np.flatnonzero(np.diff(np.concatenate(([False], on, [False])).astype(int)))
        instants = [datetime.fromtimestamp(float(self.bounds[edge]), UTC) for edge in edges]
        return tuple(Span(start=start, end=end) for start, end in zip(instants[::2], instants[1::2], strict=True))
