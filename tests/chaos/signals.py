"""Whoever publishes a site's signal, when something is wrong with it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from windfall.energy.quotes import Quote, Unbelievable, believed
from windfall.energy_watcher.provider import Provider
from windfall.servicekit.clock import Clock
from windfall.servicekit.errors import Mistake, Transient


@dataclass
class Publisher:
    """What is wrong with it now; nothing where that is empty.

    Attributes:
        since: when that began.
        mended: set while nothing is wrong.
    """

    wrong: str = ""
    since: datetime | None = None
    mended: asyncio.Event = field(default_factory=asyncio.Event)

    def break_down(self, wrong: str, now: datetime) -> None:
        self.wrong, self.since = wrong, now
        self.mended.clear()

    def mend(self) -> None:
        self.wrong = ""
        self.mended.set()


@dataclass
class FaultyProvider:
    """A provider of such a publisher, who goes by the true time, whatever clock asks."""

    inner: Provider
    publisher: Publisher
    clock: Clock

    def __post_init__(self) -> None:
        self.kind, self.region = self.inner.kind, self.inner.region

    async def current(self, now: datetime) -> Quote:
        return (await self._spoilt([await self.inner.current(self.clock.now())]))[-1]

    async def history(self, after: datetime | None, now: datetime) -> Sequence[Quote]:
        return await self._spoilt(await self.inner.history(after, self.clock.now()))

    async def forecast(self, now: datetime, horizon: timedelta) -> Sequence[Quote]:
        ahead = await self.inner.forecast(self.clock.now(), horizon)
        if self.publisher.wrong == "unforeseen":
            # Clean where it will be dirty, and the other way round.
            dirtiest = max((one.value for one in ahead), default=0.0)
            return tuple(replace(one, value=dirtiest - one.value) for one in ahead)
        return ahead

    def next_at(self, now: datetime) -> datetime | None:
        return self.inner.next_at(now)

    def ended(self, now: datetime) -> bool:
        return self.inner.ended(self.clock.now())

    async def close(self) -> None:
        await self.inner.close()

    async def _spoilt(self, quotes: Sequence[Quote]) -> Sequence[Quote]:
        match self.publisher.wrong:
            case "silent":
                raise Transient("503")
            case "hanging":
                await self.publisher.mended.wait()
            case "revoked":
                raise Mistake("the token is not accepted", "Set another one")
            case "absurd":
                raise _doubt(quotes, -7.0)
            case "not a number":
                raise _doubt(quotes, float("nan"))
            case "stale":
                since = self.publisher.since
                return [one for one in quotes if since is None or one.point_time <= since]
            case "ahead":
                return [replace(one, point_time=one.point_time + timedelta(hours=1)) for one in quotes]
        return quotes


def _doubt(quotes: Sequence[Quote], value: float) -> Exception:
    """As an adapter refuses it."""
    if not quotes:
        return Transient("no value")
    try:
        believed(replace(quotes[-1], value=value))
    except Unbelievable as doubt:
        return doubt
    raise ValueError(value)
