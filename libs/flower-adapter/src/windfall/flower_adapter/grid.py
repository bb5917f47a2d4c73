"""Flower's ``Grid`` over Windfall's transport: what a ServerApp talks to, in a thread of its own.

A ServerApp keeps everything in memory and has no way to begin in the middle. So after a restart it is run again from
its beginning, and here it meets the same world: the same nodes are up, the same random numbers come, and what it pushed
before is answered from the journal, until it comes to the batch that was never answered in full. What a strategy draws
from elsewhere (the time, ``secrets``, a file that has changed) it draws anew; then its replayed batches differ from
those that were sent, which is said in the log, and the old answers count.
"""

import base64
import logging
import time
from asyncio import AbstractEventLoop, run_coroutine_threadsafe
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from flwr.app import Error, Message, RecordDict
from flwr.serverapp import Grid

from windfall.flower_adapter import randomness, shim
from windfall.flower_adapter.content import Packed, pack, unpack
from windfall.flower_adapter.exchange import message_id_of
from windfall.flower_adapter.office import Office, RunStopped
from windfall.flower_adapter.randomness import Randomness
from windfall.flower_adapter.records import Batch, BatchEnd
from windfall.flower_adapter.types_kept import TypesKept
from windfall.flower_adapter.values import Answer, Sent
from windfall.servicekit.errors import Mistake
from windfall.servicekit.telemetry import outgoing_trace, span

log = logging.getLogger(__name__)

T = TypeVar("T")


