"""A service answers whoever asks for its log at its own server (:mod:`windfall.contracts.logs`).

What it keeps (:class:`~windfall.servicekit.log_ring.LogRing`) is the only buffer, and each asker has a place in it: for
whoever is too slow lines are gone, and how many is told.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from pydantic import ValidationError

from windfall.contracts.logs import LEASE, LogAsk, LogTold
from windfall.contracts.subjects import log_told
from windfall.servicekit.log_ring import LogRing, before_the_last, fitting

log = logging.getLogger(__name__)

Tell = Callable[[str, bytes], Awaitable[bool]]
"""Says a body on a subject to whoever listens now, and returns when the server has it; false when it is away."""

MOST_ASKERS: Final = 16
_BATCH_BYTES: Final = 64 * 1024
_BATCH_LINES: Final = 2000
"""Looked at for one batch, wished for or not: other work of the service is not kept waiting."""


@dataclass
class _Asker:
    """Somebody who asked, and the last line that was looked at for them."""

    ask: LogAsk
    place: int
    until_s: float
    """Of the event loop's time: when the lease ends."""
    newest: int
    """The last line that there was when this was asked for."""
    whole: bool = False


class LogAnswers:
    """One service's end.

    Args:
        ring: what it keeps.
        service: its name.
        whom: the site or federation that it serves.
        tell: says a batch.
    """

    def __init__(self, ring: LogRing, service: str, whom: str, tell: Tell) -> None:
        self._ring, self._service, self._whom, self._tell = ring, service, whom, tell
        self._process = uuid4().hex[:12]
        self._askers: dict[str, _Asker] = {}
        self._refused: list[tuple[LogAsk, str]] = []
        self._more = asyncio.Event()

    def hear(self, body: bytes) -> None:
        """Take what an asker says. Only who may everything in this domain can say it."""
        try:
            ask = LogAsk.model_validate_json(body)
        except ValidationError as error:
            log.warning("asked for the log in words that this version does not know: %d mistakes", error.error_count())
            return
        now = asyncio.get_running_loop().time()
        self._askers = {token: one for token, one in self._askers.items() if one.until_s > now}
        if ask.whom not in ("", self._whom):
            self._refused.append((ask, f"this is {self._service} of {self._whom}"))
        elif ask.token not in self._askers and len(self._askers) >= MOST_ASKERS:
            self._refused.append((ask, f"{MOST_ASKERS} others follow it already"))
        else:
            kept = self._ring.kept()
            self._askers[ask.token] = _Asker(
                ask, self._place(ask), now + LEASE.total_seconds(), kept[-1].number if kept else 0
            )
        self._more.set()

    async def run(self) -> None:
        """Tell whoever asked what there is, and whoever follows what comes, for ever."""
        loop = asyncio.get_running_loop()

        def woken() -> None:
            if self._askers:
                loop.call_soon_threadsafe(self._more.set)

        self._ring.on_line = woken
        try:
            while True:
                await self._more.wait()
                self._more.clear()
                behind = True
                while behind:
                    behind = await self._told()
        finally:
            self._ring.on_line = None

    def _place(self, ask: LogAsk) -> int:
        if ask.seen is None:
            return before_the_last(self._ring.kept(), ask.wish, ask.tail)
        # From where its last batch ended: what was lost on the way is told again, and it knows what it has. Of a
        # process that it has not heard before, all is new.
        return ask.seen.get(self._process, 0)

    async def _told(self) -> bool:
        """Tell each asker one batch; whether somebody waits for another."""
        refused, self._refused = self._refused, []
        for ask, why in refused:
            await self._say(ask, LogTold(**self._about, until=0, whole=True, refused=why))
        behind = False
        for token, asker in list(self._askers.items()):
            if asker.until_s <= asyncio.get_running_loop().time():
                self._askers.pop(token, None)
                continue
            behind |= await self._tell_one(asker)
        return behind

    async def _tell_one(self, asker: _Asker) -> bool:
        lines, dropped, newest = self._ring.after(asker.place, _BATCH_LINES)
        told, until = fitting(lines, asker.ask.wish, _BATCH_BYTES)
        until = until or asker.place
        whole = until >= asker.newest
        if whole == asker.whole and not told and not dropped:
            asker.place = until
            return until < newest
        batch = LogTold(**self._about, until=until, lines=told, dropped=dropped, whole=whole)
        if not await self._say(asker.ask, batch):
            # The server is away. Whoever still follows then asks again.
            return False
        asker.place, asker.whole = until, whole
        if whole and not asker.ask.follow and self._askers.get(asker.ask.token) is asker:
            del self._askers[asker.ask.token]
            return False
        return until < newest

    @property
    def _about(self) -> dict[str, str]:
        return {"process": self._process, "service": self._service, "whom": self._whom}

    async def _say(self, ask: LogAsk, batch: LogTold) -> bool:
        return await self._tell(
            log_told(self._service, ask.token), batch.model_dump_json(exclude_defaults=True).encode()
        )
