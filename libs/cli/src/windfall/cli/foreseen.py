"""``windfall plan --dry-run``: what would train when, by the forecasts that sites have told, and what that would cost.

It is the coordinator's own planner over the same events. Nothing is said to anybody.
"""

from collections.abc import Iterable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np

from windfall.cli.resources.resource import Resource, Rows
from windfall.cli.server import connection, kept, known_sites
from windfall.contracts.commands import Span
from windfall.contracts.envelope import Unreadable, unseal
from windfall.contracts.events import (
    ContributionAccepted,
    EnergyRecorded,
    NodeReady,
    RoundCompleted,
    SignalForecast,
    SignalKind,
    SignalRecovered,
    SignalStale,
    SiteEvent,
    SiteJoined,
    SiteLeft,
    TrainingStarted,
    WindowClosed,
    WindowExpected,
    WindowOpened,
)
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, HUB, subject_for
from windfall.energy.fleet import Fleet, SiteKnown, heard
from windfall.energy.fleetplan import Decision, decide
from windfall.energy.goal import Goal
from windfall.energy.levels import mean_levels
from windfall.servicekit.errors import Mistake

HEARD: Final = (
    *(SignalForecast, SignalStale, SignalRecovered, WindowExpected, WindowOpened, WindowClosed, NodeReady),
    *(SiteJoined, TrainingStarted, ContributionAccepted, SiteLeft, EnergyRecorded, RoundCompleted),
)
"""Whatever the planner learns from."""
_KWH_PER_MWH: Final = 1000.0


@dataclass(frozen=True)
class Stretch:
    """One site, from its start to its end."""

    name: str
    """``site/number``, in order of time."""
    site: str
    starts_at: datetime
    ends_at: datetime
    energy_kwh: float
    emissions_g: float | None
    """None where the site tells no intensity."""
    cost_eur: float | None
    """None where it tells no price."""


async def foreseen(url: str, goal: Goal, now: datetime) -> tuple[Decision, list[Stretch]]:
    """The plan from ``now`` on, and its stretches in order of time.

    Raises:
        Mistake: the server cannot be used, or nothing can be planned yet.
    """
    async with connection(url) as client:
        sites = [site for site in await known_sites(client) if site != HUB]
        subjects = [subject_for(kind, "*") for kind in HEARD]
        said = []
        async with aclosing(kept(client, EVENTS_STREAM, subjects)) as stream:
            async for stored in stream:
                try:
                    said.append(unseal(stored.letter))
                except Unreadable:
                    continue  # `windfall events tail` shows what is none
    fleet, done = learnt(sites, goal.federation, said)
    decision = decide(fleet, goal, done, now)
    if decision is None:
        doubts = "; ".join(f"{site}: {goal.doubt(known, now)}" for site, known in sorted(fleet.sites.items()))
        if goal.reference_tokens_per_hour(fleet) is None:
            raise Mistake("nobody has trained yet, so that nobody knows how fast a site is", "Say --tokens-per-hour")
        raise Mistake(f"no forecast counts ({doubts or 'no site is known'})", "Start energy-watchers that have one")
    return decision, list(stretches(fleet, goal, decision))


def learnt(sites: Iterable[str], federation: str, said: Iterable[Message]) -> tuple[Fleet, int]:
    """What events tell of the sites, and the tokens that the federation has trained."""
    messages = list(said)
    since = min((message.at for message in messages), default=None)
    done = 0
    if since is None:
        raise Mistake("nothing was said yet", "Start energy-watchers that have a forecast")
    fleet = Fleet({site: SiteKnown() for site in sites}, since)
    for message in messages:
        if isinstance(message, SiteEvent):
            fleet = heard(fleet, message)
        elif isinstance(message, RoundCompleted) and message.federation == federation:
            done = message.tokens_total
    return fleet, done


def stretches(fleet: Fleet, goal: Goal, decision: Decision) -> list[Stretch]:
    """Every stretch of a plan, oldest first."""
    found = [
        _stretch(fleet.sites[order.site], goal, f"{order.site}/{number}", order.site, span, decision.made.at)
        for order in decision.orders
        for number, span in enumerate(order.spans, start=1)
    ]
    return sorted(found, key=lambda one: (one.starts_at, one.site))


def _stretch(known: SiteKnown, goal: Goal, name: str, site: str, span: Span, now: datetime) -> Stretch:
    start, end = span.start, span.end
    kwh = goal.of(site).training_kw * ((end - start) / timedelta(hours=1))
    price, intensity = known.forecasts.get(SignalKind.PRICE), goal.intensity(known, now)
    return Stretch(
        name=name,
        site=site,
        starts_at=start,
        ends_at=end,
        energy_kwh=kwh,
        emissions_g=None if intensity is None else kwh * _mean(intensity, start, end),
        cost_eur=None if price is None else kwh * _mean(price, start, end) / _KWH_PER_MWH,
    )


def _mean(forecast: SignalForecast, start: datetime, end: datetime) -> float:
    return float(mean_levels(forecast, np.array([start.timestamp(), end.timestamp()]))[0])


def _nothing(_: Rows, __: Message) -> None:
    """No event makes a stretch: a plan does."""


STRETCHES: Final = Resource(
    "stretches",
    "PlannedStretch",
    ("stretch",),
    Stretch,
    (
        ("site", "site"),
        ("starts", "starts_at"),
        ("ends", "ends_at"),
        ("kWh", "energy_kwh"),
        ("gCO2", "emissions_g"),
        ("EUR", "cost_eur"),
    ),
    (("stretch", "name"),),
    (),
    _nothing,
    newest=False,
    empty="nothing would start: the work is done",
)
