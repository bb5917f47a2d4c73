"""Simulated fleets: the same decisions wherever they are looked at, and accounts that add up."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.energy.column import Column, spans_below
from windfall.energy.contest import Contest, Contestant, run
from windfall.energy.forecast import EXPECTED_ERROR, PERFECT
from windfall.energy.ledger import Interval, account
from windfall.energy.noise import Noisy
from windfall.energy.outcome import Outcome
from windfall.energy.planned import by_plan
from windfall.energy.policy import Policy
from windfall.energy.power import PowerModel, SiteState
from windfall.energy.ruled import by_rule
from windfall.energy.shipped import SYNTHETIC_SITES, synthetic_trace
from windfall.energy.signals import Reading, Trace, parse_trace
from windfall.energy.simulate import Aim, Life, Objective, SimulatedSite, always_on, ended, finished_at
from windfall.energy.tally import training_h, window_use

DAY = datetime(2026, 1, 1, tzinfo=UTC)
END = DAY + timedelta(days=1)
POLICY = Policy(
    close_above_g_per_kwh=100.0,
    start_up=timedelta(seconds=240),
    drain=timedelta(seconds=15),
    closing_lead=timedelta(seconds=15),
)
OFTEN = timedelta(minutes=40)
TRACES = {name: parse_trace(synthetic_trace(), name) for name in SYNTHETIC_SITES}


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


def fleet(seed: int | None = None, **changes: Any) -> tuple[SimulatedSite, ...]:
    columns = {name: Column.of(trace) for name, trace in TRACES.items()}
    return tuple(
        SimulatedSite(name, column, None if seed is None else Noisy(column, seed * 1000 + place), **changes)
        for place, (name, column) in enumerate(columns.items())
    )


def ran(who: Contestant, aim: Aim = Aim(), seed: int | None = None, end: datetime = END) -> Outcome:
    return run(Contest(fleet(seed), DAY, end, POLICY, aim, OFTEN), who)


LEVELS = st.lists(st.sampled_from([20.0, 80.0, 99.0, 120.0, 300.0, 600.0]), min_size=3, max_size=120)
SPANS = st.sampled_from([timedelta(0), timedelta(minutes=5), timedelta(minutes=12)])


@settings(deadline=None)
@given(LEVELS, SPANS, SPANS, SPANS, st.booleans())
def test_looking_only_where_it_matters_changes_nothing(
    levels: list[float], dwell: timedelta, grace: timedelta, rest: timedelta, sees: bool
) -> None:
    points = tuple(Reading(DAY + place * timedelta(minutes=5), level) for place, level in enumerate(levels))
    column = Column.of(Trace(points))
    policy = replace(POLICY, close_above_g_per_kwh=150.0, dwell=dwell, grace=grace, minimum_off=rest, error=PERFECT)
    end = DAY + len(levels) * timedelta(minutes=5)
    horizon = hours(72) if sees else None
    skipping = by_rule([SimulatedSite("a", column)], DAY, end, policy, horizon)
    assert by_rule([SimulatedSite("a", column)], DAY, end, policy, horizon, everywhere=True) == skipping


@pytest.mark.parametrize("who", list(Contestant))
@pytest.mark.parametrize("objective", [Objective.FAST, Objective.CARBON])
def test_intervals_are_whole_and_add_up_to_the_summary(who: Contestant, objective: Objective) -> None:
    outcome = ran(who, Aim(objective, 8.0), seed=1)
    sites = {site.name: site for site in fleet()}
    told = list(outcome.intervals())
    for name in sites:
        mine = [interval for interval in told if interval["site"] == name]
        assert mine[0]["start"] == DAY.isoformat() and mine[-1]["end"] == outcome.end.isoformat()
        assert all(a["end"] == b["start"] and a["state"] != b["state"] for a, b in pairwise(mine))
    instants = [
        Interval(
            interval["site"],
            SiteState(interval["state"]),
            datetime.fromisoformat(interval["start"]),
            datetime.fromisoformat(interval["end"]),
        )
        for interval in told
    ]
    # The ledger's own way of counting, step by step.
    counted = account(instants, TRACES, PowerModel(), 100.0).total
    summary = outcome.summary()
    assert summary["energy_kwh"] == pytest.approx(counted.energy_kwh, abs=1e-5)
    assert summary["emissions_kg"] == pytest.approx(counted.emissions_kg, abs=1e-5)
    assert summary["clean_energy_share"] == pytest.approx(counted.clean_energy_share, abs=1e-5)
    assert summary["site_hours"] == pytest.approx(8.0, abs=1e-3) and summary["finished"]


def test_fast_uses_clean_windows_and_little_else() -> None:
    ours, published, always, oracle = (ran(who, seed=1) for who in Contestant)
    assert ours.account.total.clean_energy_share > 0.985 > published.account.total.clean_energy_share
    assert oracle.account.total.clean_energy_share > 0.99
    assert min(use.share for use in oracle.window_use) > 0.95
    assert always.account.total.emissions_kg > 5 * ours.account.total.emissions_kg


def test_carbon_waits_for_the_cleanest_and_meets_its_deadline() -> None:
    aim = Aim(Objective.CARBON, 8.0, DAY + hours(24))
    ours, oracle, fast = ran(Contestant.WINDFALL, aim, 1), ran(Contestant.ORACLE, aim), ran(Contestant.WINDFALL)
    assert ours.in_time and oracle.in_time
    assert oracle.account.total.emissions_kg <= ours.account.total.emissions_kg
    per_hour = fast.account.total.emissions_kg / sum(fast.trained_h.values())
    assert ours.account.total.emissions_kg / 8.0 < per_hour


def test_a_deadline_that_is_near_is_met_with_whatever_power_there_is() -> None:
    aim = Aim(Objective.CARBON, 8.0, DAY + hours(4))
    hurried = ran(Contestant.WINDFALL, aim, 1)
    assert hurried.in_time and hurried.hours <= 4.0
    late = ran(Contestant.WINDFALL, Aim(Objective.CARBON, 30.0, DAY + hours(4)), 1)
    assert not late.in_time


def test_a_budget_is_kept() -> None:
    for kg in (0.05, 0.5, 5.0):
        outcome = run(
            Contest(fleet(1), DAY, END, POLICY, Aim(Objective.BUDGET, 8.0, None, kg), OFTEN), Contestant.WINDFALL
        )
        assert outcome.account.total.emissions_kg <= kg * 1.1 + 0.02
    assert outcome.finished


def test_cost_goes_where_the_price_is_low() -> None:
    price = {
        name: Column(site.column.times, np.where(np.arange(289) < 144, cheap, 200.0), site.column.end)
        for site, (name, cheap) in zip(fleet(), (("site-a", -20.0), ("site-b", 100.0), ("site-c", 150.0)), strict=True)
    }
    sites = tuple(replace(site, price=price[site.name]) for site in fleet())
    outcome = run(Contest(sites, DAY, END, POLICY, Aim(Objective.COST, 8.0), OFTEN), Contestant.WINDFALL)
    assert outcome.cost is not None and outcome.cost < 0.0
    assert outcome.trained_h["site-a"] == pytest.approx(8.0, abs=0.1)


@pytest.mark.parametrize(
    ("aim", "says"),
    [
        (Aim(Objective.CARBON), "--work-site-hours"),
        (Aim(Objective.BUDGET, 5.0), "--budget-kg"),
        (Aim(Objective.COST, 5.0), "--price"),
    ],
)
def test_aims_that_cannot_be_planned_for(aim: Aim, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ran(Contestant.WINDFALL, aim)


def test_the_same_seed_gives_the_same_life() -> None:
    first, again = (by_rule(fleet(seed), DAY, END, POLICY) for seed in (1, 1))
    assert first == again
    planned = [by_plan(fleet(1), DAY, END, POLICY, Aim(Objective.CARBON, 6.0), replan=OFTEN).lives for _ in range(2)]
    assert planned[0] == planned[1]


def test_a_noisy_forecast_knows_the_present_and_errs_more_the_further_it_sees() -> None:
    column = Column.of(TRACES["site-a"])
    errors: list[list[float]] = []
    for seed in range(40):
        noisy = Noisy(column, seed)
        ahead = noisy.ahead(24, 20 * 3600.0)
        truth = column.values[24 : 24 + len(ahead)]
        assert ahead[0] == truth[0]
        wrong = (ahead < 100.0) != (truth < 100.0)
        errors.append([float(wrong[1:13].mean()), float(wrong[-120:].mean())])
    near, far = np.array(errors).mean(axis=0)
    assert near < far < 0.3
    assert EXPECTED_ERROR.timing(hours(24)) == timedelta(minutes=73)


def test_lives_end_when_the_work_is_done() -> None:
    lives = always_on(["a", "b"], DAY, POLICY)
    done = finished_at(lives, [1.0, 1.0], END, 4.0)
    assert done == DAY + hours(2) + timedelta(seconds=240)
    cut = ended(lives, done)
    assert all(life.changes[-1] == (done, SiteState.OFF) for life in cut)
    assert finished_at(lives, [1.0, 3.0], END, 4.0) == DAY + hours(1) + timedelta(seconds=240)
    assert finished_at([Life.of("a", ((DAY, SiteState.OFF),))], [1.0], END, 1.0) is None


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(1, 90), min_size=1, max_size=12), min_size=1, max_size=4), st.floats(0.01, 9.0))
def test_work_is_done_when_so_much_was_trained(minutes: list[list[int]], work: float) -> None:
    states = (SiteState.TRAINING, SiteState.OFF)
    lives = []
    for place, lasting in enumerate(minutes):
        begins = [DAY + timedelta(minutes=sum(lasting[:count])) for count in range(len(lasting))]
        lives.append(Life.of(f"s{place}", [(at, states[count % 2]) for count, at in enumerate(begins)]))
        assert lives[-1] == Life.of(f"s{place}", lives[-1].changes)
    speeds = [1.0 + place / 2 for place in range(len(lives))]

    def trained(until: datetime) -> float:
        sites = [
            SimulatedSite(life.site, fleet()[0].column, speed=speed) for life, speed in zip(lives, speeds, strict=True)
        ]
        return sum(training_h(life, site, until) for life, site in zip(lives, sites, strict=True))

    done = finished_at(lives, speeds, END, work)
    if done is None:
        assert trained(END) < work
    else:
        assert trained(done) == pytest.approx(work, abs=1e-6)
        assert trained(done - timedelta(seconds=1)) < work


def test_sites_that_are_made_at_each_access_are_walked_twice_at_most() -> None:
    class Counted(Sequence[Any]):
        walks = 0

        def __len__(self) -> int:
            return 3

        def __getitem__(self, place: Any) -> Any:
            self.walks += place == 0
            return fleet(1)[place]

    for who in Contestant:
        for work, walks in ((None, 1), (4.0, 2)):
            sites = Counted()
            contest = Contest(sites, DAY, END, POLICY, Aim(work_site_hours=work))
            lazily = run(contest, who)
            assert sites.walks == walks
            held = run(replace(contest, sites=fleet(1)), who)
            assert lazily.lives == held.lives and list(lazily.intervals()) == list(held.intervals())


def naive_spans(values: Sequence[float], threshold: float) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for place, value in enumerate(values):
        if value < threshold:
            if found and found[-1][1] == place:
                found[-1] = (found[-1][0], place + 1)
            else:
                found.append((place, place + 1))
    return found


@given(
    st.lists(st.sampled_from([50.0, 200.0]), min_size=30, max_size=300),
    st.lists(st.integers(1, 60), max_size=20),
    st.integers(0, 1500),
)
def test_the_use_of_windows_is_counted_as_by_hand(values: list[float], lasting: list[int], until: int) -> None:
    times = np.asarray(DAY.timestamp() + 300.0 * np.arange(len(values)), np.float64)
    column = Column(times, np.array(values), DAY.timestamp() + 300.0 * len(values))
    states = (SiteState.OFF, SiteState.TRAINING)
    begins = [DAY + timedelta(minutes=sum(lasting[:count])) for count in range(len(lasting) + 1)]
    life = Life.of("a", [(at, states[count % 2]) for count, at in enumerate(begins)])
    end = DAY + timedelta(minutes=until)
    trained = np.zeros(5 * len(values), bool)
    for (since, state), stop in zip(life.changes, [*begins[1:], end], strict=True):
        if state is SiteState.TRAINING:
            trained[int((since - DAY).total_seconds() // 60) : int((min(stop, end) - DAY).total_seconds() // 60)] = True
    expected = [
        (5 * first, min(5 * last, until), trained[5 * first : min(5 * last, until)].mean())
        for first, last in naive_spans(values, 100.0)
        if last - first >= 6 and 5 * first < until
    ]
    found = window_use(life, SimulatedSite("a", column), DAY, end, 100.0)
    assert (found.begins - DAY.timestamp()).tolist() == [60.0 * first for first, _, _ in expected]
    assert (found.ends - DAY.timestamp()).tolist() == [60.0 * last for _, last, _ in expected]
    assert found.shares.tolist() == pytest.approx([share for _, _, share in expected])


@given(st.lists(st.floats(0, 500), min_size=2, max_size=50))
def test_a_column_integrates_and_finds_its_clean_spans(values: list[float]) -> None:
    column = Column(np.arange(len(values)) * 1.0, np.array(values), float(len(values)))
    assert list(spans_below(column, 100.0)) == naive_spans(values, 100.0)
    whole = column.integral(np.array([0.0, column.end]))
    assert whole[1] - whole[0] == pytest.approx(sum(values))
    half = column.integral(np.array([0.5]))[0]
    assert half == pytest.approx(values[0] / 2)
