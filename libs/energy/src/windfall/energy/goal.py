"""What a federation is to reach, and which of its sites are counted on."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from statistics import median
from typing import Literal

from windfall.contracts.events import SignalForecast, SignalKind
from windfall.energy.fleet import Fleet, SiteKnown, Told
from windfall.energy.intensity import INTENSITIES

Purpose = Literal["carbon", "budget", "cost"]


@dataclass(frozen=True)
class Goal:
    """What is to be reached, and what the operator knows.

    Raises:
        ValueError: the objective lacks its budget or its deadline.
    """

    federation: str
    objective: Purpose
    work_tokens: int
    deadline: datetime | None = None
    """None plans as far as any provider sees; *carbon* and *cost* need one."""
    budget_kg: float | None = None
    """For *budget*, from the federation's beginning."""
    valid: timedelta = timedelta(minutes=30)
    """How long an order is followed without a newer one."""
    tokens_per_hour: float | None = None
    """Of a site of speed 1, until one has been measured; none waits for the first contribution."""
    told: Mapping[str, Told] = field(default_factory=dict)
    forecast_limit: timedelta = timedelta(hours=26)
    """The age from which on a forecast does not count. Watchers tell one again only when it says something else, and
    day-ahead prices come once a day."""

    def __post_init__(self) -> None:
        if self.objective == "budget" and self.budget_kg is None:
            raise ValueError("the objective budget needs a budget")
        if self.objective != "budget" and self.deadline is None:
            raise ValueError(f"the objective {self.objective} needs a deadline")

    def of(self, site: str) -> Told:
        """What the operator told of a site."""
        return self.told.get(site) or Told()

    def weighed(self, known: SiteKnown) -> SignalForecast | None:
        """The forecast of a site that the objective weighs."""
        return _first(known, (SignalKind.PRICE,) if self.objective == "cost" else INTENSITIES)

    def doubt(self, known: SiteKnown, now: datetime) -> str:
        """Why a site is not counted on; empty when it is."""
        if known.stale:
            return "its signal is silent"
        forecast = self.weighed(known)
        if forecast is None:
            return "it told no forecast of its prices" if self.objective == "cost" else "it told no forecast"
        return self._aged(forecast, now)

    def intensity(self, known: SiteKnown, now: datetime) -> SignalForecast | None:
        """The forecast by which the emissions of a site are told, if it counts."""
        forecast = _first(known, INTENSITIES)
        return None if forecast is None or self._aged(forecast, now) else forecast

    def _aged(self, forecast: SignalForecast, now: datetime) -> str:
        age = now - forecast.issued_at
        if age > self.forecast_limit:
            return f"its forecast is {age / timedelta(hours=1):.0f} hours old"
        is_over = age >= timedelta(seconds=forecast.step_s) * len(forecast.values)
        return "its forecast is over" if is_over else ""

    def reference_tokens_per_hour(self, fleet: Fleet) -> float | None:
        """What a site of speed 1 trains in an hour: the median of what the sites that were measured say of it."""
        measured = [known.measured / self.of(site).speed for site, known in fleet.sites.items() if known.measured]
        return median(measured) if measured else self.tokens_per_hour


def _first(known: SiteKnown, kinds: tuple[SignalKind, ...]) -> SignalForecast | None:
    return next((known.forecasts[kind] for kind in kinds if kind in known.forecasts), None)
