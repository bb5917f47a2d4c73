"""What a site's owner wants: when power counts as surplus, and how patient to be about it."""

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Final

from windfall.energy.forecast import EXPECTED_ERROR, ForecastError
from windfall.energy.signals import plausible
from windfall.energy.verdict import Verdict

_BETWEEN_READINGS: Final = timedelta(minutes=5)
"""As grids publish."""


@dataclass(frozen=True)
class Policy:
    """Thresholds in gCO2/kWh, durations in the time of the signal.

    Raises:
        ValueError: a threshold that is no intensity, an open threshold over the close threshold, a negative duration.
    """

    open_below_g_per_kwh: float = 100.0
    """A window opens on a reading strictly below this."""
    close_above_g_per_kwh: float = 150.0
    """A window closes when readings are strictly above this; between the two nothing changes."""
    dwell: timedelta = timedelta(0)
    """How long readings must have been below the open threshold before a window opens."""
    grace: timedelta = timedelta(minutes=10)
    """Without a forecast: how long readings must have been above the close threshold before the window closes."""
    ride_through: timedelta = timedelta(0)
    """With one: a dirty stretch that it says is no longer than this does not close the window."""
    minimum_window: timedelta = timedelta(0)
    """A window that the forecast says is shorter than this is not opened, whatever it would pay back.

    It never holds a window open. Where the forecast sees no end the window opens.
    """
    minimum_on: timedelta = timedelta(0)
    """A window stays open at least so long, whatever the power is made of; for machines that must not be cycled."""
    minimum_off: timedelta = timedelta(0)
    """And shut at least so long."""
    start_up: timedelta = timedelta(0)
    """From asking for capacity to its first step, as measured at the site."""
    drain: timedelta = timedelta(0)
    """From the word to having delivered what was trained, as measured at the site."""
    start_up_share: float = 0.23
    """Power while starting, as a share of that while training. Default: 0.468 of 2.024 kW, 4 × A100 as published."""
    payback: float = 20.0
    """A window must give so many times the energy of its start-up to training, or it is not opened."""
    warm_share: float = 0.025
    """Capacity starts ahead of an opening when starting in the window would cost more than this share of it. Ahead, its
    energy is dirty; within, its time is lost."""
    error: ForecastError = EXPECTED_ERROR
    """How far the forecast is to be trusted."""
    closing_lead: timedelta = timedelta(minutes=5)
    """How long before the forecast's crossing of the close threshold ``window.closing`` is said."""
    stale_after: timedelta = timedelta(minutes=15)
    """A signal whose last reading is older than this is stale, and the site fails closed."""

    def __post_init__(self) -> None:
        for name in ("open_below_g_per_kwh", "close_above_g_per_kwh"):
            if not plausible(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}; give gCO2/kWh from 0 to 5000")
        if self.open_below_g_per_kwh > self.close_above_g_per_kwh:
            open_below, close_above = self.open_below_g_per_kwh, self.close_above_g_per_kwh
            raise ValueError(f"open below {open_below:g} is over close above {close_above:g}; swap or equal them")
        durations = ("dwell", "grace", "ride_through", "minimum_window", "minimum_on", "minimum_off", "closing_lead")
        for name in (*durations, "start_up", "drain"):
            if getattr(self, name) < timedelta(0):
                raise ValueError(f"{name} is negative; give zero or more")
        if self.stale_after <= timedelta(0):
            raise ValueError("stale_after is not positive; give more than the time between two readings")
        for name in ("start_up_share", "payback", "warm_share"):
            if not 0.0 <= getattr(self, name) < 1e6:
                raise ValueError(f"{name} is {getattr(self, name)}; give zero or more")

    def verdict(self, intensity_g_per_kwh: float) -> Verdict:
        """What the thresholds say of an intensity alone."""
        if intensity_g_per_kwh < self.open_below_g_per_kwh:
            return Verdict.CLEAN
        return Verdict.DIRTY if intensity_g_per_kwh > self.close_above_g_per_kwh else Verdict.BETWEEN

    @cached_property
    def warm_lead(self) -> timedelta:
        """How long before an opening capacity has to start, to be there even if the window comes a little early."""
        return self.start_up + 2 * self.error.timing(self.start_up)

    def warms(self, lasts: timedelta) -> bool:
        """Whether capacity starts ahead of a window of this length: a long one can lose a start-up."""
        return lasts < self._warmed_below

    @cached_property
    def _warmed_below(self) -> timedelta:
        return self.start_up / self.warm_share if self.warm_share else timedelta.max

    @cached_property
    def shortest_warm(self) -> timedelta:
        """The shortest window worth opening when capacity is there: without the drain it repays the start-up."""
        repaid = self.payback * self.start_up_share * self.start_up
        return max(self.minimum_window, self.drain + repaid)

    @cached_property
    def shortest_cold(self) -> timedelta:
        """And when capacity starts with it."""
        return max(self.minimum_window, self.shortest_warm + self.start_up)

    @property
    def is_choosy(self) -> bool:
        """Whether a window may be turned away because it would not pay back its start."""
        return self.shortest_cold > self.minimum_window

    @cached_property
    def least_open(self) -> timedelta:
        """A window that was opened stays open so long."""
        return max(self.minimum_on, self.dwell)

    def drains_ahead(self, lead: timedelta) -> bool:
        """Whether an end that was foreseen so long ahead is worth leaving for before it is measured.

        Leaving ahead saves the drain on dirty power. Leaving for an end that does not come costs the time until the
        next reading and a start-up; both are weighed by how sure the forecast is of the reading.
        """
        if self.error.is_none:
            return True
        sure = self.error.confidence(lead, _BETWEEN_READINGS / 2)
        return self.drain * sure >= (_BETWEEN_READINGS + self.start_up) * (1.0 - sure)
