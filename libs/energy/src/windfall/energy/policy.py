"""What a site's owner wants: when power counts as surplus, and how patient to be about it."""

from dataclasses import dataclass
from datetime import timedelta

from windfall.energy.signals import plausible


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
    """How long readings must have been above the close threshold before the window closes."""
    minimum_window: timedelta = timedelta(0)
    """A window that the forecast says is shorter than this is not opened: it would not pay back its start-up.

    It never holds a window open: dirty power is worse than a short window, and band, dwell and grace stop flapping.
    Where the forecast sees no end the window opens.
    """
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
        for name in ("dwell", "grace", "minimum_window", "closing_lead"):
            if getattr(self, name) < timedelta(0):
                raise ValueError(f"{name} is negative; give zero or more")
        if self.stale_after <= timedelta(0):
            raise ValueError("stale_after is not positive; give more than the time between two readings")
