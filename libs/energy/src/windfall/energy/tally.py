"""What one node's life drew, emitted, cost and trained, exactly: power × time of every state, without sampling."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import numpy as np

from windfall.energy.column import Column, Levels, Seconds, spans_below
from windfall.energy.ledger import Usage
from windfall.energy.power import SiteState
from windfall.energy.simulate import STATES, Codes, Life, SimulatedSite

COUNTED: Final = timedelta(minutes=30)
"""Windows from this length on count for how well windows are used."""
_HOUR_S: Final = 3600.0


@dataclass(frozen=True, eq=False)
class Uses:
    """A site's stretches of clean power, as far as the run lasted, and the share of each in which it trained."""

    site: str
    begins: Seconds
    ends: Seconds
    shares: Levels


def held(life: Life, until: datetime) -> tuple[Seconds, Seconds, Codes]:
    """When each state began and ended, and which it was, as far as time passed in it."""
    ends = np.minimum(np.append(life.seconds[1:], until.timestamp()), until.timestamp())
    lasted = life.seconds < ends
    return life.seconds[lasted], ends[lasted], life.codes[lasted]


def usage(life: Life, site: SimulatedSite, until: datetime, clean_below_g_per_kwh: float) -> Usage:
    """Energy and emissions of one node's life."""
    since, to, codes = held(life, until)
    kw = _kw(site)[codes]
    clean = site.column.where(clean_below_g_per_kwh)
    return Usage(
        energy_kwh=float(kw @ (to - since)) / _HOUR_S,
        emissions_kg=float(kw @ _between(site.column, since, to)) / _HOUR_S / 1000.0,
        clean_energy_kwh=float(kw @ _between(clean, since, to)) / _HOUR_S,
    )


def cost(life: Life, site: SimulatedSite, until: datetime) -> float:
    """Of one node's energy, by the site's prices per MWh."""
    assert site.price is not None, "a cost needs prices"
    since, to, codes = held(life, until)
    return float(_kw(site)[codes] @ _between(site.price, since, to)) / _HOUR_S / 1000.0


def training_h(life: Life, site: SimulatedSite, until: datetime) -> float:
    """Site-hours of the reference site."""
    begins, ends = _training(life, until)
    return site.speed * float((ends - begins).sum()) / _HOUR_S


def window_use(life: Life, site: SimulatedSite, start: datetime, until: datetime, clean_below_g_per_kwh: float) -> Uses:
    """How much of each stretch of clean power the site trained in."""
    spans = np.array(spans_below(site.column, clean_below_g_per_kwh)).reshape(-1, 2)
    opened, shut = np.maximum(spans[:, 0], start.timestamp()), np.minimum(spans[:, 1], until.timestamp())
    # A stretch counts by its own length; what lies after the end of the run could not be used.
    counts = (spans[:, 1] - opened >= COUNTED.total_seconds()) & (opened < shut)
    opened, shut = opened[counts], shut[counts]
    trained_s = _trained_s(life, until, shut) - _trained_s(life, until, opened)
    return Uses(life.site, opened, shut, trained_s / (shut - opened))


def _trained_s(life: Life, until: datetime, when: Seconds) -> Levels:
    """Seconds of training until each of these instants."""
    begins, ends = _training(life, until)
    before = np.searchsorted(begins, when, "right")
    whole = np.concatenate(([0.0], np.cumsum(ends - begins)))[before]
    # The last one that has begun may not be over.
    to_come = np.maximum(np.append(-np.inf, ends)[before] - when, 0.0)
    trained: Levels = whole - to_come
    return trained


def _training(life: Life, until: datetime) -> tuple[Seconds, Seconds]:
    since, to, codes = held(life, until)
    trained = codes == STATES.index(SiteState.TRAINING)
    return since[trained], to[trained]


def _kw(site: SimulatedSite) -> Levels:
    return np.array([site.power.kw(state) for state in STATES])


def _between(column: Column, since: np.ndarray[Any, Any], to: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return column.integral(to) - column.integral(since)
