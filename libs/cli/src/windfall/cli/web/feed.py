"""What every open page is sent: changes in order, each made into JSON once; and a picture anew for who has lost some.

A page that is slow is not waited for and not remembered without end: when more waits for it than fits, all of that is
forgotten and a snapshot takes its place.
"""

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import islice
from typing import Final
from uuid import uuid4

from windfall.cli.web.picture import Picture

KEPT_CHANGES: Final = 2000
"""For pages that come back, and for each that is slow."""
MOST_READERS: Final = 64
BEAT: Final = timedelta(seconds=5)
"""After so long without a change a page is told what time it is."""


class Full(Exception):
    """As many pages are open as may be."""


class Feed:
    """Pages come and go; changes are published to all of them.

    Args:
        now: business time and how much faster than the wall clock it runs.
        about: what does not change while it runs.
    """

    def __init__(
        self, picture: Picture, now: Callable[[], tuple[datetime, float]], about: Mapping[str, object] | None = None
    ) -> None:
        self._picture = picture
        self._now = now
        self._about = about or {}
        self._life = uuid4().hex[:8]
        self._number = 0
        self._changes: deque[str] = deque(maxlen=KEPT_CHANGES)
        self._readers: set[Reader] = set()
        self._told: tuple[int, str] = (-1, "")
        self.ended = False

    @property
    def readers(self) -> int:
        """Pages that are open."""
        return len(self._readers)

    def publish(self, change: str | None) -> None:
        """Send a change to every page; none is no change."""
        if change is None:
            return
        self._number += 1
        self._changes.append(change)
        for reader in self._readers:
            reader.offer(change)

    def end(self) -> None:
        """Tell every page that no more will come."""
        self.ended = True
        for reader in self._readers:
            reader.wake.set()

    @contextmanager
    def reader(self, last_event_id: str | None) -> Iterator["Reader"]:
        """One more page, for the time of the block; it goes on after the last change that it has, if that is known.

        Raises:
            Full: too many are open.
        """
        if len(self._readers) >= MOST_READERS:
            raise Full
        reader = Reader(self, self._missed(last_event_id))
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)

    def snapshot(self) -> bytes:
        """Everything, as one frame."""
        if self._told[0] != self._number:
            everything = {**self._picture.snapshot(), "about": self._about}
            self._told = (self._number, json.dumps(everything, ensure_ascii=False, separators=(",", ":")))
        return self._frame("snapshot", f'{{"clock":{self._clock()},{self._told[1][1:]}')

    def changes(self, changes: list[str]) -> bytes:
        """Some changes, as one frame."""
        return self._frame("changes", f"[{','.join(changes)}]")

    def clock(self) -> bytes:
        """What time it is, as a frame."""
        return self._frame("clock", self._clock())

    def last(self) -> bytes:
        """That there is no more, as a frame."""
        return self._frame("end", "{}")

    def _missed(self, last_event_id: str | None) -> list[str] | None:
        """What came after that change; none where that cannot be told."""
        life, _, text = (last_event_id or "").partition("-")
        if life != self._life or not text.isdecimal():
            return None
        missing = self._number - int(text)
        if not 0 <= missing <= len(self._changes):
            return None
        return list(islice(self._changes, len(self._changes) - missing, None))

    def _frame(self, kind: str, data: str) -> bytes:
        return f"id: {self._life}-{self._number}\nevent: {kind}\ndata: {data}\n\n".encode()

    def _clock(self) -> str:
        now, speed = self._now()
        return json.dumps({"now": now.isoformat(), "speed": speed})


class Reader:
    """One page. What it has not been sent yet waits here, and never more than a feed keeps."""

    def __init__(self, feed: Feed, missed: list[str] | None) -> None:
        self._feed = feed
        self._lost = missed is None
        self._pending = list(missed or ())
        self.wake = asyncio.Event()
        if missed is None or missed:
            self.wake.set()

    @property
    def waiting(self) -> int:
        """Changes that are held for it."""
        return len(self._pending)

    def offer(self, change: str) -> None:
        """One more change is to be sent."""
        if not self._lost:
            self._pending.append(change)
            if len(self._pending) > KEPT_CHANGES:
                self._lost = True
                self._pending.clear()
        self.wake.set()

    async def frame(self, within: timedelta = BEAT) -> bytes:
        """What is to be sent next: all changes that wait, everything anew, or what time it is when nothing changes."""
        try:
            async with asyncio.timeout(within.total_seconds()):
                await self.wake.wait()
        except TimeoutError:
            return self._feed.clock()
        self.wake.clear()
        if self._lost:
            self._lost = False
            self._pending.clear()
            return self._feed.snapshot()
        pending, self._pending = self._pending, []
        return self._feed.changes(pending) if pending else self._feed.clock()
