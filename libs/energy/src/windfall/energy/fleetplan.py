"""The plan of a federation: what the planner makes of the forecasts that its sites told, as one order for each site.

A site whose forecast is silent, over or too old is not counted on and gets no order: it follows its own rule. Nobody
can say how long the work takes before somebody has trained: without the operator's word there is no plan until then.

The same fleet, goal and instant give the same sentences with the same ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from windfall.contracts.commands import FollowPlan, Span
from windfall.contracts.events import PlanMade
from windfall.contracts.message import derived_id
from windfall.energy.budget import within
from windfall.energy.fleet import Fleet
from windfall.energy.forecast import EXPECTED_ERROR
from windfall.energy.goal import Goal
from windfall.energy.levels import slot_bounds
from windfall.energy.plan_words import Outcome, of_fleet, of_site
from windfall.energy.planner import Bools, Capacity, plan
from windfall.energy.simulate import HORIZON
from windfall.energy.timetable import Timetable

_LONGEST: Final = timedelta(days=3650)
_AFTERWARDS: Final = timedelta(days=1)
_MARGIN: Final = 1.01
"""Slots go on a little after the work is done."""


@dataclass(frozen=True)
class Decision:
    """What is said of a plan."""

    made: PlanMade
    orders: tuple[FollowPlan, ...]


@dataclass(frozen=True, eq=False)
class _Found:
    table: Timetable
    on: Bools
    reserve: float = 0.0
    hurries: bool = False


def decide(fleet: Fleet, goal: Goal, tokens_done: int, now: datetime) -> Decision | None:
    """The plan from ``now`` on; none while no forecast counts, or nobody knows how fast a site is.

    Args:
        fleet: what is known of the sites.
        goal: what is to be reached.
        tokens_done: trained already.
        now: when the plan is made.
    """
    reference = goal.reference_tokens_per_hour(fleet)
    doubts = {site: goal.doubt(known, now) for site, known in sorted(fleet.sites.items())}
    if reference is None or all(doubts.values()):
        return None
    work = max(0, goal.work_tokens - tokens_done) / reference
    left_g = max(0.0, (goal.budget_kg or 0.0) - fleet.emitted_kg) * 1000.0
    found = _found(fleet, goal, [site for site, why in doubts.items() if not why], reference, work, left_g, now)
    return _said(goal, found, left_g, {site: why for site, why in doubts.items() if why}, now)


def over(fleet: Fleet, goal: Goal, because: str, now: datetime) -> tuple[FollowPlan, ...]:
    """The last orders: the federation has no more use for its sites, until its deadline, and for a day at most."""
    until = max(now + goal.valid, min(goal.deadline or now, now + _AFTERWARDS))
    return tuple(_order(goal, site, (), until, because, f"{_instant(now)}/over", now) for site in sorted(fleet.sites))


def _found(
    fleet: Fleet, goal: Goal, names: list[str], reference: float, work: float, left_g: float, now: datetime
) -> _Found:
    known = [fleet.sites[name] for name in names]
    sites = tuple(one.capacity(name, goal.of(name), reference) for name, one in zip(names, known, strict=True))
    forecasts = tuple(forecast for one in known if (forecast := goal.weighed(one)) is not None)
    intensities = tuple(goal.intensity(one, now) for one in known)

    def until(end: datetime) -> Timetable:
        bounds = slot_bounds(now, end, min(one.step_s for one in forecasts))
        return Timetable(sites, forecasts, intensities, bounds, work)

    in_time = goal.deadline is None or now < goal.deadline
    table = until(goal.deadline if goal.deadline is not None and in_time else now + HORIZON)
    if goal.objective == "budget":
        found = within(sites, table.levels, table.slots_s, work, left_g, EXPECTED_ERROR)
        return _Found(table, found.on, found.reserve)
    if in_time:
        found = plan(sites, table.levels, table.slots_s, work, EXPECTED_ERROR)
        if found.met:
            return _Found(table, found.on, found.reserve)
    table = until(_soonest(sites, work, goal.valid, now))
    return _Found(table, table.everything, hurries=True)


def _soonest(sites: tuple[Capacity, ...], work: float, least: timedelta, now: datetime) -> datetime:
    """When the work is done if everything runs from now on, or a little later."""
    lost = sum(site.speed * (site.start_up_s + site.drain_s) / 3600.0 for site in sites if not site.is_on)
    hours = (work + lost) / sum(site.speed for site in sites) * _MARGIN
    return now + max(least, timedelta(hours=min(hours, _LONGEST / timedelta(hours=1))))


def _said(goal: Goal, found: _Found, left_g: float, doubts: Mapping[str, str], now: datetime) -> Decision:
    table, on = found.table, found.on
    finish, progress = table.finish(on), table.progress(on)[:, -1]
    outcome = Outcome(
        objective=goal.objective,
        work=table.work,
        done=min(float(progress.sum()), table.work),
        done_at=None if finish is None else finish.at,
        deadline=goal.deadline,
        hurries=found.hurries,
        emissions_kg=max(0.0, table.cost(table.grams, on, finish)) / 1000.0,
        cost=table.cost(table.levels, on, finish),
        budget_kg=left_g / 1000.0,
        dearest=float(table.levels[on].max()) if on.any() else None,
        doubts=doubts,
    )
    made = PlanMade(
        id=derived_id(f"{goal.federation}/{_instant(now)}", PlanMade.topic, goal.federation),
        at=now,
        federation=goal.federation,
        objective=goal.objective,
        deadline=goal.deadline,
        remaining_site_hours=table.work,
        reserve_site_hours=found.reserve,
        finishes_at=outcome.done_at,
        emissions_kg=outcome.emissions_kg,
        site_hours={site.name: float(progress[place]) for place, site in enumerate(table.sites)},
        because=of_fleet(outcome, now),
    )
    return Decision(made, _orders(goal, found, outcome, now))


def _orders(goal: Goal, found: _Found, outcome: Outcome, now: datetime) -> tuple[FollowPlan, ...]:
    table, price, orders = found.table, found.table.price(found.on), []
    for place, site in enumerate(table.sites):
        runs, own_price = found.on[place], price / site.kw_per_speed
        idle = int(runs.argmax()) if runs.any() else len(runs)
        is_dear = idle > 0 and float(table.levels[place, :idle].min()) > own_price
        spans = table.spans(runs)
        because = of_site(outcome, spans, own_price, is_dear, now)
        orders.append(_order(goal, site.name, spans, now + goal.valid, because, _instant(now), now))
    return tuple(orders)


def _order(
    goal: Goal, site: str, spans: tuple[Span, ...], until: datetime, because: str, cause: str, now: datetime
) -> FollowPlan:
    return FollowPlan(
        id=derived_id(f"{goal.federation}/{cause}", FollowPlan.topic, site),
        at=now,
        site=site,
        federation=goal.federation,
        spans=spans,
        valid_until=until,
        because=because,
    )


def _instant(now: datetime) -> str:
    return now.astimezone(UTC).isoformat()
