"""Values that somebody said on the bus: ``signal.observed``, by a meter, a market or a person."""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Final, Literal, Self

from pydantic import Field

from windfall.contracts.events import SignalKind, SignalObserved
from windfall.energy.quotes import Quote, Unbelievable, believed, of_unit
from windfall.energy_watcher.cadence import Cadence
from windfall.energy_watcher.section import Means, Section
from windfall.servicekit.errors import Transient

MOST_KEPT: Final = 10_000
"""Values that are remembered: 34 days of one every five minutes."""


class BusSection(Section):
    """No credential of its own: whoever may publish for the site on the bus may speak."""

    provider: Literal["bus"]
    kind: SignalKind
    period: timedelta = Field(default=timedelta(minutes=5), gt=timedelta(0))
    """How often somebody is expected to speak; a value that lies further ahead than this is refused."""


class Bus:
    """What was said about one signal of a site, as long as this process remembers it."""

    def __init__(self, told: BusSection, means: Means) -> None:
        self.kind = told.kind
        self.region = means.site
        self._signal = means.signal
        self._cadence = Cadence(told.period)
        self._said: deque[Quote] = deque(maxlen=MOST_KEPT)
        self._expected: tuple[Quote, ...] = ()

    @classmethod
    def of(cls, told: BusSection, means: Means) -> Self:
        return cls(told, means)

    def hear(self, event: SignalObserved, now: datetime) -> bool:
        """Remember what was said. False when it is about another signal or site, or was heard before.

        Raises:
            Unbelievable: it has another kind or unit, cannot be true, lies too far ahead, or is older than the last;
                or its forecast is out of order. Nothing of it is remembered.
        """
        if (event.site, event.signal) != (self.region, self._signal):
            return False
        if event.kind is not self.kind:
            raise Unbelievable("kind", f"{event.kind} instead of {self.kind}", event.point_time)
        quote = self._quote(of_unit(event.kind, event.value, event.unit, event.point_time))
        if quote.point_time - now > self._cadence.period:
            raise Unbelievable("future", f"a value of {quote.point_time.isoformat()}", quote.point_time)
        if self._said and quote.point_time <= self._said[-1].point_time:
            if quote in self._said:
                return False
            last = self._said[-1].point_time.isoformat()
            raise Unbelievable("order", f"{quote.point_time.isoformat()} comes after {last}", quote.point_time)
        expected = tuple(believed(Quote(self.kind, at.point_time, at.value, self.region)) for at in event.forecast)
        if any(later.point_time <= earlier.point_time for earlier, later in pairwise((quote, *expected))):
            raise Unbelievable("order", "the forecast is not in order of time after the value", quote.point_time)
        self._said.append(quote)
        self._expected = expected
        return True

    async def current(self, now: datetime) -> Quote:
        known = self._known(now)
        if not known:
            raise Transient(f"nobody has said anything about {self._signal} of {self.region} yet")
        return self._cadence.current(known[-1], now)

    async def history(self, after: datetime | None, now: datetime) -> Sequence[Quote]:
        return tuple(quote for quote in self._known(now) if after is None or quote.point_time > after)

    async def forecast(self, now: datetime, horizon: timedelta) -> Sequence[Quote]:
        return tuple(quote for quote in self._expected if now < quote.point_time <= now + horizon)

    def next_at(self, now: datetime) -> datetime | None:
        return None

    def ended(self, now: datetime) -> bool:
        return False

    async def close(self) -> None:
        """There is nothing to let go of."""

    def _quote(self, heard: Quote) -> Quote:
        return Quote(heard.kind, heard.point_time, heard.value, self.region)

    def _known(self, now: datetime) -> tuple[Quote, ...]:
        said = tuple(self._said)
        return said[: bisect_right(said, now, key=lambda quote: quote.point_time)]
