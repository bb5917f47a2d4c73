"""The time of values: when the next one is due, which are news, and which cannot be true."""

import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta

from windfall.energy.quotes import Quote, Unbelievable, believed
from windfall.servicekit.errors import Transient

log = logging.getLogger(__name__)


class Cadence:
    """How a provider publishes: one value each ``period``, to be asked for ``lag`` after it is due."""

    def __init__(self, period: timedelta, lag: timedelta = timedelta(0)) -> None:
        self.period = period
        self._lag = lag
        self._last: datetime | None = None

    def current(self, quote: Quote, now: datetime) -> Quote:
        """The quote, if it can be the current value.

        Raises:
            Unbelievable: it cannot be true, or lies more than one period ahead.
            Transient: it lies a little ahead, because our clock and theirs differ; it will be true in a moment.
        """
        ahead = quote.point_time - now
        if ahead > self.period:
            detail = f"a current value of {quote.point_time.isoformat()}, which is {ahead} ahead"
            raise Unbelievable("future", detail, quote.point_time)
        believed(quote)
        if ahead > timedelta(0):
            raise Transient(f"the current value is that of {quote.point_time.isoformat()}, {ahead} ahead", ahead)
        self._last = quote.point_time
        return quote

    def next_at(self, now: datetime) -> datetime | None:
        """When the value after the last one is due; none before there was one, and when it is late."""
        due = None if self._last is None else self._last + self.period + self._lag
        return due if due is not None and due > now else None

    async def news(
        self, current: Quote, after: datetime | None, past: Callable[[], Awaitable[Sequence[Quote]]]
    ) -> Sequence[Quote]:
        """What came after an instant, the current value last. The past is asked for only when there is a gap."""
        if after is not None and current.point_time <= after:
            return ()
        if after is not None and current.point_time - after <= self.period:
            return (current,)
        return (*(quote for quote in await past() if quote.point_time < current.point_time), current)


def series(quotes: Iterable[Quote], after: datetime | None, until: datetime) -> tuple[Quote, ...]:
    """The believable quotes later than ``after``, up to and with ``until``.

    One that cannot be true is passed over and logged: refusing all for its sake would let one broken hour end the
    signal for ever. One that is there twice counts once.

    Raises:
        Unbelievable: a quote is older than the one before it, or there are two different ones for one instant.
    """
    kept: list[Quote] = []
    latest: Quote | None = None
    for quote in quotes:
        if latest is not None and quote == latest:
            continue
        if latest is not None and quote.point_time <= latest.point_time:
            detail = f"{quote.point_time.isoformat()} comes after {latest.point_time.isoformat()}"
            raise Unbelievable("order", detail, quote.point_time)
        latest = quote
        if quote.point_time > until or (after is not None and quote.point_time <= after):
            continue
        try:
            kept.append(believed(quote))
        except Unbelievable as refused:
            log.warning("passed over %s of %s: %s", quote.kind, quote.point_time.isoformat(), refused.detail)
    return tuple(kept)


def whole_hours(horizon: timedelta) -> int:
    """The hours that cover a horizon."""
    return max(0, -(-horizon // timedelta(hours=1)))