class WindfallGrid(Grid):
    """One run's grid. Every call blocks its thread, and none of them polls.

    Args:
        office: the exchange, whose event loop runs in another thread.
        max_body_bytes: a longer message is a ``Mistake``.
    """

    def __init__(self, office: Office, loop: AbstractEventLoop, run: shim.Run, max_body_bytes: int) -> None:
        self._office = office
        self._loop = loop
        self._run = run
        self._max_body_bytes = max_body_bytes
        self._number = 0
        """Of the next batch."""
        self._out: dict[str, Message] = {}
        """Messages that wait for their answer, without their content: replies are made from them."""
        self._nodes: list[tuple[int, ...]] = []
        self._asked = 0
        self._before: Randomness | None = None
        self._end: BatchEnd | None = None
        self.types = TypesKept()
        self.last: RecordDict = RecordDict()
        """What was pushed last: the newest model, when the run is stopped."""

    # --- Flower's interface -------------------------------------------------------------------------------------------

    def set_run(self, run: shim.Run) -> None:
        self._run = run

    @property
    def run(self) -> shim.Run:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """Node ids of the sites that are up now; a site keeps its id for ever."""
        stored = self._stored()
        first, self._asked = self._asked == 0, self._asked + 1
        if stored is not None and stored.nodes:
            if first and stored.before is not None:
                randomness.restore(stored.before)
            return stored.nodes[min(self._asked, len(stored.nodes)) - 1]
        if first:
            self._before = randomness.captured()
        up = self._call(self._office.nodes())
        if not self._nodes or self._nodes[-1] != up:
            self._nodes.append(up)
        return up

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Send a batch.

        Raises:
            RunStopped: the run was told to stop.
            Mistake: a message is too long, or for a node that never was.
        """
        batch = list(messages)
        if not batch:
            return []
        stored = self._stored()
        with span("push", root=True, attributes={"windfall.federation": self._office.state.federation}):
            sent = self._sent(batch)
            if stored is None:
                self._call(
                    self._office.post(Batch(sent=sent, nodes=tuple(self._nodes), before=self._before), self._end)
                )
            elif [(one.id, one.body_sha256) for one in sent] != [(one.id, one.body_sha256) for one in stored.sent]:
                log.warning(
                    "the strategy does not push what it pushed before the restart (batch %d): it draws on something "
                    "that is not replayed; the answers to what it pushed then count",
                    self._number,
                )
        self._number += 1
        self._nodes, self._asked, self._before, self._end = [], 0, None, None
        return [one.id for one in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Those replies that are there, each of them once; does not wait."""
        return self._replies([name for name in message_ids if name in self._out], 0)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send a batch and wait for an answer to each message: its node's, or an error as soon as the node is gone.

        When every node of it has gone, it is sent again once one of them is back, until the timeout.

        Raises:
            RunStopped: the run was told to stop.
        """
        batch = list(messages)
        deadline = None if timeout is None else time.monotonic() + timeout
        while batch:
            replies = self._answered_once(batch, deadline)
            if len(replies) < len(batch) or not all(_is_away(reply) for reply in replies):
                return replies
            # Nobody is left to contribute: that is a pause, not a result. The first site that is back goes on.
            log.info("every site of the batch has gone dark: it is sent again to the first that comes back")
            if not self._back(batch, deadline):
                return replies
        return []

    def _answered_once(self, batch: list[Message], deadline: float | None) -> list[Message]:
        number = self._number
        ids = list(self.push_messages(batch))
        ended = self._ended(number)
        if ended is not None:
            replies = self._replies([name for name in ended.taken if name in self._out], 0)
            randomness.restore(ended.after)
            return replies
        replies = self._replies(ids, _left(deadline))
        taken = tuple(reply.metadata.reply_to_message_id for reply in replies)
        self._end = BatchEnd(taken=taken, after=randomness.captured())
        return replies

    def _back(self, batch: list[Message], deadline: float | None) -> bool:
        """Wait until a site of the batch is up; it was, if the batch is one that was sent again before a crash."""
        if self._stored() is not None:
            return True
        sites = {self._office.site_of(message.metadata.dst_node_id) for message in batch}
        return self._call(self._office.until_up([site for site in sites if site is not None], _left(deadline)))

    # --- sending ------------------------------------------------------------------------------------------------------

    def _sent(self, batch: list[Message]) -> tuple[Sent, ...]:
        packed: dict[int, tuple[Packed, str]] = {}
        counts: dict[str, int] = {}
        sent = []
        for message in batch:
            whole = message.content
            if id(whole) not in packed:
                # Stock strategies send one content to many nodes: it is packed, hashed and kept once.
                packed[id(whole)] = self._kept(whole)
            content, digest = packed[id(whole)]
            site = self._office.site_of(message.metadata.dst_node_id)
            if site is None:
                raise Mistake(
                    f"the ServerApp sends to node {message.metadata.dst_node_id}, which never was",
                    "Send to nodes that get_node_ids names",
                )
            index = counts[site] = counts.get(site, 0) + 1
            one = Sent(
                id=message_id_of(self._office.state, self._number, site, index),
                site=site,
                node_id=message.metadata.dst_node_id,
                message_type=message.metadata.message_type,
                group_id=message.metadata.group_id,
                ttl_s=message.metadata.ttl,
                created_at_s=message.metadata.created_at,
                header=content.header.decode(),
                body_sha256=digest,
                body_bytes=content.body_bytes,
                round=self._office.state.rounds,
                trace=outgoing_trace(),
            )
            sent.append(one)
            self._out[one.id] = self._stub(message, one.id)
        return tuple(sent)

    def _kept(self, whole: RecordDict) -> tuple[Packed, str]:
        self.last = whole = self.types.kept(whole)
        packed = pack(whole)
        if packed.body_bytes > self._max_body_bytes:
            raise Mistake(
                f"the ServerApp sends a message of {packed.body_bytes} bytes, at most {self._max_body_bytes} travel",
                "Set WINDFALL_MAX_MESSAGE_BYTES",
            )
        # What may still be fetched: a new batch, or the last one before a crash, of which a power cut kept no body.
        write = self._number >= self._office.records.replayed - 1
        name = self._office.blobs.write if write else self._office.blobs.named
        return packed, name(packed.pieces)

    def _stub(self, message: Message, message_id: str) -> Message:
        metadata = message.metadata
        stub = Message(
            RecordDict(), metadata.dst_node_id, metadata.message_type, ttl=metadata.ttl, group_id=metadata.group_id
        )
        shim.name_message(stub, message_id)
        shim.name_message(message, message_id)
        return stub

    # --- receiving ----------------------------------------------------------------------------------------------------

    def _replies(self, ids: list[str], timeout: float | None) -> list[Message]:
        """In the order in which they were sent, so that sums come out the same whoever was faster."""
        answers = self._call(self._office.answered(ids, timeout))
        replies = [self._reply(answers[name]) for name in ids if name in answers]
        self._loop.call_soon_threadsafe(self._office.taken, tuple(answers))
        return replies

    def _reply(self, answer: Answer) -> Message:
        to = self._out.pop(answer.id)
        if answer.error_code is not None:
            return Message(Error(answer.error_code, answer.reason), reply_to=to)
        content = self._office.contents.get(answer.id)
        if content is None:
            content = self._read(answer)
        reply = Message(content, reply_to=to)
        shim.name_message(reply, f"reply-{answer.id}")
        return reply

    def _read(self, answer: Answer) -> RecordDict:
        header = answer.header.encode()
        if answer.body:
            return unpack(header, base64.b64decode(answer.body))
        with self._office.blobs.opened(answer.body_sha256) as body:
            return unpack(header, body)

    # --- the other thread ---------------------------------------------------------------------------------------------

    def _stored(self) -> Batch | None:
        """The next batch as it was pushed before this process began; none when it is new."""
        replays = self._number < self._office.records.replayed
        return self._call(self._load_batch(self._number)) if replays else None

    def _ended(self, number: int) -> BatchEnd | None:
        return self._call(self._load_end(number)) if number < self._office.records.replayed else None

    async def _load_batch(self, number: int) -> Batch | None:
        return self._office.records.stored(number)

    async def _load_end(self, number: int) -> BatchEnd | None:
        return self._office.records.end(number)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            future = run_coroutine_threadsafe(work, self._loop)
        except RuntimeError as error:
            work.close()
            raise RunStopped("the coordinator has ended") from error
        return future.result()


def _is_away(reply: Message) -> bool:
    return reply.has_error() and reply.error.code == shim.NODE_UNAVAILABLE


def _left(deadline: float | None) -> float | None:
    """Seconds until then; none when there is no end."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())
