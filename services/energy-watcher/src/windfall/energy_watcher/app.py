"""The watcher's loop: look at the source, decide, keep the decision, say it, wait for what comes next.

Whatever was missed while the watcher was away is judged first, reading by reading and by its own time, so that the
windows are those of an attentive watcher. A window that was open before is closed when it was, one that is still open
is opened when it was, and one that came and went unseen is not said at all.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Final

from windfall.contracts.envelope import TRACEPARENT
from windfall.contracts.events import WindowOpened
from windfall.energy.windows import Events, Watch, finish, lapse, next_tick, observe, tick, unmissed
from windfall.energy_watcher.settings import WatcherSettings
from windfall.energy_watcher.source import ADAPTERS, Source
from windfall.servicekit.errors import Transient
from windfall.servicekit.service import Stand
from windfall.servicekit.telemetry import outgoing_trace, span

log = logging.getLogger(__name__)

WATCH: Final = "watch"
"""Key of the journaled :class:`Watch`."""


@asynccontextmanager
async def attend(settings: WatcherSettings, stand: Stand) -> AsyncIterator[None]:
    """Watch the source that the settings name until the block ends.

    Raises:
        Mistake: the source cannot be had at all.
    """
    watcher = Watcher(settings, stand, ADAPTERS[settings.signal](settings))
    watching = stand.spawn(watcher.run(), "watch")
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


class Watcher:
    """One site's watch, as far as it is journaled."""

    def __init__(self, settings: WatcherSettings, stand: Stand, source: Source) -> None:
        self._settings = settings
        self._policy = settings.policy
        self._stand = stand
        self._source = source
        now = stand.clock.now()
        # Silence counts from when the first reading is due: a trace that has not begun yet is not stale.
        begun = Watch(site=settings.site, watched_since=source.next_at(now) or now)
        self._watch = stand.journal.load(WATCH, Watch) or begun

    async def run(self) -> None:
        """Watch until the source has no more."""
        while True:
            now = self._stand.clock.now()
            for watch, said in unmissed(await self._decide(now)):
                self._keep(watch, said)
            if self._source.ended(now):
                log.info("the signal of %s has ended; it is %s", self._settings.site, now.isoformat())
                return
            await self._stand.clock.sleep_until(self._next_look(now))

    async def _decide(self, now: datetime) -> list[tuple[Watch, Events]]:
        watch, steps = self._watch, list[tuple[Watch, Events]]()
        try:
            for reading in await self._source.readings(watch.last_point_time, now):
                ahead = await self._source.ahead(reading.point_time, self._settings.forecast_horizon)
                steps.append(lapse(watch, reading.point_time, self._policy))
                steps.append(observe(steps[-1][0], reading, ahead, self._policy))
                watch = steps[-1][0]
        except Transient as error:
            log.warning("no news of %s: %s", self._settings.site, error)
        steps.append(finish(watch, now) if self._source.ended(now) else tick(watch, now, self._policy))
        return steps

    def _keep(self, watch: Watch, said: Events) -> None:
        """Journal a step and what it says; what concerns a window goes into the trace that its opening began."""
        if not said:
            self._commit(watch, said)
            return
        opened = next((event for event in said if isinstance(event, WindowOpened)), None)
        if opened is not None:
            attributes = {"windfall.site": watch.site, "windfall.window_id": str(opened.window_id)}
            with span("window", root=True, attributes=attributes):
                self._commit(watch.model_copy(update={"traceparent": outgoing_trace().get(TRACEPARENT)}), said)
            return
        parent = {TRACEPARENT: self._watch.traceparent} if self._watch.traceparent else None
        with span(said[-1].topic, parent=parent, attributes={"windfall.site": watch.site}):
            self._commit(watch, said)

    def _commit(self, watch: Watch, said: Events) -> None:
        if watch.window_id is not None and watch.window_id == self._watch.window_id:
            watch = watch.model_copy(update={"traceparent": self._watch.traceparent})
        if watch == self._watch and not said:
            return
        self._stand.journal.commit(state={WATCH: watch}, say=said)
        self._watch = watch
        if said:
            self._stand.outbox.wake()
            log.info("%s: %s", watch.site, ", ".join(f"{event.topic} at {event.at.isoformat()}" for event in said))

    def _next_look(self, now: datetime) -> datetime:
        news = self._source.next_at(now) or now + self._settings.poll_interval
        due = next_tick(self._watch, self._policy)
        return news if due is None else min(news, due)
