"""What the hub knows of the sites that it plans for: their forecasts, how fast they train, what they do now.

Learnt from what is said anyway. Every sentence counts once, however often it comes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from statistics import median
from typing import Final
from uuid import UUID

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from windfall.contracts.events import (
    ContributionAccepted,
    EnergyRecorded,
    SignalForecast,
    SignalKind,
    SignalRecovered,
    SignalStale,
    SiteEvent,
    SiteJoined,
    SiteLeft,
    TrainingStarted,
    WindowClosed,
    WindowOpened,
)
from windfall.contracts.message import Instant
from windfall.energy.planner import Capacity
from windfall.energy.power import PUBLISHED, PowerModel
from windfall.energy.startup import Startup, learn, start_up

KEPT: Final = 9
"""Contributions of a site whose speeds count, the newest: a few that waited or were cut do not move their median."""
CHANGED: Final = 0.05
"""A forecast is another one when it moved by more than this, as a mean over what both see and a share of its level."""


class Told(BaseModel):
    """What the operator knows of a site. The defaults are the published ones for 4 × A100."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    training_kw: float = Field(default=PUBLISHED.training_kw, gt=0)
    idle_kw: float = Field(default=PUBLISHED.idle_kw, ge=0)
    """Also while it starts."""
    start_up_s: float = Field(default=240.0, ge=0)
    """Until the site's own starts have been measured."""
    drain_s: float = Field(default=0.0, ge=0)
    speed: float = Field(default=1.0, gt=0)
    """Of the reference site's, until its own has been measured."""


class SiteKnown(BaseModel):
    """What is known of one site."""

    model_config = ConfigDict(frozen=True)

    forecasts: dict[SignalKind, SignalForecast] = Field(default_factory=dict)
    """The newest of each kind."""
    stale: bool = False
    """Its own watcher says that its signal is silent."""
    startup: Startup = Startup()
    window_id: UUID | None = None
    """The window that is open."""
    member: bool = False
    counted_from: Instant | None = None
    """When it joined, took its first step or last brought something: what it brings next was trained since."""
    tokens_per_hour: tuple[float, ...] = ()
    """Of its contributions, oldest first, its waits for other sites included."""
    emitted_kg: float = 0.0
    """By its ledger, since the federation began."""
    sequence: int = 0
    """Of the ledger's last entry that counted."""

    @property
    def measured(self) -> float | None:
        """Tokens per hour; none when it has not brought anything yet."""
        return median(self.tokens_per_hour) if self.tokens_per_hour else None

    def capacity(self, name: str, told: Told, reference: float) -> Capacity:
        """What the planner is told of it, where a site of speed 1 trains ``reference`` tokens in an hour."""
        started = self.startup.ready_s or self.startup.begin_s
        measured = self.measured
        return Capacity(
            name,
            PowerModel(told.idle_kw, told.training_kw, told.idle_kw, told.training_kw),
            told.speed if measured is None else measured / reference,
            start_up(self.startup, timedelta(0)).total_seconds() if started else told.start_up_s,
            told.drain_s,
            is_on=self.member or self.window_id is not None,
        )


@dataclass(frozen=True)
class Fleet:
    """The sites of a federation by their names."""

    sites: Mapping[str, SiteKnown]
    since: datetime
    """When the federation began: what a site emitted before is not its doing."""

    @property
    def emitted_kg(self) -> float:
        return sum(known.emitted_kg for known in self.sites.values())


def heard(fleet: Fleet, event: SiteEvent) -> Fleet:
    """What is known after one more sentence; one about a stranger changes nothing."""
    known = fleet.sites.get(event.site)
    if known is None:
        return fleet
    # The hub may hear late what a site said in time, so that durations are those between the site's own instants.
    known = known.model_copy(update={"startup": learn(known.startup, event, event.at), **_changed(fleet, known, event)})
    return replace(fleet, sites={**fleet.sites, event.site: known})


def _changed(fleet: Fleet, known: SiteKnown, event: SiteEvent) -> dict[str, object]:
    match event:
        case SignalForecast():
            last = known.forecasts.get(event.kind)
            newer = last is None or event.issued_at >= last.issued_at
            return {"forecasts": {**known.forecasts, event.kind: event}, "stale": False} if newer else {}
        case SignalStale() | SignalRecovered():
            return {"stale": isinstance(event, SignalStale)}
        case WindowOpened():
            return {"window_id": event.window_id}
        case WindowClosed() if event.window_id == known.window_id:
            return {"window_id": None}
        case SiteJoined():
            return {"member": True, "counted_from": event.at}
        case TrainingStarted() if known.counted_from is not None:
            # Whatever came before the first step (a download, a compilation) is no part of its speed.
            return {"counted_from": max(known.counted_from, event.at)}
        case ContributionAccepted():
            return _brought(known, event)
        case SiteLeft():
            return {"member": False, "counted_from": None}
        case EnergyRecorded() if event.sequence > known.sequence and event.start >= fleet.since:
            return {"emitted_kg": known.emitted_kg + event.emissions_kg, "sequence": event.sequence}
    return {}


def _brought(known: SiteKnown, event: ContributionAccepted) -> dict[str, object]:
    if known.counted_from is None:
        # It was a member before anybody planned.
        return {"member": True, "counted_from": event.at}
    hours = (event.at - known.counted_from) / timedelta(hours=1)
    if hours <= 0 or not event.tokens:
        return {"counted_from": max(known.counted_from, event.at)}
    return {"counted_from": event.at, "tokens_per_hour": (*known.tokens_per_hour, event.tokens / hours)[-KEPT:]}


def is_news(before: SiteKnown, after: SiteKnown) -> bool:
    """Whether a plan that was made before should be made anew."""
    if before.stale != after.stale or (before.measured is None) != (after.measured is None):
        return True
    return any(
        kind not in before.forecasts or _moved(before.forecasts[kind], forecast)
        for kind, forecast in after.forecasts.items()
    )


def _moved(old: SignalForecast, new: SignalForecast) -> bool:
    if new.id == old.id:
        return False
    ages = (new.issued_at - old.issued_at).total_seconds() + new.step_s * np.arange(len(new.values))
    places = (ages // old.step_s).astype(int)
    both = (places >= 0) & (places < len(old.values))
    if not both.any():
        return True
    was, is_now = np.array(old.values)[places[both]], np.array(new.values)[both]
    return bool(np.abs(is_now - was).mean() > CHANGED * np.abs(was).mean())
