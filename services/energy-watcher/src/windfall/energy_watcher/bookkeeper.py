"""Keeps the site's ledger: hears what the node does, closes entries, signs them, appends them, says them.

The journal is committed before the file is written: it holds the book, the lines and what is said of them in one
transaction. A crash in between leaves lines that the next start appends; nothing is written twice, and nothing is said
that the file will not hold.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel

from windfall.contracts.events import (
    EnergyRecorded,
    NodeFailed,
    NodeReady,
    NodeReleased,
    SiteDrained,
    TrainingStarted,
    WindowClosed,
    WindowExpected,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import derived_id
from windfall.energy import book as account
from windfall.energy.book import Book, Terms
from windfall.energy.chain import Entry, Sealed, seal
from windfall.energy.intensity import Belief
from windfall.energy.ledger import Told
from windfall.energy.power import SiteState
from windfall.energy.quotes import Quote
from windfall.energy_watcher.ledger_file import LEDGER_FILE, LedgerFile
from windfall.energy_watcher.ledger_metrics import measure, told_when_broken
from windfall.energy_watcher.ledger_recovery import BOOK, LINES, Lines, begun, taken_up
from windfall.energy_watcher.ledger_settings import BookkeeperSettings
from windfall.energy_watcher.meter import Meter, meter_of
from windfall.energy_watcher.site_key import site_key
from windfall.servicekit.bus import ACK_WAIT
from windfall.servicekit.clock import Clock
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.service import Stand
from windfall.servicekit.telemetry import outgoing_trace, span

log = logging.getLogger(__name__)

_SETTLE: Final = timedelta(seconds=1)
"""Wall time without news after which what has happened so far is taken to be known: what a site's bus may lag."""
_RECOVERY: Final = ACK_WAIT
"""The same after a start, and after the bus was away: a delivery that was lost then comes again within this."""
_SECOND: Final = timedelta(seconds=1)


@asynccontextmanager
async def keep(
    settings: BookkeeperSettings,
    stand: Stand,
    *,
    clean_below_g_per_kwh: float,
    stale_after: timedelta,
    environ: Mapping[str, str] = os.environ,
) -> AsyncIterator["Bookkeeper"]:
    """Keep the ledger until the block ends. Enter it before the stand rises: it hears the site's events.

    Args:
        settings: the ledger's.
        stand: the watcher's.
        clean_below_g_per_kwh: what counts as clean energy, usually the open threshold.
        stale_after: how long a reading of the intensity is believed.
        environ: where a meter's credential is.

    Raises:
        Mistake: key, file, journal or meter cannot be used, or do not belong together.
    """
    terms = Terms(
        power=settings.power,
        belief=Belief(stale_after, settings.ledger_assumed_intensity),
        clean_below_g_per_kwh=clean_below_g_per_kwh,
        interval=settings.ledger_interval,
    )
    meter = _meter(settings, stand.clock, environ)
    try:
        bookkeeper = Bookkeeper(settings, stand, terms, site_key(settings.state_dir, settings.ledger_key_file), meter)
        stand.bus.hears(WindowExpected, stand.whom, bookkeeper.hear)
        stand.bus.hears(WindowWithdrawn, stand.whom, bookkeeper.hear)
        stand.bus.hears(WindowOpened, stand.whom, bookkeeper.hear)
        stand.bus.hears(NodeReady, stand.whom, bookkeeper.hear)
        stand.bus.hears(TrainingStarted, stand.whom, bookkeeper.hear)
        stand.bus.hears(WindowClosed, stand.whom, bookkeeper.hear)
        stand.bus.hears(SiteDrained, stand.whom, bookkeeper.hear)
        stand.bus.hears(NodeReleased, stand.whom, bookkeeper.hear)
        stand.bus.hears(NodeFailed, stand.whom, bookkeeper.hear)
        measure(lambda: bookkeeper.book)
        keeping = stand.spawn(bookkeeper.run(), "ledger")
        try:
            yield bookkeeper
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            await bookkeeper.finish()
    finally:
        if meter is not None:
            await meter.close()


