"""A site with its bus and its disk, on a clock that jumps: a day of a watcher passes in a second."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from windfall.contracts.envelope import seal, unseal
from windfall.contracts.events import EnergyRecorded, SignalKind, SiteEvent, WindowJudged
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, site_streams
from windfall.energy.quotes import Quote, Unbelievable
from windfall.energy.shipped import synthetic_trace
from windfall.energy_watcher.app import attend, watched
from windfall.energy_watcher.provider import Provider
from windfall.energy_watcher.settings import WatcherSettings
from windfall.servicekit.clock import Clock, LoopClock
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.journal import Journal
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.service import Stand
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain

DAY: Final = datetime(2026, 1, 1, tzinfo=UTC)


def clock_of(text: str) -> datetime:
    """``01:30`` of the day."""
    return DAY + timedelta(hours=int(text[:2])) + timedelta(minutes=int(text[3:]))


@dataclass
class Site:
    """A site's bus and disk, which outlive its watcher, on a clock that starts at some hour of the day."""

    folder: Path
    domain: MemoryDomain
    clock: Clock

    def settings(self, **changes: object) -> WatcherSettings:
        trace = self.folder / "trace.csv"
        if not trace.exists():
            trace.write_text("\n".join(synthetic_trace()))
        told = {"site": self.domain.name, "state_dir": self.folder, "trace_file": trace, **changes}
        return WatcherSettings.model_validate(told)

    @asynccontextmanager
    async def watched(self, settings: WatcherSettings, **providers: Provider) -> AsyncIterator[Stand]:
        """A watcher that is cut off at the end of the block, as by a crash."""
        streams = site_streams(self.domain.name)
        journal = Journal(self.folder / "journal.sqlite", "/windfall/energy-watcher/" + self.domain.name)
        bus = MemoryBus(self.domain, "energy-watcher", streams)
        stand = Stand("energy-watcher", self.domain.name, self.clock, journal, bus, Outbox(journal, bus))
        try:
            async with watched(settings, stand, providers) if providers else attend(settings, stand):
                await stand.rise()
                yield stand
        finally:
            await stand.lie_down()
        assert stand.mistake is None

    async def until(self, text: str) -> None:
        """A second after ``01:30``, so that all that happens then has happened."""
        await self.clock.sleep_until(clock_of(text) + timedelta(seconds=1))

    def said(self) -> list[SiteEvent]:
        """All but the sentences that explain, and those that account."""
        return [event for event in self._heard() if not isinstance(event, WindowJudged | EnergyRecorded)]

    def explained(self) -> list[WindowJudged]:
        return [event for event in self._heard() if isinstance(event, WindowJudged)]

    def publish(self, message: Message) -> None:
        """Somebody else says a sentence on the site's bus."""
        self.domain.store(seal(message, "/windfall/test"))

    def _heard(self) -> list[SiteEvent]:
        events = [unseal(letter) for letter in self.domain.letters(EVENTS_STREAM)]
        return [event for event in events if isinstance(event, SiteEvent)]

    def told(self) -> list[str]:
        return [f"{event.topic} {event.at:%H:%M}" for event in self.said()]


def site_at(folder: Path, hour: float, name: str = "site-a") -> Site:
    return Site(folder, MemoryDomain(name), LoopClock(DAY + timedelta(hours=hour)))


@dataclass
class Scripted:
    """A provider that says what it is told to: one value, or one trouble, from each instant on."""

    script: Sequence[tuple[datetime, Quote | float | Transient | Mistake | Unbelievable]]
    """A bare number is stamped with the instant at which it is asked for."""
    expected: Sequence[Quote] = ()
    kind: SignalKind = SignalKind.MARGINAL
    region: str = "script"
    closed: bool = field(default=False, init=False)

    async def current(self, now: datetime) -> Quote:
        told = [said for since, said in self.script if since <= now]
        if not told:
            raise Transient("nothing yet")
        match told[-1]:
            case Quote() as quote:
                return quote
            case float() | int() as value:
                return Quote(self.kind, now, value, self.region)
            case trouble:
                raise trouble

    async def history(self, after: datetime | None, now: datetime) -> Sequence[Quote]:
        return (await self.current(now),)

    async def forecast(self, now: datetime, horizon: timedelta) -> Sequence[Quote]:
        return tuple(quote for quote in self.expected if now < quote.point_time <= now + horizon)

    def next_at(self, now: datetime) -> datetime | None:
        return None

    def ended(self, now: datetime) -> bool:
        return False

    async def close(self) -> None:
        self.closed = True
