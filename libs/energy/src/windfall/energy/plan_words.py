"""What a plan says to people: one sentence for the fleet, and one for each site."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from windfall.contracts.commands import Span

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Outcome:
    """What came of planning."""

    objective: str
    work: float
    """Site-hours that are left."""
    done: float
    """Of these, by the plan."""
    done_at: datetime | None
    deadline: datetime | None
    hurries: bool
    """No plan does the work in time."""
    emissions_kg: float
    cost: float
    """EUR, of the objective *cost*."""
    budget_kg: float
    """What is left of it, of the objective *budget*."""
    dearest: float | None
    """Of the power that is used, in g/kWh or EUR/kWh; none when none is."""
    doubts: Mapping[str, str]
    """Why sites are not counted on."""


def of_fleet(outcome: Outcome, now: datetime) -> str:
    """Why the plan is as it is."""
    without = [f"{site} is not counted on: {why}" for site, why in outcome.doubts.items()]
    return "; ".join([_plan(outcome, now), *without])


def of_site(outcome: Outcome, spans: Sequence[Span], price: float, dear: bool, now: datetime) -> str:
    """Why a site is on or off.

    Args:
        outcome: of the fleet.
        spans: in which the site runs, oldest first.
        price: the plan's, per kWh of this site's power.
        dear: its power is above that price until its first span.
        now: when it is said.
    """
    if outcome.hurries:
        return f"on: {_late(outcome, now)}"
    if not spans:
        return f"off: {_others(outcome, dear)}"
    begins, ends = spans[0].start, spans[0].end
    if begins > now:
        return f"off until {clock(begins, now)} UTC: {_others(outcome, dear)}"
    again = f" and {len(spans) - 1} times later" if len(spans) > 1 else ""
    stays = f"on {clock(begins, now)}–{clock(ends, now)} UTC{again}"
    return f"{stays}, because its power is within the plan's price of {_level(outcome, price)}"


def clock(at: datetime, now: datetime) -> str:
    """The hour in UTC, with its day when it is not within one."""
    at = at.astimezone(UTC)
    return f"{at:%H:%M}" if abs(at - now) < _DAY else f"{at:%Y-%m-%d %H:%M}"


def _plan(outcome: Outcome, now: datetime) -> str:
    left = f"the work left, {outcome.work:.1f} site-hours,"
    if outcome.hurries:
        return f"{_late(outcome, now)} for {_spent(outcome)}"
    if outcome.work == 0.0:
        return "no work is left"
    if outcome.done_at is None:
        return (
            f"{outcome.done:.1f} of the {outcome.work:.1f} site-hours of work that are left fit, for {_spent(outcome)}"
        )
    below = "" if outcome.dearest is None else f" at {_level(outcome, outcome.dearest)} or less"
    before = "" if outcome.deadline is None else f" before {clock(outcome.deadline, now)} UTC"
    return f"{left} fits{below}{before}; done by {clock(outcome.done_at, now)} UTC for {_spent(outcome)}"


def _late(outcome: Outcome, now: datetime) -> str:
    instead = f" instead of {clock(outcome.deadline, now)} UTC" if outcome.deadline else ""
    done = f"done at {clock(outcome.done_at, now)} UTC{instead}" if outcome.done_at else "its end cannot be seen"
    return f"no plan can do the work in time: everything runs; {done}"


def _others(outcome: Outcome, dear: bool) -> str:
    if not dear:
        return "other hours or sites suffice"
    return f"other hours or sites are {'cheaper' if outcome.objective == 'cost' else 'cleaner'}"


def _level(outcome: Outcome, level: float) -> str:
    return f"{level * 1000.0:.0f} EUR/MWh" if outcome.objective == "cost" else f"{level:.0f} gCO2/kWh"


def _spent(outcome: Outcome) -> str:
    if outcome.objective == "cost":
        return f"{outcome.cost:.2f} EUR"
    of = f" of the {outcome.budget_kg:.2f} kg that are left" if outcome.objective == "budget" else " kg"
    return f"{outcome.emissions_kg:.2f}{of}"
