"""The message exchange at work: decides, journals, then tells; who waits for an answer, and who is told of a message.

Everything here runs on the event loop but the reading and checking of bodies. The strategy runs in a thread of its own
and comes in through ``windfall.flower_adapter.grid``.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import timedelta
from typing import Final
from uuid import UUID

from flwr.app import RecordDict
from pydantic import BaseModel

from windfall.contracts.commands import StopFederation
from windfall.contracts.events import RoundCompleted
from windfall.contracts.v1 import messages_pb2 as pb
from windfall.flower_adapter import exchange as exchanges
from windfall.flower_adapter import shim
from windfall.flower_adapter.app_folder import RunConfig
from windfall.flower_adapter.blobs import Blobs
from windfall.flower_adapter.exchange import Decision, node_id_of
from windfall.flower_adapter.records import Batch, BatchEnd, Records
from windfall.flower_adapter.streams import Attendance, NotMember, Streams, ended, notice
from windfall.flower_adapter.values import Answer, Exchange, Gone, Told
from windfall.servicekit.instruments import ROUNDS
from windfall.servicekit.metrics import record
from windfall.servicekit.offload import Offload
from windfall.servicekit.service import Stand
from windfall.servicekit.transferred import Transferred

log = logging.getLogger(__name__)

AS_FLOWER_WRITES: Final = "flower"
"""What stands for a codec where arrays travel in the types that they have."""


class RunStopped(Exception):
    """The run was told to stop: it pushes nothing more."""


class Office:
    """One run's messages.

    Args:
        sites: who may come; empty for anybody.
        silence: wall time after which a member without a sign of life is gone.
        replay_bytes: replies that are kept for a replay.
    """

    def __init__(
        self,
        stand: Stand,
        blobs: Blobs,
        exchange: Exchange,
        sites: tuple[str, ...],
        silence: timedelta,
        replay_bytes: int,
        config: RunConfig,
        offload: Offload = asyncio.to_thread,
    ) -> None:
        self.stand = stand
        self.blobs = blobs
        self.offload = offload
        self.config = config
        self.records = Records(stand.journal, blobs, replay_bytes)
        self.state = self.records.opened(exchange)
        self.contents: dict[str, RecordDict] = {}
        """Replies that were read when they came, until the strategy takes them."""
        self._sites = sites
        self._streams = Streams(silence, self._silent)
        self._attendance = Attendance(sites)
        self._answers: dict[str, Answer] = {}
        self._changed = asyncio.Condition()
        self.transferred = Transferred(self.state.federation)
        self._stopping = False
        self._resting = False
        self._draining: set[tuple[str, int]] = set()

    def attend(self) -> None:
        """Register handlers; after a restart, watch over the members that the journal names."""
        self.transferred.show()
        if not self.state.finished:
            # One that never completes a round is alerted as well.
            record(ROUNDS, 0, {"windfall.federation": self.state.federation, "windfall.outcome": "completed"})
        self.stand.bus.hears(StopFederation, self.state.federation, self._stop)
        for member in self.state.members.values():
            self._streams.watch(member.site, member.attempt)

    # --- for the strategy ---------------------------------------------------------------------------------------------

    async def nodes(self) -> tuple[int, ...]:
        """Node ids of the members that are up now and not about to go; who is waited for is said in the log."""
        self._check_running()
        up = self._up()
        self._attendance.say(up)
        return tuple(node_id_of(self.state.federation, site) for site in up)

    async def until_up(self, sites: Iterable[str], timeout_s: float | None) -> bool:
        """Wait until one of these is up, and at most so long; false when none was.

        Raises:
            RunStopped: the run was told to stop.
        """
        wanted = set(sites)
        self._attendance.say(self._up())
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self._stopping or wanted & set(self._up()))
        except TimeoutError:
            return False
        self._check_running()
        return True

    def _up(self) -> list[str]:
        members = self.state.members.values()
        return sorted(one.site for one in members if (one.site, one.attempt) not in self._draining)

    def site_of(self, node_id: int) -> str | None:
        """The site behind a node id, up or not."""
        known = {*self.state.attempts, *self._sites}
        return next((site for site in known if node_id_of(self.state.federation, site) == node_id), None)

    async def post(self, batch: Batch, before: BatchEnd | None) -> None:
        """Send a batch, and keep how the one before ended.

        Raises:
            RunStopped: the run was told to stop.
        """
        self._check_running()
        number = self.state.batches
        state, decision = exchanges.push(self.state, batch.sent, shim.NODE_UNAVAILABLE, self.stand.clock.now())
        self._commit(state, decision, self.records.batch(state, number, batch, before))
        for sent in batch.sent:
            if sent.id in state.waiting:
                self._streams.tell(sent.site, state.members[sent.site].attempt, notice(sent))
        await self._say_changed()

    async def answered(self, ids: Iterable[str], timeout_s: float | None) -> dict[str, Answer]:
        """Wait until all of these are answered or the time is over, and give the answers that there are.

        A run that is told to stop still gets the answers to what it has sent.

        Raises:
            RunStopped: this process ends.
        """
        wanted = set(ids)
        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(lambda: self._resting or wanted <= self._known(wanted))
        except TimeoutError:
            level = logging.WARNING if timeout_s else logging.DEBUG
            log.log(level, "%d of %d replies came in time", len(self._known(wanted)), len(wanted))
        if self._resting:
            raise RunStopped("the coordinator ends")
        return {name: self._answers[name] for name in self._known(wanted)}

    def _known(self, wanted: set[str]) -> set[str]:
        for name in wanted - self._answers.keys():
            if (found := self.records.answer(name)) is not None:
                self._answers[name] = found
        return wanted & self._answers.keys()

    def taken(self, ids: Iterable[str]) -> None:
        """The strategy has these answers: they need not stay in memory."""
        for name in ids:
            self._answers.pop(name, None)
            self.contents.pop(name, None)

    async def finish(self, model_digest: str) -> None:
        """The app has ended."""
        if self.state.finished:
            return
        self._commit(*exchanges.finish(self.state, model_digest, self.stand.clock.now()))
        self._streams.tell_all(ended())

    # --- for the sites ------------------------------------------------------------------------------------------------

    async def join(self, site: str, window_id: UUID, lease_token: int) -> int:
        """Admit a site and give its attempt number. Raises ``exchanges.Fenced``."""
        before = self.state.members.get(site)
        self._commit(*exchanges.join(self.state, site, window_id, lease_token, self.stand.clock.now()))
        if before is not None:
            self._streams.end(site, before.attempt)
        attempt = self.state.attempts[site]
        self._streams.watch(site, attempt)
        await self._say_changed()
        return attempt

    def announcements(self, site: str, attempt: int) -> AsyncIterator[pb.Announcement]:
        """What a member is told for as long as its stream is open, beginning with all that waits for it.

        Raises:
            NotMember: membership has ended.
        """
        self.check_member(site, attempt)
        first = [notice(sent) for sent in self.state.waiting.values() if sent.site == site]
        first += [ended()] if self.state.finished else []
        return self._streams.announcements(site, attempt, first)

    def beat(self, site: str, attempt: int, draining: bool) -> None:
        """The member lives; one that drains is sent nothing more."""
        if (member := self.state.members.get(site)) is not None and member.attempt == attempt:
            self._streams.watch(site, attempt)
            if draining:
                self._draining.add((site, attempt))

    def check_member(self, site: str, attempt: int) -> None:
        member = self.state.members.get(site)
        if member is None or member.attempt != attempt:
            raise NotMember(f"{site} is no member under attempt {attempt}")

    async def leave(self, site: str, attempt: int, why: Gone = "drained") -> None:
        """The member is gone; whatever waits for it fails now."""
        state, decision = exchanges.leave(self.state, site, attempt, why, shim.NODE_UNAVAILABLE, self.stand.clock.now())
        if state is self.state:
            return
        self._attendance.left(site, why)
        self._draining.discard((site, attempt))
        self._commit(state, decision)
        self._streams.end(site, attempt)
        await self._say_changed()

    async def take(self, answer: Answer, content: RecordDict | None, told: Told) -> None:
        """An answer that was checked, and lies on disk."""
        if content is not None and answer.id in self.state.waiting:
            self.contents[answer.id] = content
        self._commit(*exchanges.answer(self.state, answer, told, self.stand.clock.now()))
        await self._say_changed()

    async def refuse(self, message_id: str, reason: str, detail: str) -> None:
        """A reply that does not pass."""
        log.warning("refused a reply: %s: %s", reason, detail)
        now = self.stand.clock.now()
        self._commit(*exchanges.refuse(self.state, message_id, reason, detail, shim.REPLY_UNAVAILABLE, now))
        await self._say_changed()

    def is_answered(self, message_id: str) -> bool:
        return message_id not in self.state.waiting and self.records.answer(message_id) is not None

    def config_json(self) -> str:
        return json.dumps(self.config)

    # --- after a decision ---------------------------------------------------------------------------------------------

    def _commit(self, state: Exchange, decision: Decision, more: Mapping[str, BaseModel] | None = None) -> None:
        self.state = self.records.commit(state, decision, more or {})
        self.stand.outbox.wake()
        for completed in (event for event in decision.say if isinstance(event, RoundCompleted)):
            self.transferred.add("up", AS_FLOWER_WRITES, completed.bytes_up)
            self.transferred.add("down", AS_FLOWER_WRITES, completed.bytes_down)
        for answer in decision.answers:
            self._answers[answer.id] = answer

    async def changed(self) -> None:
        """Wait for the next answer, member or word that ends the run."""
        async with self._changed:
            await self._changed.wait()

    async def _say_changed(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _stop(self, command: StopFederation) -> None:
        if not self._stopping:
            log.info("told to stop: %s", command.reason)
        self._stopping = True
        await self._say_changed()

    def _check_running(self) -> None:
        if self._stopping:
            raise RunStopped("the federation was told to stop")

    def _silent(self, site: str, attempt: int) -> None:
        self.stand.spawn(self.leave(site, attempt, "silent"), "silence")

    async def rest(self) -> None:
        """Let nobody wait, and watch over nobody: whoever comes next does."""
        self._resting = self._stopping = True
        self._streams.rest()
        await self._say_changed()
