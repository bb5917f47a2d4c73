"""Asks every provider when its next value is due; none waits for another, and none can end the watcher.

An answer that does not come within the patience is taken when it does. What a provider cannot give now is logged once
and treated as silence: the site goes stale and fails closed. So is a mistake that a person must mend, like a token
that was revoked while the watcher runs.
"""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from windfall.energy.quotes import Quote, Unbelievable
from windfall.energy.vigil import News
from windfall.energy_watcher.provider import Provider
from windfall.servicekit.errors import Mistake, Transient

log = logging.getLogger(__name__)

PATIENCE_S: Final = 2.0
"""Wall seconds that values of one instant are waited for, to be judged together."""
AFTER_A_MISTAKE: Final = timedelta(minutes=10)
"""How long a provider rests that only a person can mend."""
LONGEST_REST: Final = timedelta(hours=1)
"""However long a provider asks to be left alone: a header that says a year must not silence a site for a year."""
FORECAST_KEPT: Final = timedelta(hours=2)
"""How long a forecast is used when no new one can be had."""


@dataclass(frozen=True)
class Answer:
    """What a provider said when it was asked."""

    news: Sequence[Quote] | Unbelievable = ()
    forecast: Sequence[Quote] | None = None
    """None when it could not be had."""
    trouble: str = ""
    rest: timedelta = timedelta(0)
    """How long to leave it alone, as far as the trouble says."""


@dataclass
class Asking:
    """The questions to all providers of a site: what is due, what is under way, what was heard of the future."""

    providers: Mapping[str, Provider]
    horizon: timedelta
    poll_interval: timedelta
    _asked_at: datetime | None = None
    _due: dict[str, datetime] = field(default_factory=dict)
    _under_way: dict[str, asyncio.Task[Answer]] = field(default_factory=dict)
    _forecasts: dict[str, tuple[datetime, Sequence[Quote]]] = field(default_factory=dict)
    _troubles: dict[str, str] = field(default_factory=dict)

    async def ask(self, now: datetime, known: Mapping[str, datetime | None]) -> News:
        """Ask whoever is due, and take what has come by the end of the patience.

        Args:
            now: the instant by our clock.
            known: the point time of each signal's last value.
        """
        if self._asked_at is not None and now < self._asked_at:
            # The clock was set back: what is due by the old one is not due for long.
            self._due.clear()
        self._asked_at = now
        for name, provider in self.providers.items():
            if name not in self._under_way and self._due.get(name, now) <= now:
                self._under_way[name] = asyncio.create_task(
                    _answer(provider, known[name], now, self.horizon), name=f"ask-{name}"
                )
        if self._under_way:
            await asyncio.wait(self._under_way.values(), timeout=PATIENCE_S)
        done = [name for name, task in self._under_way.items() if task.done()]
        return {name: self._taken(name, self._under_way.pop(name).result(), now) for name in done}

    def forecast(self, now: datetime) -> dict[str, Sequence[Quote]]:
        """What is expected of each signal, as far as it is not too old."""
        kept = {name: quotes for name, (at, quotes) in self._forecasts.items() if abs(now - at) <= FORECAST_KEPT}
        ahead = {name: tuple(quote for quote in quotes if quote.point_time > now) for name, quotes in kept.items()}
        return {name: quotes for name, quotes in ahead.items() if quotes}

    def foresee(self, name: str, forecast: Sequence[Quote], now: datetime) -> None:
        """Remember a forecast."""
        self._forecasts[name] = (now, forecast)

    def next_due(self, now: datetime) -> datetime | None:
        """When the next provider is to be asked; none while all are being asked."""
        waiting = [name for name in self.providers if name not in self._under_way]
        return min((self._due.get(name, now) for name in waiting), default=None)

    def under_way(self) -> Iterable[asyncio.Task[Answer]]:
        """Questions without an answer yet."""
        return self._under_way.values()

    async def close(self) -> None:
        """Drop every question, and let go of every provider."""
        for task in self._under_way.values():
            task.cancel()
        await asyncio.gather(*self._under_way.values(), return_exceptions=True)
        for provider in self.providers.values():
            await provider.close()

    def _taken(self, name: str, answer: Answer, now: datetime) -> Sequence[Quote] | Unbelievable:
        if answer.trouble and self._troubles.get(name) != answer.trouble:
            log.warning("no news of %s: %s", name, answer.trouble)
        if self._troubles.get(name) and not answer.trouble:
            log.info("%s answers again", name)
        self._troubles[name] = answer.trouble
        if answer.forecast is not None:
            self.foresee(name, answer.forecast, now)
        due = None if answer.trouble else self.providers[name].next_at(now)
        self._due[name] = due or now + max(self.poll_interval, min(answer.rest, LONGEST_REST))
        return answer.news


async def _answer(provider: Provider, after: datetime | None, now: datetime, horizon: timedelta) -> Answer:
    try:
        news: Sequence[Quote] | Unbelievable = await provider.history(after, now)
    except Transient as error:
        return Answer(trouble=str(error), rest=error.retry_after or timedelta(0))
    except Mistake as mistake:
        return Answer(trouble=str(mistake), rest=AFTER_A_MISTAKE)
    except Unbelievable as doubt:
        return Answer(news=doubt)
    if not horizon:
        return Answer(news, ())
    try:
        return Answer(news, await provider.forecast(now, horizon))
    except (Transient, Mistake, Unbelievable) as error:
        # A site goes on without a forecast, though never without a signal.
        log.info("no forecast of %s: %s", provider.region, error)
        return Answer(news)
