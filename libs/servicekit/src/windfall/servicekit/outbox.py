"""Says what the journal holds unsaid: in order, until the bus has acknowledged, and again when the bus lost it all.

What is new is said word by word. What a lost store is told again may be months of it, and goes in batches.
"""

import asyncio
import logging
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final, Protocol

from pydantic import BaseModel, ConfigDict

from windfall.contracts.envelope import Letter
from windfall.servicekit import metrics
from windfall.servicekit.crashpoint import reach
from windfall.servicekit.errors import Poison, Transient
from windfall.servicekit.instruments import UNSAID
from windfall.servicekit.journal import Journal, Unsaid

log = logging.getLogger(__name__)

_RETRY = timedelta(milliseconds=500)
_STORE = "bus-store"
_BATCH_BYTES: Final = 1024 * 1024
"""Of what is said again, as much as this is said at once: far less than a client keeps for its connection."""


class Voice(Protocol):
    """The speaking half of a bus."""

    async def publish(self, letter: Letter) -> None:
        """Return when a stream has stored the letter.

        Raises:
            Transient: not acknowledged; saying it again is safe.
            Poison: it can never be said (too large).
        """

    async def publish_all(self, letters: Sequence[Letter]) -> None:
        """Return when streams have stored all of these letters, each stream its own in this order.

        Raises:
            Transient: some may be stored and others not; saying all of them again is safe.
            Poison: one of them can never be said.
        """

    async def store_identity(self) -> str:
        """Names the store behind the bus; another name means that the old store's messages are gone.

        Raises:
            Transient: nobody answers.
        """


class Store(BaseModel):
    """Which store the outbox was last said into."""

    model_config = ConfigDict(frozen=True)

    identity: str


class Outbox:
    """The pump between a journal and a bus. One per service."""

    def __init__(self, journal: Journal, voice: Voice) -> None:
        self._journal = journal
        self._voice = voice
        self._work = asyncio.Event()
        self._empty = asyncio.Event()
        self._known = False
        self._waiting = False
        self._unsaid = 0
        self._again = 0
        """The position up to which everything is said again."""
        metrics.observe(UNSAID, lambda: [(self._unsaid, {})])

    def wake(self) -> None:
        """Something was committed: say it now."""
        self._empty.clear()
        self._work.set()

    async def emptied(self) -> None:
        """Wait until everything committed so far has been said."""
        await self._empty.wait()

    async def run(self) -> None:
        """Pump for ever; cancel to stop. What is unsaid then is said after the next start."""
        self._work.set()
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                if not self._known:
                    self._known = await self._recognise()
                await self._say_all()
                self._waiting = False
            except Transient as error:
                self._known = False
                delay = _RETRY if error.retry_after is None else error.retry_after
                # Loud when the waiting begins; the same again with every attempt would be noise.
                level = logging.DEBUG if self._waiting else logging.WARNING
                log.log(level, "outbox waits %.1f s: %s", delay.total_seconds(), error)
                self._waiting = True
                asyncio.get_running_loop().call_later(delay.total_seconds(), self._work.set)

    async def _recognise(self) -> bool:
        identity = await self._voice.store_identity()
        last = self._journal.load(_STORE, Store)
        if last is not None and last.identity != identity:
            log.warning("the bus has a new store: saying everything again")
            self._again = self._journal.unsay_all()
        if last is None or last.identity != identity:
            self._journal.commit(state={_STORE: Store(identity=identity)})
        return True

    def recheck(self) -> None:
        """The bus may have lost its store: look before the next word, and say everything again if so."""
        self._known = False
        self.wake()

    async def _say_all(self) -> None:
        while unsaid := self._journal.unsaid():
            self._unsaid = self._journal.count_unsaid()
            for batch in self._batches(unsaid):
                reach("outbox.unsaid")
                await self._say(batch)
                reach("outbox.marked")
        self._empty.set()

    def _batches(self, unsaid: Sequence[Unsaid]) -> Iterator[list[Unsaid]]:
        """What is said at once: each new word alone, and what is said again up to so many bytes."""
        batch: list[Unsaid] = []
        size = 0
        for waiting in unsaid:
            nbytes = len(waiting.letter.body)
            if batch and (waiting.position > self._again or size + nbytes > _BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(waiting)
            size += nbytes
        yield batch

    async def _say(self, batch: Sequence[Unsaid]) -> None:
        """Say these in their order, and mark them.

        Raises:
            Transient: not all of them were acknowledged; none is marked.
        """
        letters = [waiting.letter for waiting in batch]
        try:
            if len(batch) == 1:
                await self._voice.publish(letters[0])
            else:
                await self._voice.publish_all(letters)
        except Poison as error:
            if len(batch) > 1:
                for waiting in batch:
                    await self._say([waiting])
                return
            # It can never be said, and must not stop what stands behind it.
            log.error("cannot say %s: %s", letters[0].subject, error)
        reach("outbox.published")
        self._journal.mark_said([waiting.position for waiting in batch])
        self._unsaid -= len(batch)