class Bookkeeper:
    """One site's ledger, as far as it is journaled.

    Raises:
        Mistake: what stands in the file, the journal and the key does not belong together.
    """

    def __init__(
        self, settings: BookkeeperSettings, stand: Stand, terms: Terms, key: Ed25519PrivateKey, meter: Meter | None
    ) -> None:
        self._stand = stand
        self._terms = terms
        self._key = key
        self._meter = meter
        self._meter_interval = settings.meter_interval
        self._meter_is_away = False
        self._reading = asyncio.Lock()
        self._speed = _SECOND / stand.clock.wall(_SECOND)
        self._settled_at = stand.clock.now() + _RECOVERY * self._speed
        self._ends_at: datetime | None = None
        self._refused: Mistake | None = None
        self._trace: Mapping[str, str] = {}
        self._file = LedgerFile(settings.state_dir / LEDGER_FILE)
        since = min(stand.clock.now(), settings.ledger_since or stand.clock.now())
        with told_when_broken(stand.whom):
            self._book = taken_up(stand.journal, self._file, key) or begun(
                stand.journal, self._file, key, stand.whom, settings.ledger_federation, since
            )
        self._listeners: list[Callable[[Told], None]] = []

    @property
    def book(self) -> Book:
        """The open account as it stands."""
        return self._book

    def know(self, *quotes: Quote) -> None:
        """Readings of the site's intensity, oldest first. Other kinds of signal are none of the ledger's business."""
        book = self._book
        for quote in quotes:
            book = account.learn(book, quote, self._terms)
        if book is not self._book:
            self._commit(book, ())

    def ended(self, at: datetime) -> None:
        """The signal has come to its end: from then on only power that is drawn is still accounted."""
        self._ends_at = at

    async def hear(self, event: Told) -> None:
        """What the site's node does, in the site's own words."""
        if self._stand.journal.heard(event.id):
            return
        now = await self._look()
        self._settled_at = max(self._settled_at, now + _SETTLE * self._speed)
        self._trace = outgoing_trace()
        self._commit(*account.hear(self._book, event, now, self._terms), heard=event.id)
        for listener in self._listeners:
            listener(event)

    def tells(self, listener: Callable[[Told], None]) -> None:
        """Pass on each event that is heard, once it is kept: a service hears every kind of event but once."""
        self._listeners.append(listener)

    async def run(self) -> None:
        """Close entries as they fall due, once everything up to then has been heard; read the meter in between."""
        while True:
            now = await self._look()
            if not self._stand.bus.ready:
                self._settled_at = now + _RECOVERY * self._speed
            if now >= self._settled_at:
                book, entries = account.tick(self._book, self._until(now), self._terms)
                if entries:
                    self._say(book, entries)
            await self._stand.clock.sleep_until(self._next_look(now))

    async def finish(self) -> None:
        """Close the open entry, so that the file tells all up to now; what is not known by now the next start tells."""
        now = self._stand.clock.now()
        if self._refused or self._stand.mistake or now < self._settled_at or not self._stand.bus.ready:
            return
        now = await self._look()
        self._say(*account.finish(self._book, self._until(now), self._terms))

    def _say(self, book: Book, entries: Sequence[Entry]) -> None:
        """What nobody's word has closed belongs to the trace of the window for which it was drawn."""
        parent = self._trace if self._book.node.serves else None
        with span(EnergyRecorded.topic, parent=parent or None, attributes={"windfall.site": self._stand.whom}):
            self._commit(book, entries)

    def _until(self, now: datetime) -> datetime:
        off = self._book.node.state is SiteState.OFF
        return min(now, self._ends_at) if off and self._ends_at is not None else now

    def _next_look(self, now: datetime) -> datetime:
        """Never later than an interval from now: the state may have changed by then, and with it what is due."""
        due = max(account.due(self._book, self._terms), self._settled_at)
        ended = self._until(due) < due
        longest = self._terms.interval if self._meter is None else min(self._terms.interval, self._meter_interval)
        return now + longest if ended or due <= now else min(due, now + longest)

    async def _look(self) -> datetime:
        """The instant, with what the meter shows at it in the book."""
        async with self._reading:
            now = self._stand.clock.now()
            if self._meter is None:
                return now
            try:
                reading = await self._meter.read(now)
            except Transient as error:
                # Without this reading the entry is modelled; it says so, and so does the log, once.
                if not self._meter_is_away:
                    log.warning("the meter %s of %s is away: %s", self._meter.name, self._stand.whom, error)
                self._meter_is_away = True
            else:
                self._meter_is_away = False
                self._book = account.read(self._book, reading)
            return now

    def _commit(self, book: Book, entries: Sequence[Entry], heard: UUID | None = None) -> None:
        if self._refused is not None:
            raise self._refused
        sealed = [seal(entry, self._key) for entry in entries]
        lines = Lines(lines=tuple(each.line for each in sealed))
        state: dict[str, BaseModel] = {BOOK: book, LINES: lines} if sealed else {BOOK: book}
        self._stand.journal.commit(state=state, say=[_recorded(each) for each in sealed], heard=heard)
        self._book = book
        if sealed:
            self._append(lines.lines)
            self._stand.outbox.wake()

    def _append(self, lines: Sequence[str]) -> None:
        try:
            self._file.append(lines)
        except Mistake as error:
            # Perhaps half a line stands there now. The next start drops it, and appends what the journal holds.
            self._refused = error
            raise


def _recorded(sealed: Sealed) -> EnergyRecorded:
    entry = sealed.record
    assert isinstance(entry, Entry)
    return EnergyRecorded(
        id=derived_id(sealed.hash, EnergyRecorded.topic, entry.site),
        at=entry.end,
        site=entry.site,
        sequence=entry.sequence,
        window_id=entry.window_id,
        state=entry.state.value,
        start=entry.start,
        end=entry.end,
        energy_kwh=entry.energy_kwh,
        emissions_kg=entry.emissions_kg,
        clean_energy_kwh=entry.clean_energy_kwh,
        method=entry.method,
        entry_hash=sealed.hash,
    )


def _meter(settings: BookkeeperSettings, clock: Clock, environ: Mapping[str, str]) -> Meter | None:
    if clock.wall(_SECOND) == _SECOND:
        return meter_of(settings, environ)
    if settings.meter in ("auto", "none"):
        return None
    cause = f"WINDFALL_METER is {settings.meter} and the clock is a replay, whose hours are not the machine's"
    raise Mistake(cause, "Set WINDFALL_METER to none, or WINDFALL_CLOCK to system")
