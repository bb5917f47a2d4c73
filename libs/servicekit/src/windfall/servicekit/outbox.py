"""Says what the journal holds unsaid: in order, until the bus has acknowledged, and again when the bus lost it all."""

import asyncio
import logging
from datetime import timedelta
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from windfall.contracts.envelope import Letter
from windfall.servicekit import metrics
from windfall.servicekit.crashpoint import reach
from windfall.servicekit.errors import Poison, Transient
from windfall.servicekit.instruments import UNSAID
from windfall.servicekit.journal import Journal

log = logging.getLogger(__name__)

_RETRY = timedelta(milliseconds=500)
_STORE = "bus-store"


class Voice(Protocol):
    """The speaking half of a bus."""

    async def publish(self, letter: Letter) -> None:
        """Return when a stream has stored the letter.

        Raises:
            Transient: not acknowledged; saying it again is safe.
            Poison: it can never be said (too large).
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
            self._journal.unsay_all()
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
            for waiting in unsaid:
                reach("outbox.unsaid")
                try:
                    await self._voice.publish(waiting.letter)
                except Poison as error:
                    # It can never be said, and must not stop what stands behind it.
                    log.error("cannot say %s: %s", waiting.letter.subject, error)
                reach("outbox.published")
                self._journal.mark_said([waiting.position])
                self._unsaid -= 1
                reach("outbox.marked")
        self._empty.set()
