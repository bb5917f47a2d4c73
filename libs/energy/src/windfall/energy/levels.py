"""A forecast as the mean levels of the slots that a plan is made of."""

import math
from datetime import datetime
from typing import Final

import numpy as np

from windfall.contracts.events import SignalForecast
from windfall.energy.planner import Floats

MOST_SLOTS: Final = 600
"""A plan that reaches further has longer slots: two days of 5 minutes, five of 12."""
_DAY_S: Final = 86_400.0
_MOMENT_S: Final = 1.0


def slot_bounds(now: datetime, until: datetime, step_s: float) -> Floats:
    """Seconds since the epoch at which slots begin and end: ``now``, whole multiples of the step, and ``until``."""
    start, end = now.timestamp(), until.timestamp()
    step = step_s * math.ceil(max(1.0, (end - start) / MOST_SLOTS / step_s))
    inner = np.arange(math.floor(start / step) + 1, math.ceil(end / step)) * step
    inner = inner[(inner > start + _MOMENT_S) & (inner < end - _MOMENT_S)]
    return np.concatenate(([start], inner, [end]))


def continued(values: Floats, step_s: float, count: int) -> Floats:
    """The first ``count`` values; where fewer are known, the last day that is known repeats itself."""
    if len(values) >= count:
        return values[:count]
    day = max(1, min(len(values), round(_DAY_S / step_s)))
    return np.concatenate((values, np.resize(values[-day:], count - len(values))))


def mean_levels(forecast: SignalForecast, bounds: Floats) -> Floats:
    """The mean of each slot, in the unit of the forecast.

    Args:
        forecast: one value at least, from before the first slot on.
        bounds: seconds since the epoch, one more than there are slots.
    """
    # A site's clock may be a little ahead of ours.
    issued = min(forecast.issued_at.timestamp(), float(bounds[0]))
    offsets = bounds - issued
    values = continued(np.array(forecast.values), forecast.step_s, max(1, math.ceil(offsets[-1] / forecast.step_s)))
    sums = np.concatenate(([0.0], np.cumsum(values) * forecast.step_s))
    edges = forecast.step_s * np.arange(len(sums))
    return np.asarray(np.diff(np.interp(offsets, edges, sums)) / np.diff(bounds))
