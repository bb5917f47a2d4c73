"""Verdicts of a whole trace, and the runs of verdicts that lie ahead of each of its readings."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from windfall.energy.column import Column, moment
from windfall.energy.gate import Run
from windfall.energy.noise import Noisy
from windfall.energy.policy import Policy
from windfall.energy.verdict import Verdict

VERDICTS: Final = {int(verdict): verdict for verdict in Verdict}
"""By their codes."""
_DAY_S: Final = 86_400.0

Ahead = Callable[[int], Sequence[Run] | None]
"""The runs that a site expects at the index of a reading; none without a forecast."""


def codes_of(values: NDArray[np.float64], policy: Policy) -> NDArray[np.int8]:
    clean = values < policy.open_below_g_per_kwh
    dirty = values > policy.close_above_g_per_kwh
    return clean.astype(np.int8) - dirty.astype(np.int8)


def where_it_matters(column: Column, codes: NDArray[np.int8], policy: Policy, blind: bool) -> Sequence[int]:
    """The readings that can change a gate: where the verdict changes, as long after it as the policy is patient, and
    once a day, because what lies beyond the horizon comes into sight."""
    matters = np.empty(len(codes), bool)
    matters[0] = True
    matters[1:] = codes[1:] != codes[:-1]
    dirty_for = policy.grace if blind else policy.ride_through
    patience = max(policy.dwell, dirty_for, policy.minimum_on, policy.minimum_off).total_seconds()
    if patience:
        since = np.maximum.accumulate(np.where(matters, column.times, -np.inf))
        matters |= column.times - since <= patience + column.step
    matters[1:] |= np.floor(column.times[1:] / _DAY_S) != np.floor(column.times[:-1] / _DAY_S)
    found: list[int] = np.flatnonzero(matters).tolist()
    return found


def runs_of(times: NDArray[np.float64], codes: NDArray[np.int8]) -> list[Run]:
    starts = np.flatnonzero(np.concatenate(([True], codes[1:] != codes[:-1])))
    return [
        (moment(at), VERDICTS[code]) for at, code in zip(times[starts].tolist(), codes[starts].tolist(), strict=True)
    ]


def coming(column: Column, codes: NDArray[np.int8], horizon_s: float) -> Ahead:
    """What really comes, no further than the horizon."""
    starts = np.flatnonzero(codes[1:] != codes[:-1]) + 1
    begins: list[float] = column.times[starts].tolist()
    runs = runs_of(column.times, codes)[1:]

    def ahead(index: int) -> Sequence[Run]:
        now = column.times[index]
        first = bisect_right(begins, now)
        return runs[first : bisect_right(begins, now + horizon_s, first)]

    return ahead


def foreseen(forecast: Noisy, column: Column, policy: Policy, horizon_s: float) -> Ahead:
    """What is forecast. The forecast's column is the whole trace, of which this one is a part."""
    offset = int(np.searchsorted(forecast.column.times, column.times[1])) - 1

    def ahead(index: int) -> Sequence[Run]:
        levels = forecast.ahead(index + offset, horizon_s)
        times = forecast.column.times[index + offset : index + offset + len(levels)]
        return runs_of(times[1:], codes_of(levels[1:], policy)) if len(levels) > 1 else ()

    return ahead
