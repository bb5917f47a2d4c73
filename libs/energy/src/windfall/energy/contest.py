"""Policies on the same sites, hours and work, each by its name: what the planner is measured against."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from windfall.energy.forecast import PERFECT
from windfall.energy.ledger import Account, Usage
from windfall.energy.outcome import Outcome
from windfall.energy.planned import by_plan
from windfall.energy.policy import Policy
from windfall.energy.power import PowerModel
from windfall.energy.ruled import by_rule
from windfall.energy.simulate import HORIZON, Aim, Life, Objective, SimulatedSite, always_on, ended, finished_at
from windfall.energy.tally import Uses, cost, training_h, usage, window_use

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

    sites: Sequence[SimulatedSite]
    """May be made as they are asked for: without a plan they are walked once, or twice where work is asked for, and one
    is in memory at a time."""
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
    work = contest.aim.work_site_hours
    if contest.aim.objective is not Objective.FAST and who in (Contestant.WINDFALL, Contestant.ORACLE):
        # A plan looks at all sites at every reading.
        contest = replace(contest, sites=tuple(contest.sites))
        lives, notes = _planned(contest, who)
        speeds = [site.speed for site in contest.sites]
    elif work is None:
        return _told(contest, who, ((_alone(contest, who, site), site) for site in contest.sites), contest.end)
    else:
        lives, speeds, notes = [], [], ()
        for site in contest.sites:
            lives.append(_alone(contest, who, site))
            speeds.append(site.speed)
    done_at = None if work is None else finished_at(lives, speeds, contest.end, work)
    pairs = zip(lives, contest.sites, strict=True)
    return _told(contest, who, pairs, done_at or contest.end, work is None or done_at is not None, notes)


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


def _alone(contest: Contest, who: Contestant, site: SimulatedSite) -> Life:
    start, end = contest.start, contest.end
    match who:
        case Contestant.ALWAYS_ON:
            (life,) = always_on([site.name], start, contest.policy)
        case Contestant.THRESHOLD:
            (life,) = by_rule([site], start, end, published(contest.policy), None)
        case _:
            seeing = _seeing([site], who)
            horizon = end - start if who is Contestant.ORACLE else HORIZON
            (life,) = by_rule(seeing, start, end, _sure(contest.policy, seeing), horizon)
    return life


def _planned(contest: Contest, who: Contestant) -> tuple[list[Life], tuple[str, ...]]:
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


def _told(
    contest: Contest,
    who: Contestant,
    pairs: Iterable[tuple[Life, SimulatedSite]],
    until: datetime,
    finished: bool = True,
    notes: tuple[str, ...] = (),
) -> Outcome:
    threshold = contest.policy.open_below_g_per_kwh
    account, power, trained_h = dict[str, Usage](), dict[str, PowerModel](), dict[str, float]()
    lives, uses, costs = list[Life](), list[Uses](), list[float]()
    for whole, site in pairs:
        (life,) = ended([whole], until)
        lives.append(life)
        account[site.name] = usage(life, site, until, threshold)
        power[site.name] = site.power
        trained_h[site.name] = training_h(life, site, until)
        uses.append(window_use(life, site, contest.start, until, threshold))
        if site.price is not None:
            costs.append(cost(life, site, until))
    return Outcome(
        policy=who.value,
        lives=tuple(lives),
        power=power,
        start=contest.start,
        end=until,
        finished=finished,
        deadline=contest.aim.deadline,
        account=Account(account),
        trained_h=trained_h,
        uses=tuple(uses),
        cost=sum(costs) if len(costs) == len(lives) else None,
        notes=notes,
    )
