"""The planner against brute force, and what its answers promise."""

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from windfall.energy.budget import within
from windfall.energy.forecast import ForecastError
from windfall.energy.planner import Capacity, Floats, Plan, Schedule, plan
from windfall.energy.power import PowerModel

HOUR = 3600.0


def slots(count: int, seconds: float = HOUR) -> Floats:
    return np.full(count, seconds)


def free(name: str, **changes: Any) -> Capacity:
    """A site that starts at no cost."""
    return Capacity(name, **{"start_up_s": 0.0, **changes})


def test_the_cheapest_slots_are_taken() -> None:
    levels = np.array([[300.0, 20.0, 500.0, 40.0], [100.0, 90.0, 10.0, 600.0]])
    found = plan([free("a"), free("b")], levels, slots(4), 3.0)
    assert found.on.tolist() == [[False, True, False, True], [False, False, True, False]]
    assert (found.met, found.work) == (True, 3.0)
    assert found.cost == pytest.approx(2.024 * 70.0)


def test_a_start_is_avoided_where_going_on_is_cheaper() -> None:
    levels = np.array([[10.0, 60.0, 10.0, 70.0]])
    dear = Capacity("a", start_up_s=1200.0)
    assert plan([dear], levels, slots(4), 2.3).on.tolist() == [[True, True, True, False]]
    assert plan([free("a")], levels, slots(4), 2.0).on.tolist() == [[True, False, True, False]]


def test_what_runs_already_needs_no_start() -> None:
    levels = np.array([[50.0, 50.0], [45.0, 45.0]])
    idle, running = Capacity("a", start_up_s=900.0), Capacity("b", start_up_s=900.0)
    assert plan([idle, running], levels, slots(2), 1.5).on.tolist() == [[False, False], [True, True]]
    on_a = [Capacity("a", start_up_s=900.0, is_on=True), running]
    assert plan(on_a, np.array([[50.0, 50.0], [60.0, 60.0]]), slots(2), 2.0).on.tolist() == [
        [True, True],
        [False, False],
    ]


def test_a_faster_or_thriftier_site_is_worth_dirtier_power() -> None:
    levels = np.array([[100.0], [150.0]])
    fast = free("b", speed=2.0)
    assert plan([free("a"), fast], levels, slots(1), 1.0).on.tolist() == [[False], [True]]
    thrifty = free("b", power=PowerModel(training_kw=1.0))
    assert plan([free("a"), thrifty], levels, slots(1), 1.0).on.tolist() == [[False], [True]]


def test_too_much_work_takes_everything_and_says_so() -> None:
    found = plan([free("a")], np.array([[900.0, 0.0]]), slots(2), 5.0)
    assert found.on.all() and not found.met and found.work == 2.0


def test_a_reserve_is_kept_for_the_forecasts_error() -> None:
    levels = np.concatenate((np.full(12, 400.0), np.linspace(10.0, 12.0, 12), np.linspace(60.0, 61.0, 12)))[None]
    sure = plan([free("a")], levels, slots(36, 300.0), 0.5)
    careful = plan([free("a")], levels, slots(36, 300.0), 0.5, ForecastError(timing_share=0.3))
    assert sure.reserve == 0.0 < careful.reserve
    assert careful.work > sure.work


def test_negative_prices_are_used_first() -> None:
    found = plan([free("a")], np.array([[30.0, -50.0, 20.0]]) / 1000.0, slots(3), 1.0)
    assert found.on.tolist() == [[False, True, False]] and found.cost < 0.0


def test_levels_of_the_wrong_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="where"):
        plan([free("a")], np.zeros((2, 3)), slots(3), 1.0)


def best_by_force(sites: list[Capacity], levels: Floats, slots_s: Floats, work: float) -> float:
    """The least cost of any plan that does the work."""
    schedule = Schedule(tuple(sites), levels, slots_s)
    shape = levels.shape
    every = np.array(list(itertools.product((False, True), repeat=shape[0] * shape[1]))).reshape(-1, *shape)
    enough = every[schedule.work(every) >= work - 1e-9]
    return float(schedule.cost(enough).min())


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.sampled_from([0.0, 15.0, 60.0, 90.0, 450.0]), min_size=5, max_size=5), min_size=2, max_size=2),
    st.sampled_from([0.0, 240.0]),
    st.floats(0.3, 6.0),
)
def test_near_the_best_that_force_finds(levels: list[list[float]], start_up_s: float, work: float) -> None:
    sites = [Capacity("a", start_up_s=start_up_s), Capacity("b", start_up_s=start_up_s, speed=1.5)]
    table = np.array(levels)
    found = plan(sites, table, slots(5), work)
    if not found.met:
        return
    # A price buys whole stretches: it may do more work than was asked for, and does that at the least cost there is, as
    # far as a price is found exactly.
    assert best_by_force(sites, table, slots(5), work) <= found.cost + 1e-6
    assert found.cost <= best_by_force(sites, table, slots(5), found.work) + 0.002 * 2.024 * 450.0


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.floats(0.5, 20.0))
def test_more_work_never_costs_less(seed: int, work: float) -> None:
    levels = np.random.default_rng(seed).choice([0.0, 20.0, 70.0, 450.0, 600.0], (3, 24))
    sites = [Capacity(name) for name in "abc"]
    less, more = (plan(sites, levels, slots(24, 1800.0), each) for each in (work, work * 1.5))
    assert less.cost <= more.cost + 1e-6 or not more.met


def test_the_same_question_has_the_same_answer() -> None:
    levels = np.random.default_rng(3).uniform(0, 600, (3, 60))
    first, second = (plan([Capacity(name) for name in "abc"], levels, slots(60, 300.0), 4.0) for _ in range(2))
    assert np.array_equal(first.on, second.on) and first.price == second.price


def test_a_budget_decides_how_early_it_can_be() -> None:
    levels = np.array([[400.0, 400.0, 50.0, 51.0, 5.0, 6.0]])
    tight, loose, none = (
        within([free("a")], levels, slots(6), 2.0, budget, None) for budget in (2.024 * 12, 2.024 * 102, 2.024 * 5)
    )
    assert tight.on.tolist() == [[False, False, False, False, True, True]]
    assert loose.on.tolist() == [[False, False, True, True, False, False]]
    assert not none.met and none.cost <= 2.024 * 5


@pytest.mark.parametrize("budget", [0.0, 100.0, 1000.0, 1e6])
def test_no_plan_is_over_its_budget(budget: float) -> None:
    levels = np.random.default_rng(5).choice([0.0, 20.0, 450.0], (3, 48))
    found: Plan = within([Capacity(name) for name in "abc"], levels, slots(48, 300.0), 6.0, budget, None)
    assert found.cost <= budget + 1e-9
