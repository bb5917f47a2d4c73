"""Values of any signal, as they come from whoever publishes them: believed or refused, never repaired."""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal

from windfall.contracts.events import UNITS, SignalKind

Refusal = Literal["not-finite", "implausible", "unit", "kind", "order", "future", "disagrees", "unreadable"]

PLAUSIBLE: Final[dict[SignalKind, tuple[float, float]]] = {
    SignalKind.MARGINAL: (0.0, 5000.0),
    SignalKind.AVERAGE: (0.0, 5000.0),
    SignalKind.PERCENTILE: (0.0, 100.0),
    SignalKind.PRICE: (-10_000.0, 50_000.0),
    SignalKind.SURPLUS: (-1e9, 1e9),
}
"""Lowest and highest value that can be true, in the unit of the kind. No power on Earth is dirtier than 5000 gCO2/kWh:
lignite at its worst stays under 2000, so more is a wrong unit or a broken meter. Europe's harmonised price limits are
-500 and 5000 EUR/MWh; scarcity prices elsewhere reach 10 times that."""
G_PER_LB: Final = 453.59237
"""Grams in an international avoirdupois pound, exactly (1959)."""


@dataclass(frozen=True, slots=True)
class Quote:
    """One value of a signal from ``point_time`` on, in the unit of its kind (``contracts.events.UNITS``).

    Raises:
        ValueError: ``point_time`` has no time zone.
    """

    kind: SignalKind
    point_time: datetime
    value: float
    region: str = ""
    """As the provider calls it."""
    estimated: bool = False
    """The provider says that it is a guess of its own."""

    def __post_init__(self) -> None:
        if self.point_time.tzinfo is None:
            raise ValueError(f"the point time {self.point_time.isoformat()} has no time zone")

    @property
    def unit(self) -> str:
        return UNITS[self.kind]

    def age(self, now: datetime) -> timedelta:
        """How old it is; negative when it lies ahead."""
        return now - self.point_time


class Unbelievable(ValueError):
    """A value that is refused: why in one word, and in words for a person."""

    def __init__(self, reason: Refusal, detail: str, point_time: datetime | None = None) -> None:
        super().__init__(detail)
        self.reason: Refusal = reason
        self.detail = detail
        self.point_time = point_time


def believed(quote: Quote) -> Quote:
    """The quote, if its value can be true.

    Raises:
        Unbelievable: it is not finite, or outside of what its kind can be.
    """
    if not math.isfinite(quote.value):
        raise Unbelievable("not-finite", f"{quote.value} {quote.unit}", quote.point_time)
    lowest, highest = PLAUSIBLE[quote.kind]
    if not lowest <= quote.value <= highest:
        detail = f"{quote.value:g} {quote.unit} is not from {lowest:g} to {highest:g}"
        raise Unbelievable("implausible", detail, quote.point_time)
    return quote


def of_unit(kind: SignalKind, value: float, unit: str, point_time: datetime) -> Quote:
    """A quote of a value that names its unit.

    Raises:
        Unbelievable: the unit is not that of the kind, or the value cannot be true.
    """
    if unit != UNITS[kind]:
        raise Unbelievable("unit", f"{unit or 'no unit'} instead of {UNITS[kind]}", point_time)
    return believed(Quote(kind, point_time, value))
