"""As early as a budget allows."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from windfall.energy.forecast import ForecastError
from windfall.energy.planner import PRICES, ROUNDS, Capacity, Floats, Plan, Schedule, plan


def within(
    sites: Sequence[Capacity], levels: Floats, slots_s: Floats, work: float, budget: float, error: ForecastError | None
) -> Plan:
    """The plan that does the work earliest without costing more than a budget.

    The later the end, the cheaper the cheapest plan, so the earliest end is found by bisection. Where even all slots
    are too few, as much is done as the budget pays for, cheapest first, and the plan is not ``met``.
    """
    low, high = 1, len(slots_s)
    whole = plan(sites, levels, slots_s, work, error)
    if not whole.met or whole.cost > budget:
        return _as_much_as(sites, levels, slots_s, work, budget)
    best = whole
    while low < high:
        middle = (low + high) // 2
        tried = plan(sites, levels[:, :middle], slots_s[:middle], work, error)
        if tried.met and tried.cost <= budget:
            high, best = middle, tried
        else:
            low = middle + 1
    idle = np.zeros((len(sites), len(slots_s) - best.on.shape[1]), bool)
    return replace(best, on=np.concatenate((best.on, idle), axis=1))


def _as_much_as(sites: Sequence[Capacity], levels: Floats, slots_s: Floats, work: float, budget: float) -> Plan:
    schedule = Schedule(tuple(sites), levels, slots_s)
    low, high = schedule.lowest_price, schedule.highest_price
    chosen = np.zeros((1, *levels.shape), bool)
    price = low
    for _ in range(ROUNDS):
        prices = np.linspace(low, high, PRICES)
        on = schedule.best(prices)
        paid = np.flatnonzero((schedule.cost(on) <= budget) & (schedule.work(on) <= work))
        if not len(paid):
            break
        place = int(paid[-1])
        chosen, price = on[place : place + 1], float(prices[place])
        low, high = price, float(prices[min(place + 1, PRICES - 1)])
    done, cost = float(schedule.work(chosen)[0]), float(schedule.cost(chosen)[0])
    return Plan(on=chosen[0], price=price, work=done, reserve=0.0, cost=cost, met=False)
