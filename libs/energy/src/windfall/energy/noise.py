"""A forecast that is as wrong as real ones: made from what came, by an error model, from a seed.

The forecast that is issued at ``t`` for ``T`` is what came at ``T + σ_timing(T - t) · z``, times
``exp(σ_level(T - t) · y)``. ``z`` and ``y`` are standard normal and correlated along ``T`` over three hours (an
Ornstein-Uhlenbeck process), so that a ramp is missed as a whole; 80 % of each is the same in every forecast and the
rest is drawn anew every hour, so that a forecast changes its mind and still converges. The value at ``t`` itself is the
measured one, as providers guarantee it. σ are those of :class:`ForecastError`.
"""

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from windfall.energy.column import Column, Levels
from windfall.energy.forecast import EXPECTED_ERROR, ForecastError

_CORRELATION_S: Final = 3 * 3600.0
_KEPT: Final = 0.8
_REFRESHED_S: Final = 3600.0
_BANK: Final = 32
"""Independent processes that the hourly parts are taken from."""


@dataclass(frozen=True, eq=False)
class Noisy:
    """Forecasts of one site's column.

    Args:
        column: what comes.
        seed: of this site; the same seed gives the same forecasts.
        error: how wrong they are.
    """

    column: Column
    seed: int
    error: ForecastError = EXPECTED_ERROR

    def ahead(self, index: int, horizon_s: float) -> Levels:
        """The forecast that is issued at the column's ``index``: values from there on, the first one measured."""
        column = self.column
        last = int(np.searchsorted(column.times, column.times[index] + horizon_s, "right"))
        lead_s = column.times[index:last] - column.times[index]
        shift, scale = self._deviations(lead_s)
        hour = int(column.times[index] // _REFRESHED_S)
        z, y = self._drawn(hour, index, last)
        moved = np.rint(np.arange(index, last) + shift * z).astype(np.int64)
        levels: Levels = column.values[np.clip(moved, 0, len(column.values) - 1)] * np.exp(scale * y)
        levels[0] = column.values[index]
        return levels

    def _deviations(self, lead_s: NDArray[np.float64]) -> tuple[Levels, Levels]:
        error, step = self.error, self.column.step
        timing = error.timing_at_once.total_seconds() + error.timing_share * lead_s
        level = error.level_at_once + error.level_per_hour * lead_s / 3600.0
        most = error.timing_most / timedelta(seconds=1)
        return np.minimum(timing, most) / step, np.minimum(level, error.level_most)

    def _drawn(self, hour: int, index: int, last: int) -> tuple[Levels, Levels]:
        lasting, bank = self._processes
        fresh = np.random.default_rng((self.seed, hour)).integers(_BANK, size=2)
        offset = fresh[1] * 7919 % lasting.shape[1]
        place = (np.arange(index, last) + offset) % lasting.shape[1]
        rest = np.sqrt(1.0 - _KEPT**2)
        return (
            _KEPT * lasting[0, index:last] + rest * bank[fresh[0], place],
            _KEPT * lasting[1, index:last] + rest * bank[(fresh[0] + 1) % _BANK, place],
        )

    @cached_property
    def _processes(self) -> tuple[Levels, Levels]:
        drawn = np.random.default_rng(self.seed)
        length = len(self.column.values)
        kept = float(np.exp(-self.column.step / _CORRELATION_S))
        innovations = drawn.standard_normal((2 + _BANK, length))
        innovations[:, 1:] *= np.sqrt(1.0 - kept**2)
        processes = np.empty_like(innovations)
        value = innovations[:, 0]
        processes[:, 0] = value
        for place in range(1, length):
            value = kept * value + innovations[:, place]
            processes[:, place] = value
        return processes[:2], processes[2:]
