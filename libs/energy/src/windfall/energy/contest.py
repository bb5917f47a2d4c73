"""Policies on the same sites, hours and work, each by its name: what the planner is measured against."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from windfall.energy.forecast import PERFECT
from windfall.energy.ledger import Account
from windfall.energy.outcome import Outcome, cost, training_h, usage, window_use
from windfall.energy.planned import by_plan
from windfall.energy.policy import Policy
from windfall.energy.ruled import by_rule
from windfall.energy.simulate import HORIZON, Aim, Life, Objective, SimulatedSite, always_on, ended, finished_at

PUBLISHED_GRACE: Final = timedelta(minutes=10)


class Contestant(StrEnum):
    """Who decides."""

    WINDFALL = "windfall"
    """This project: by rule where the objective is *fast*, by plan otherwise, with the sites' own forecasts."""
    THRESHOLD = "threshold"
    """The published policy (exalsius, curtail-llm, strategy.py): on at once below the threshold, off after 10 minutes
    above it, capacity asked for when the window is open already, training through the grace, no forecast."""
    ALWAYS_ON = "always-on"
    """Every site, from the first second until the work is done."""
    ORACLE = "oracle"
    """Windfall with a forecast that sees everything and is never wrong."""


@dataclass(frozen=True, eq=False)
class Contest:
    """What everybody gets."""

    sites: tuple[SimulatedSite, ...]
    start: datetime
    end: datetime
    policy: Policy
    """Thresholds, start-up and drain, the same for all."""
    aim: Aim
    replan: timedelta = timedelta(0)


def run(contest: Contest, who: Contestant) -> Outcome:
    """One contestant's outcome.

    Raises:
        ValueError: the aim cannot be planned for, in one line.
    """
    notes: tuple[str, ...] = ()
    lives: Sequence[Life]
    if who is Contestant.ALWAYS_ON:
        lives = always_on([site.name for site in contest.sites], contest.start, contest.policy)
    elif who is Contestant.THRESHOLD:
        lives = by_rule(contest.sites, contest.start, contest.end, published(contest.policy), None)
    elif contest.aim.objective is Objective.FAST:
        seeing = _seeing(contest.sites, who)
        policy = _sure(contest.policy, seeing)
        horizon = None if who is Contestant.ORACLE else HORIZON
        span = contest.end - contest.start
        lives = by_rule(seeing, contest.start, contest.end, policy, horizon or span)
    else:
        lives, notes = _planned(contest, who)
    return _told(contest, who, lives, notes)


def published(policy: Policy) -> Policy:
    """The published policy under the same threshold, start-up and drain."""
    return replace(
        policy,
        close_above_g_per_kwh=policy.open_below_g_per_kwh,
        grace=PUBLISHED_GRACE,
        dwell=timedelta(0),
        minimum_window=timedelta(0),
        payback=0.0,
    )


def _planned(contest: Contest, who: Contestant) -> tuple[Sequence[Life], tuple[str, ...]]:
    aim = contest.aim
    if aim.work_site_hours is None:
        raise ValueError(f"the objective {aim.objective.value} needs to know the work; give --work-site-hours")
    if aim.objective is Objective.BUDGET and aim.budget_kg is None:
        raise ValueError("the objective budget needs a budget; give --budget-kg")
    if aim.objective is Objective.COST and any(site.price is None for site in contest.sites):
        raise ValueError("the objective cost needs a price for every site; give --price SITE=COLUMN for each")
    seeing = _seeing(contest.sites, who)
    horizon = None if who is Contestant.ORACLE else HORIZON
    planned = by_plan(
        seeing, contest.start, contest.end, _sure(contest.policy, seeing), aim, horizon, replan=contest.replan
    )
    late = ("the last plan could not do the work in time",) if planned.missed else ()
    return planned.lives, (f"planned {planned.plans} times", *late)


def _seeing(sites: Sequence[SimulatedSite], who: Contestant) -> tuple[SimulatedSite, ...]:
    if who is Contestant.ORACLE:
        return tuple(replace(site, forecast=None) for site in sites)
    return tuple(sites)


def _sure(policy: Policy, sites: Sequence[SimulatedSite]) -> Policy:
    """Who sees what comes may trust it."""
    return replace(policy, error=PERFECT) if all(site.forecast is None for site in sites) else policy


def _told(contest: Contest, who: Contestant, lives: Sequence[Life], notes: tuple[str, ...]) -> Outcome:
    work = contest.aim.work_site_hours
    speeds = [site.speed for site in contest.sites]
    done_at = None if work is None else finished_at(lives, speeds, contest.end, work)
    until = done_at or contest.end
    lives = ended(lives, until)
    pairs = list(zip(lives, contest.sites, strict=True))
    threshold = contest.policy.open_below_g_per_kwh
    priced = all(site.price is not None for site in contest.sites)
    return Outcome(
        policy=who.value,
        lives=tuple(lives),
        start=contest.start,
        end=until,
        finished=work is None or done_at is not None,
        deadline=contest.aim.deadline,
        account=Account({site.name: usage(life, site, until, threshold) for life, site in pairs}),
        trained_h={site.name: training_h(life, site, until) for life, site in pairs},
        window_use=tuple(
            use for life, site in pairs for use in window_use(life, site, contest.start, until, threshold)
        ),
        cost=sum(cost(life, site, until) for life, site in pairs) if priced else None,
        notes=notes,
    )
