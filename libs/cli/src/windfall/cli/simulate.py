"""``windfall simulate``: from what a person typed to a contest that can be run, or one clear line that says why not."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from windfall.cli.made import Made
from windfall.cli.spool import Spool
from windfall.cli.trace_file import busy, columns_of, name_of, read
from windfall.energy.column import Column, moment
from windfall.energy.contest import Contest, Contestant, run
from windfall.energy.noise import Noisy
from windfall.energy.outcome import Outcome
from windfall.energy.policy import Policy
from windfall.energy.power import PowerModel
from windfall.energy.simulate import Aim, Objective, SimulatedSite
from windfall.servicekit.errors import Mistake

ALL: Final = "all"
_POSITIVE: Final = ("deadline_hours", "work_site_hours", "power_train", "budget_kg")
_FROM_ZERO: Final = ("power_idle", "power_provision", "provision_seconds", "drain_seconds", "replan_minutes")
_LONGEST: Final = 1e7
"""Of any amount: ten million hours are a thousand years."""


@dataclass(frozen=True)
class Asked:
    """What the person typed; each field is the option of its name."""

    trace: Path | None = None
    site: tuple[str, ...] = ()
    start: str | None = None
    end: str | None = None
    objective: str = "fast"
    policy: tuple[str, ...] = ("windfall",)
    deadline_hours: float | None = None
    work_site_hours: float | None = None
    budget_kg: float | None = None
    price: tuple[str, ...] = ()
    speed: tuple[str, ...] = ()
    open: float = 100.0
    close: float | None = None
    power_idle: float = 0.468
    power_train: float = 2.024
    power_provision: float | None = None
    provision_seconds: float = 240.0
    drain_seconds: float = 15.0
    forecast: str = "noisy:1"
    replan_minutes: float = 0.0


@dataclass(frozen=True)
class Simulation:
    """A contest, who takes part, and what a person should know of how the question was read."""

    contest: Contest
    contestants: tuple[Contestant, ...]
    notes: tuple[str, ...]


def prepare(asked: Asked) -> Simulation:
    """Read the trace and check everything that was asked.

    Raises:
        Mistake: whatever cannot be simulated.
    """
    contestants = _contestants(asked.policy)
    seed = _seed(asked.forecast)
    power = _power(asked)
    name, known = name_of(asked.trace), columns_of(asked.trace)
    wanted = _named("--site", asked.site, known) or {each: each for each in known}
    prices = _named("--price", asked.price, known, wanted)
    speeds = _speeds(asked.speed, wanted)
    # One column can serve several sites.
    intensities, costs = tuple(dict.fromkeys(wanted.values())), tuple(dict.fromkeys(prices.values()))
    columns, naive = read(asked.trace, intensities, costs)
    notes = [f"{name} has no time zones: its instants are read as UTC"] if naive else []
    start, end = _span(asked, columns[0], name, notes)

    def made(place: int, site: str) -> SimulatedSite:
        column = columns[intensities.index(wanted[site])]
        forecast = None if seed is None else Noisy(column, seed * 1000 + place)
        price = columns[len(intensities) + costs.index(prices[site])] if site in prices else None
        return SimulatedSite(site, column, forecast, power, speeds.get(site, 1.0), price)

    sites: Sequence[SimulatedSite] = Made(tuple(wanted), made)
    if not isinstance(columns, Spool):
        sites = tuple(sites)
    replan = timedelta(minutes=asked.replan_minutes)
    contest = Contest(sites, start, end, _policy(asked, power), _aim(asked, start, end, wanted, prices), replan)
    return Simulation(contest, contestants, tuple(notes))


def compete(simulation: Simulation) -> dict[Contestant, Outcome]:
    """Run every contestant; a terminal is told which one is at it."""
    outcomes = {}
    for place, who in enumerate(simulation.contestants, 1):
        with busy(f"simulating {who.value}, {place} of {len(simulation.contestants)}"):
            outcomes[who] = run(simulation.contest, who)
    return outcomes


def _contestants(typed: Sequence[str]) -> tuple[Contestant, ...]:
    if ALL in typed:
        return tuple(Contestant)
    return tuple(dict.fromkeys(Contestant(name) for name in typed))


def _seed(forecast: str) -> int | None:
    kind, _, seed = forecast.partition(":")
    if forecast == "perfect":
        return None
    if kind != "noisy" or not seed.isdecimal() or not seed.isascii():
        raise Mistake(f"--forecast is {forecast!r}", "Give perfect, or noisy:SEED with a whole number like noisy:1")
    return int(seed)


def _power(asked: Asked) -> PowerModel:
    for name in (*_POSITIVE, *_FROM_ZERO):
        value = getattr(asked, name)
        if value is None:
            continue
        if not 0.0 <= value <= _LONGEST or (value == 0.0 and name in _POSITIVE):
            least = "more than zero" if name in _POSITIVE else "zero or more"
            raise Mistake(f"--{name.replace('_', '-')} is {value:g}", f"Give a number, {least}")
    starting = asked.power_idle if asked.power_provision is None else asked.power_provision
    return PowerModel(asked.power_idle, asked.power_train, starting, asked.power_train)


def _policy(asked: Asked, power: PowerModel) -> Policy:
    drain = timedelta(seconds=asked.drain_seconds)
    for option, level in (("--open", asked.open), ("--close", asked.close)):
        if level is not None and not math.isfinite(level):
            raise Mistake(f"{option} is {level}", "Give gCO2/kWh from 0 to 5000")
    try:
        return Policy(
            open_below_g_per_kwh=asked.open,
            close_above_g_per_kwh=asked.open if asked.close is None else asked.close,
            start_up=timedelta(seconds=asked.provision_seconds),
            drain=drain,
            closing_lead=drain,
            start_up_share=power.provisioning_kw / power.training_kw,
        )
    except ValueError as error:
        raise _mistake(error) from error


def _aim(asked: Asked, start: datetime, end: datetime, sites: Mapping[str, str], prices: Mapping[str, str]) -> Aim:
    objective = Objective(asked.objective)
    if objective is not Objective.FAST and asked.work_site_hours is None:
        raise Mistake(f"the objective {objective.value} needs to know the work", "Give --work-site-hours")
    if objective is Objective.BUDGET and asked.budget_kg is None:
        raise Mistake("the objective budget needs a budget", "Give --budget-kg")
    if objective is not Objective.BUDGET and asked.budget_kg is not None:
        raise Mistake(f"the objective {objective.value} knows no budget", "Leave --budget-kg out, or ask for budget")
    missing = [site for site in sites if site not in prices]
    if objective is Objective.COST and missing:
        raise Mistake(f"the objective cost needs a price for {missing[0]}", f"Give --price {missing[0]}=COLUMN")
    deadline = None if asked.deadline_hours is None else start + timedelta(hours=asked.deadline_hours)
    if deadline is not None and deadline > end:
        cure = f"Give at most {(end - start) / timedelta(hours=1):g} hours, or a later --end"
        raise Mistake(f"the deadline {_said(deadline)} is after the end of the simulated time, {_said(end)}", cure)
    return Aim(objective, asked.work_site_hours, deadline, asked.budget_kg)


def _span(asked: Asked, column: Column, name: str, notes: list[str]) -> tuple[datetime, datetime]:
    first, last = moment(column.times[0]), moment(column.end)
    start = first if asked.start is None else _instant("--start", asked.start, notes)
    end = last if asked.end is None else _instant("--end", asked.end, notes)
    if start >= end:
        raise Mistake(f"--start {_said(start)} is not before --end {_said(end)}", "Swap them, or give more hours")
    for option, at in (("--start", start), ("--end", end)):
        if not first <= at <= last:
            cure = f"{name} is known from {_said(first)} to {_said(last)}; stay within"
            raise Mistake(f"{option} {_said(at)} is outside the trace", cure)
    try:
        column.cut(start.timestamp(), end.timestamp())
    except ValueError as error:
        raise Mistake(
            f"{name} has no two readings between {_said(start)} and {_said(end)}", "Give more hours"
        ) from error
    return start, end


def _instant(option: str, text: str, notes: list[str]) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        cure = "Write it like 2026-01-01T00:00:00Z"
        raise Mistake(f"{option} is {text!r}, no instant of ISO 8601", cure) from error
    if at.tzinfo is None:
        notes.append(f"{option} {text} has no time zone: it is read as UTC")
        return at.replace(tzinfo=UTC)
    return at.astimezone(UTC)


def _named(
    option: str, typed: Sequence[str], columns: Sequence[str], sites: Mapping[str, str] | None = None
) -> dict[str, str]:
    """``NAME=COLUMN`` by name; a name alone is that of its column. With sites, only theirs."""
    found: dict[str, str] = {}
    for each in typed:
        site, equals, column = each.partition("=")
        column = column if equals else site
        if not site or site in found:
            raise Mistake(f"{option} {each!r} {'names a site twice' if site else 'has no name'}", "Give NAME=COLUMN")
        if sites is not None and site not in sites:
            raise Mistake(f"{option} {each!r} is of no site", f"The sites are: {', '.join(sites)}")
        if column not in columns:
            raise Mistake(f"{option} {each!r}: there is no column {column!r}", f"There are: {', '.join(columns)}")
        found[site] = column
    return found


def _speeds(typed: Sequence[str], sites: Mapping[str, str]) -> dict[str, float]:
    found = {}
    for each in typed:
        site, _, text = each.partition("=")
        try:
            speed = float(text)
        except ValueError:
            speed = math.nan
        if not 0.0 < speed < _LONGEST:
            raise Mistake(f"--speed {each!r} is no speed", "Give SITE=X, X in speeds of the reference site, like 0.5")
        if site not in sites:
            raise Mistake(f"--speed {each!r} is of no site", f"The sites are: {', '.join(sites)}")
        found[site] = speed
    return found


def _mistake(error: ValueError) -> Mistake:
    cause, _, cure = str(error).partition("; ")
    return Mistake(cause, cure[:1].upper() + cure[1:] or "Ask for something else")


def _said(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%SZ}"
