"""What the watcher is told. Durations are in the time of the signal, as ISO 8601 (``PT10M``) or ``00:10:00``."""

from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from windfall.energy.policy import Policy
from windfall.energy.signals import MOST_G_PER_KWH
from windfall.servicekit.settings import SiteSettings

_DEFAULT = Policy()


class WatcherSettings(SiteSettings):
    """Which signal, and what counts as surplus. Intensities are in gCO2/kWh."""

    signal: Literal["replay", "static"] = "replay"
    """Where readings come from: a CSV trace, or one value for ever."""
    trace_file: Path | None = None
    """``replay``: CSV with ``point_time`` and a column for each site."""
    trace_column: str | None = None
    """``replay``: the column of this site, when it is not called like the site."""
    static_intensity: float | None = Field(default=None, ge=0, le=MOST_G_PER_KWH)
    """``static``: the value."""
    open_below: float = _DEFAULT.open_below_g_per_kwh
    """A window opens on a reading strictly below this."""
    close_above: float = _DEFAULT.close_above_g_per_kwh
    """A window closes when readings are strictly above this."""
    dwell: timedelta = _DEFAULT.dwell
    """How long readings must have been below before a window opens."""
    grace: timedelta = _DEFAULT.grace
    """How long readings must have been above before it closes."""
    minimum_window: timedelta = _DEFAULT.minimum_window
    """A window that the forecast says is shorter is not opened."""
    closing_lead: timedelta = _DEFAULT.closing_lead
    """How long before the forecast's end of a window its closing is said."""
    stale_after: timedelta = _DEFAULT.stale_after
    """The age of the last reading from which on the signal is not believed and the site fails closed."""
    forecast_horizon: timedelta = Field(default=timedelta(hours=24), ge=timedelta(0))
    """How far ahead the forecast is asked; zero watches without one."""
    poll_interval: timedelta = Field(default=timedelta(minutes=1), gt=timedelta(0))
    """How often a source is asked that does not know when its next reading is due."""

    @property
    def policy(self) -> Policy:
        """Raises ``ValueError`` when the numbers make no sense together."""
        return Policy(
            open_below_g_per_kwh=self.open_below,
            close_above_g_per_kwh=self.close_above,
            dwell=self.dwell,
            grace=self.grace,
            minimum_window=self.minimum_window,
            closing_lead=self.closing_lead,
            stale_after=self.stale_after,
        )

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        wrong = []
        if self.signal == "replay" and self.trace_file is None:
            wrong.append("WINDFALL_TRACE_FILE is missing and WINDFALL_SIGNAL is replay")
        if self.signal == "static" and self.static_intensity is None:
            wrong.append("WINDFALL_STATIC_INTENSITY is missing and WINDFALL_SIGNAL is static")
        if self.signal == "static" and self.poll_interval >= self.stale_after:
            wrong.append("WINDFALL_POLL_INTERVAL must be shorter than WINDFALL_STALE_AFTER")
        try:
            _ = self.policy
        except ValueError as error:
            wrong.append(str(error))
        if wrong:
            raise ValueError("; ".join(wrong))
        return self
