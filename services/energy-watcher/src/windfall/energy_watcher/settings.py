"""What the watcher is told. Durations are in the time of the signal, as ISO 8601 (``PT10M``) or ``00:10:00``."""

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from windfall.energy.grammar import RuleError, parse
from windfall.energy.policy import Policy
from windfall.energy.rule import Rule, below, signals
from windfall.energy.signals import MOST_G_PER_KWH
from windfall.energy_watcher.ledger_settings import BookkeeperSettings
from windfall.energy_watcher.replay import ReplaySection
from windfall.energy_watcher.sources import Signals, SourceSettings
from windfall.energy_watcher.static import StaticSection

CARBON: Final = "carbon"
"""What the one signal of the short form is called."""
_DEFAULT = Policy()


def _object(given: object) -> object:
    if not isinstance(given, str):
        return given
    try:
        return json.loads(given)
    except ValueError as error:
        raise ValueError(f"not JSON ({error})") from error


class WatcherSettings(BookkeeperSettings):
    """Which signals, and what counts as surplus.

    The short form is one signal, called ``carbon``: ``WINDFALL_SIGNAL`` with ``WINDFALL_OPEN_BELOW`` and
    ``WINDFALL_CLOSE_ABOVE``. The long form names any number in ``WINDFALL_SIGNALS`` and what is surplus in
    ``WINDFALL_RULE``.
    """

    signals: Signals = Field(default_factory=dict)
    """Name → section, as JSON: ``{"carbon": {"provider": "watttime", "region": "CAISO_NORTH"}}``."""
    rule: str = ""
    """What is surplus, like ``carbon < 100..150 and price < 20..40``; none: ``carbon < OPEN_BELOW..CLOSE_ABOVE``."""
    check: str = ""
    """Name of a signal that is not in the rule and cross-checks the one there that has its unit."""
    signal: Literal["replay", "static"] = "replay"
    """Short form: where readings come from, a CSV trace, or one value for ever."""
    trace_file: Path | None = None
    """``replay``: CSV with ``point_time`` and a column for each site."""
    trace_column: str | None = None
    """``replay``: the column of this site, when it is not called like the site."""
    static_intensity: float | None = Field(default=None, ge=0, le=MOST_G_PER_KWH)
    """``static``: the value."""
    open_below: float = _DEFAULT.open_below_g_per_kwh
    """Short form: a window opens on a reading strictly below this, in gCO2/kWh."""
    close_above: float = _DEFAULT.close_above_g_per_kwh
    """Short form: a window closes when readings are strictly above this, in gCO2/kWh."""
    dwell: timedelta = _DEFAULT.dwell
    """How long the rule must have been clean before a window opens."""
    grace: timedelta = _DEFAULT.grace
    """Without a forecast: how long it must have been dirty before it closes."""
    ride_through: timedelta = _DEFAULT.ride_through
    """With one: a dirty stretch that is no longer does not close the window."""
    minimum_window: timedelta = _DEFAULT.minimum_window
    """A window that the forecast says is shorter is not opened."""
    minimum_on: timedelta = _DEFAULT.minimum_on
    """A window stays open at least so long."""
    minimum_off: timedelta = _DEFAULT.minimum_off
    """And shut at least so long."""
    start_up: timedelta = _DEFAULT.start_up
    """From asking for capacity to its first step, as measured here. Zero: no window is expected ahead of its time."""
    drain: timedelta = timedelta(minutes=2)
    """From the word to having delivered what was trained, as measured here. Zero: no closing is said ahead of its time.
    The default is twice what a published fleet took."""
    learn: bool = True
    """Take start-up and drain as this site's own events tell them, once they have; false: always as told."""
    payback: float = Field(default=_DEFAULT.payback, ge=0)
    """A window must give so many times the energy of its start-up to training, or it is not opened."""
    warm_share: float = Field(default=_DEFAULT.warm_share, ge=0)
    """Capacity starts ahead of a window when starting within it would cost more than this share of it."""
    closing_lead: timedelta = _DEFAULT.closing_lead
    """How long before the forecast's end of a window its closing is said."""
    stale_after: timedelta = _DEFAULT.stale_after
    """The age of the last value from which on a signal is not believed and the site fails closed."""
    stale_after_of: Annotated[dict[str, timedelta], BeforeValidator(_object)] = Field(default_factory=dict)
    """Of signals with another limit, as JSON: ``{"price": "PT90M"}``."""
    forecast_horizon: timedelta = Field(default=timedelta(hours=24), ge=timedelta(0))
    """How far ahead forecasts are asked; zero watches without one."""
    publish_forecast: bool = False
    """Say ``signal.forecast``, for who plans at the hub. Some providers' licences forbid it."""
    plan_limit: float | None = Field(default=None, ge=0, le=MOST_G_PER_KWH)
    """Power up to this many gCO2/kWh is lent to a plan although it is no surplus; none: a plan only narrows windows."""
    poll_interval: timedelta = Field(default=timedelta(minutes=1), gt=timedelta(0))
    """How often a provider is asked that does not know when its next value is due."""

    @property
    def policy(self) -> Policy:
        """Raises ``ValueError`` when the numbers make no sense together."""
        return Policy(
            open_below_g_per_kwh=self.open_below,
            close_above_g_per_kwh=self.close_above,
            dwell=self.dwell,
            grace=self.grace,
            ride_through=self.ride_through,
            minimum_window=self.minimum_window,
            minimum_on=self.minimum_on,
            minimum_off=self.minimum_off,
            start_up=self.start_up,
            drain=self.drain,
            payback=self.payback,
            warm_share=self.warm_share,
            closing_lead=self.closing_lead,
            stale_after=self.stale_after,
        )

    @property
    def surplus(self) -> Rule:
        """The surplus rule. Raises ``ValueError`` when it cannot be read."""
        return parse(self.rule) if self.rule else below(CARBON, self.open_below, self.close_above)

    @property
    def sections(self) -> Mapping[str, SourceSettings]:
        """Every signal by its name. Raises ``ValueError`` when the short form lacks something."""
        if self.signals:
            return self.signals
        if self.signal == "static":
            if self.static_intensity is None:
                raise ValueError("WINDFALL_STATIC_INTENSITY is missing and WINDFALL_SIGNAL is static")
            return {CARBON: StaticSection(provider="static", value=self.static_intensity)}
        if self.trace_file is None:
            raise ValueError("WINDFALL_TRACE_FILE is missing and WINDFALL_SIGNAL is replay")
        return {CARBON: ReplaySection(provider="replay", trace_file=self.trace_file, column=self.trace_column)}

    def limit(self, signal: str) -> timedelta:
        """The age from which on a value of this signal is stale."""
        return self.stale_after_of.get(signal, self.stale_after)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        wrong: list[str] = []
        sections: Mapping[str, SourceSettings] = {}
        for ask in ("policy", "sections"):
            try:
                asked: Any = getattr(self, ask)
                sections = asked if ask == "sections" else sections
            except ValueError as error:
                wrong.append(str(error))
        if sections:
            wrong += self._names(sections)
        wrong += [
            f"WINDFALL_POLL_INTERVAL must be shorter than the limit of {name}, {self.limit(name)}"
            for name, section in sections.items()
            if section.provider == "static" and self.poll_interval >= self.limit(name)
        ]
        if any(limit <= timedelta(0) for limit in self.stale_after_of.values()):
            wrong.append("WINDFALL_STALE_AFTER_OF holds a limit that is not positive")
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _names(self, sections: Mapping[str, SourceSettings]) -> list[str]:
        """What is wrong with the names that the rule, the check and the limits use."""
        known = ", ".join(sections)
        try:
            read = signals(self.surplus)
        except RuleError as error:
            return [f"WINDFALL_RULE, {error}"]
        except ValueError:
            # The thresholds of the short form, which the policy has named already.
            return []
        wrong = [f"WINDFALL_RULE reads {name!r}, and there are {known}" for name in read if name not in sections]
        if self.check and self.check not in sections:
            wrong.append(f"WINDFALL_CHECK is {self.check!r}, and there are {known}")
        if self.check in read:
            wrong.append(f"WINDFALL_CHECK is {self.check!r}, which the rule reads itself; name another signal")
        strange = [name for name in self.stale_after_of if name not in sections]
        return [*wrong, *(f"WINDFALL_STALE_AFTER_OF names {name!r}, and there are {known}" for name in strange)]
