"""What the coordinator's journal keeps of a run, so that a strategy which is run again meets the same world.

Per batch: which nodes were up when it was made, the random numbers that picked among them, and what was sent. Per
message: its answer. Per ended batch: which answers the strategy got in time, and the random numbers that followed.
"""

import logging
from collections.abc import Mapping

from pydantic import BaseModel

from windfall.flower_adapter import exchange as exchanges
from windfall.flower_adapter.blobs import Blobs
from windfall.flower_adapter.exchange import Decision
from windfall.flower_adapter.randomness import Randomness
from windfall.flower_adapter.values import Answer, Exchange, Sent, Value
from windfall.servicekit.journal import Journal

log = logging.getLogger(__name__)


class Batch(Value):
    """What a strategy pushed at once."""

    sent: tuple[Sent, ...]
    nodes: tuple[tuple[int, ...], ...] = ()
    """What it was told of who is up since the batch before, oldest first, repetitions left out."""
    before: Randomness | None = None
    """When it first asked who is up; none when it did not."""


class BatchEnd(Value):
    """How a batch ended for the strategy."""

    taken: tuple[str, ...]
    """Messages whose answers it got in time."""
    after: Randomness


class Start(Value):
    """When the app's ``main`` began."""

    randomness: Randomness


class Records:
    """The journal's rows of one run.

    Args:
        replay_bytes: bodies of replies beyond which the run is no longer kept replayable.
    """

    def __init__(self, journal: Journal, blobs: Blobs, replay_bytes: int) -> None:
        self._journal = journal
        self._blobs = blobs
        self._replay_bytes = replay_bytes
        self._generation = 0
        self._batches = 0
        self._replies: set[str] = set()
        """Bodies of the replies that lie on disk."""
        self._newest: tuple[Sent, ...] = ()
        self.replayed = 0
        """Batches that were pushed before this process began."""

    def opened(self, fresh: Exchange) -> Exchange:
        """The run as the journal holds it; ``fresh`` when it holds none."""
        exchange = self._journal.load("exchange", Exchange) or fresh
        if not exchange.replayable and not exchange.finished:
            log.error("this run is too large to be resumed (WINDFALL_MAX_REPLAY_BYTES): it begins anew")
            exchange = exchanges.begin_anew(exchange)
            self._journal.commit(state={"exchange": exchange})
        self._generation, self._batches = exchange.generation, exchange.batches
        for number in range(exchange.batches):
            batch = self.stored(number)
            self._newest = batch.sent if batch is not None else ()
            answers = [self.answer(sent.id) for sent in self._newest]
            self._replies |= {one.body_sha256 for one in answers if one is not None and one.on_disk}
        out = {sent.body_sha256 for sent in (*self._newest, *exchange.waiting.values())}
        self._blobs.keep(out | self._replies)
        for body in out - self._replies:
            self._blobs.check(body)
        self.replayed = exchange.batches
        return exchange

    def stored(self, number: int) -> Batch | None:
        """A batch that was pushed before; none when this one is new."""
        return self._journal.load(self._key("batch", number), Batch) if number < self._batches else None

    def end(self, number: int) -> BatchEnd | None:
        """How a batch ended; none when the strategy had not gone on from it."""
        return self._journal.load(self._key("end", number), BatchEnd)

    def answer(self, message_id: str) -> Answer | None:
        return self._journal.load(f"answer/{message_id}", Answer)

    def start(self, now: Randomness) -> Randomness:
        """The random numbers with which the run began: these, unless it began before."""
        key = self._key("start", 0)
        known = self._journal.load(key, Start)
        if known is None:
            self._journal.commit(state={key: Start(randomness=now)})
        return now if known is None else known.randomness

    def batch(self, exchange: Exchange, number: int, batch: Batch, before: BatchEnd | None) -> dict[str, BaseModel]:
        """The rows that a new batch adds; bodies that nobody needs any more go."""
        rows: dict[str, BaseModel] = {self._key("batch", number): batch}
        if before is not None and number:
            rows[self._key("end", number - 1)] = before
        self._batches = number + 1
        out = {sent.body_sha256 for sent in (*batch.sent, *exchange.waiting.values())}
        stale = {sent.body_sha256 for sent in self._newest} - out - self._replies
        if not exchange.replayable:
            stale |= self._replies - out
            self._replies.clear()
        for body in stale:
            self._blobs.remove(body)
        self._newest = batch.sent
        return rows

    def commit(self, exchange: Exchange, decision: Decision, more: Mapping[str, BaseModel]) -> Exchange:
        """Keep a decision, all of it or nothing; the run as it is kept."""
        rows = {f"answer/{answer.id}": answer for answer in decision.answers}
        if exchange.replayable and exchange.kept_bytes > self._replay_bytes:
            log.warning("the run's replies are over WINDFALL_MAX_REPLAY_BYTES: a restart would begin it anew")
            exchange = exchange.model_copy(update={"replayable": False})
        self._journal.commit(state={"exchange": exchange, **rows, **more}, say=decision.say)
        self._replies |= {answer.body_sha256 for answer in decision.answers if answer.on_disk}
        return exchange

    def _key(self, kind: str, number: int) -> str:
        return f"{kind}/{self._generation}/{number}"
