"""Looks at a site's links: a little and often while a window is open, and whenever somebody asks."""

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from windfall.contracts.commands import ProbeLink
from windfall.contracts.events import LinkMeasured, WindowClosed, WindowOpened
from windfall.contracts.subjects import HUB
from windfall.profiler import watching
from windfall.profiler.probe import LinkProbe
from windfall.profiler.profile import LINK_PARTS, Link, absent
from windfall.profiler.watching import Watch
from windfall.servicekit import told
from windfall.servicekit.metrics import record
from windfall.servicekit.service import Stand

log = logging.getLogger(__name__)

WATCH: Final = "links"
"""Journal key of what is known of the links."""


@dataclass(frozen=True)
class Cadence:
    """How often links are looked at, in wall time, and what that may cost."""

    echo: timedelta = timedelta(seconds=20)
    bandwidth: timedelta = timedelta(minutes=15)
    hourly_bytes: int = 64 * 1024 * 1024
    most_bytes: int = 2 * 4 * 1024 * 1024
    """That one look at the bandwidth moves."""


class Links:
    """Of one site: to the hub, and where its owner allows it to others.

    Args:
        to: the probes by what they lead to.
    """

    def __init__(self, stand: Stand, to: Mapping[str, LinkProbe], cadence: Cadence) -> None:
        self._stand = stand
        self._to = to
        self._cadence = cadence
        self._watch = stand.journal.load(WATCH, Watch) or Watch()
        self._moved = asyncio.Event()
        # Business seconds per wall second: links are what they are however fast a trace is replayed.
        self._speed = 1 / stand.clock.wall(timedelta(seconds=1)).total_seconds()

    def attend(self) -> None:
        """Register the handler of what is asked for, and start to look."""
        self._stand.bus.hears(ProbeLink, self._stand.whom, self.probe)
        self._stand.spawn(self._run(), "links")

    def opened(self, event: WindowOpened) -> None:
        """A window opened."""
        self._become(watching.opened(self._watch, event.window_id, event.at))

    def closed(self, event: WindowClosed) -> None:
        """A window closed."""
        self._become(watching.closed(self._watch, event.window_id, event.at))

    async def probe(self, command: ProbeLink) -> None:
        """Measure a link now, and say what was found, or why nothing was."""
        if not self._stand.journal.heard(command.id):
            link = await self._asked(command.target)
            self._take(command.target, link, say=True, heard=command.id)

    async def _asked(self, target: str) -> Link:
        probe = self._to.get(target)
        if probe is None:
            return Link(missing=absent(LINK_PARTS, f"this site is not told where {target} is (WINDFALL_PEERS)"))
        if self._room() < self._cadence.most_bytes:
            return Link(missing=absent(LINK_PARTS, "the hour's bytes are spent (WINDFALL_LINK_HOURLY_BYTES)"))
        return await probe.link()

    async def _run(self) -> None:
        while True:
            while self._watch.window_id is None:
                self._moved.clear()
                await self._moved.wait()
            # Its node was just measured, or soon will be.
            due = self._now() + self._cadence.bandwidth * self._speed
            while await self._rest():
                is_due = self._now() >= due and self._room() >= self._cadence.most_bytes
                if is_due:
                    due = self._now() + self._cadence.bandwidth * self._speed
                if self._room():
                    probe = self._to[HUB]
                    self._take(HUB, await (probe.link() if is_due else probe.echo()), say=is_due)

    async def _rest(self) -> bool:
        """Until the next look; whether there is one in this window."""
        resting = asyncio.ensure_future(self._stand.clock.sleep(self._cadence.echo * self._speed))
        try:
            while self._watch.window_id is not None and not resting.done():
                self._moved.clear()
                changed = asyncio.ensure_future(self._moved.wait())
                await asyncio.wait([resting, changed], return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
        finally:
            resting.cancel()
            with suppress(asyncio.CancelledError):
                await resting
        return self._watch.window_id is not None

    def _take(self, target: str, link: Link, *, say: bool, heard: UUID | None = None) -> None:
        """Learn from a measurement; an echo that turns nothing is no event, and is not worth a write to the disk."""
        self._watch, said, turns = watching.measured(
            self._watch, self._stand.whom, target, link, self._now(), timedelta(hours=1) * self._speed
        )
        if say or turns:
            self._stand.journal.commit(state={WATCH: self._watch}, say=[said, *turns], heard=heard)
            self._stand.outbox.wake()
        else:
            _record(said)
        for turn in turns:
            log.warning("%s", turn.because)

    def _become(self, watch: Watch) -> None:
        if watch != self._watch:
            self._watch = watch
            self._stand.journal.commit(state={WATCH: watch})
            self._moved.set()

    def _room(self) -> int:
        hour = timedelta(hours=1) * self._speed
        return watching.room(self._watch, self._cadence.hourly_bytes, self._now(), hour)

    def _now(self) -> datetime:
        return self._stand.clock.now()


def _record(said: LinkMeasured) -> None:
    """What is not said is measured all the same."""
    for one in told.measurements(said):
        record(one.instrument, one.value, one.attributes)
