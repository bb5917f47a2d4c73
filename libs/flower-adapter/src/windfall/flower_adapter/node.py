"""A site at work on a Flower app: asks the session what to do, does it, and tells the session how it went.

The ClientApp runs beside the event loop, one message at a time; words from the bus and from the coordinator's stream
change the session meanwhile, and the next action follows from it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import grpc

from windfall.contracts.commands import StopTraining
from windfall.contracts.events import (
    SiteDrained,
    TrainingStarted,
    WindowClosed,
    WindowClosing,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import derived_id
from windfall.contracts.v1 import messages_pb2 as pb
from windfall.flower_adapter import session as sessions
from windfall.flower_adapter import shim, window
from windfall.flower_adapter.client_host import ClientHost, Outcome, Worker
from windfall.flower_adapter.link import Membership, NodeLink
from windfall.flower_adapter.session import Action, Session, next_action
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.rpc import Refused
from windfall.servicekit.service import Stand
from windfall.servicekit.telemetry import span

log = logging.getLogger(__name__)

_REST: Final = timedelta(milliseconds=250)
"""Wall time between attempts at a coordinator that is away."""
_MENDABLE: Final = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.PERMISSION_DENIED)


@dataclass(frozen=True)
class Terms:
    """What a site was started for."""

    site: str
    federation: str
    window_id: UUID
    lease_token: int
    app: str
    """``publisher/name``."""
    drain_time: timedelta
    """Wall time, like the next."""
    finish_within: timedelta
    opens_at: datetime | None = None
    """When the window is expected to open; none when it is open."""


class Node:
    """One site under one lease, from its start to having left."""

    def __init__(self, stand: Stand, terms: Terms, link: NodeLink, host: ClientHost) -> None:
        self._stand = stand
        self._terms = terms
        self._link = link
        self._host = host
        self._worker = Worker()
        self._membership: Membership | None = None
        self._stream: asyncio.Task[None] | None = None
        self._notices: dict[str, pb.MessageNotice] = {}
        self._outcome: Outcome | None = None
        self._body: tuple[str, memoryview] = ("", memoryview(b""))
        """The newest body: the model that was evaluated is the one that is trained next."""
        self._changed = asyncio.Event()
        self._draining = asyncio.Event()
        self._started = False
        speed = 1 / stand.clock.wall(timedelta(seconds=1)).total_seconds()
        self.session = Session(
            permitted=terms.opens_at is None,
            lead=terms.drain_time * speed,
            patience=terms.finish_within * speed,
        )
        self.finished = asyncio.Event()

    def attend(self) -> None:
        """Register handlers and start."""
        bus, site = self._stand.bus, self._terms.site
        # Followed and not heard: the site's last process may still drain, or may have died with our word in its hands.
        bus.follows(WindowOpened, site, self._opened)
        bus.follows(WindowWithdrawn, site, self._withdrawn)
        bus.follows(WindowClosing, site, self._closing)
        bus.follows(WindowClosed, site, self._closed)
        bus.hears(StopTraining, site, self._stop)
        self._stand.spawn(self._run(), "session")

    def stop(self, reason: str) -> None:
        """Drain: begin nothing more, let what runs reply, leave."""
        self._become(sessions.stop(self.session, reason, self._stand.clock.now()))

    # --- heard on the bus ---------------------------------------------------------------------------------------------

    async def _opened(self, event: WindowOpened) -> None:
        if event.window_id == self._terms.window_id:
            self._become(sessions.permitted(self.session))

    async def _withdrawn(self, event: WindowWithdrawn) -> None:
        if event.window_id == self._terms.window_id and not self.session.permitted:
            self.stop("the window is not expected any more")

    async def _closing(self, event: WindowClosing) -> None:
        if event.window_id == self._terms.window_id:
            self._become(sessions.closing(self.session, event.closes_at, event.at))

    async def _closed(self, event: WindowClosed) -> None:
        if event.window_id == self._terms.window_id:
            self.stop(f"the window closed: {event.reason}")

    async def _stop(self, command: StopTraining) -> None:
        if command.lease_token >= self._terms.lease_token:
            self.stop(command.reason)

    # --- the session --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        actions: dict[Action, Callable[[], Awaitable[None]]] = {
            Action.JOIN: self._join,
            Action.RUN: self._begin,
            Action.REPLY: self._reply,
            Action.DECLINE: self._decline,
            Action.ABANDON: self._abandon,
            Action.WAIT: self._wait,
            Action.LEAVE: self._leave,
        }
        try:
            while (action := next_action(self.session, self._stand.clock.now())) is not Action.END:
                if sessions.draining(self.session, self._stand.clock.now()):
                    window.close()
                    self._draining.set()
                try:
                    await actions[action]()
                except Transient as error:
                    log.info("%s will be tried again: %s", action, error)
                    await self._rest(error.retry_after or _REST)
        finally:
            if self._stream is not None:
                self._stream.cancel()
            self.finished.set()
            self._stand.stopping.set()

    async def _join(self) -> None:
        terms = self._terms
        try:
            membership = await self._link.join(terms.window_id, terms.lease_token, terms.app)
        except Refused as refused:
            if refused.code in _MENDABLE:
                raise Mistake(
                    f"the coordinator does not admit this site: {refused}",
                    "Give the site the coordinator's app, and the lease that it was started with",
                    ExitCode.SERVER,
                ) from refused
            raise Transient(str(refused)) from refused
        if self._stream is not None:
            self._stream.cancel()
        self._membership = membership
        self._become(sessions.joined(self.session, membership.attempt))
        self._stream = asyncio.get_running_loop().create_task(self._listen(membership))

    async def _listen(self, membership: Membership) -> None:
        """Hear the coordinator; a cut stream is opened again, an ended membership joined anew."""
        while True:
            try:
                async with aclosing(self._link.announcements(membership, self._draining)) as stream:
                    async for announcement in stream:
                        if announcement.HasField("message"):
                            self._notices[announcement.message.message_id] = announcement.message
                            self._become(sessions.announced(self.session, announcement.message.message_id))
                        elif announcement.HasField("ended"):
                            self.stop(announcement.ended.reason)
            except Transient as error:
                log.info("the coordinator is away: %s", error)
            except Refused as refused:
                log.info("this membership has ended: %s", refused)
                self._become(sessions.membership_ended(self.session))
                return
            await asyncio.sleep(_REST.total_seconds())

    async def _begin(self) -> None:
        message = self.session.waiting[0]
        self._become(sessions.began(self.session))
        self._say_started(self._notices[message].round)
        self._stand.spawn(self._work(message), "message")

    async def _work(self, message: str) -> None:
        """One message, from its body to its outcome."""
        notice, membership = self._notices[message], self._membership
        assert membership is not None
        with span(
            f"message {notice.message_type}",
            links=[{"traceparent": notice.traceparent}],
            attributes={"windfall.site": self._terms.site, "windfall.round": notice.round},
        ):
            try:
                body = await self._body_of(notice, membership)
                outcome = await self._worker.run(self._host.run, membership.identity, notice, body)
            except Transient as error:
                log.info("the message cannot be had now: %s", error)
                await asyncio.sleep(_REST.total_seconds())
                self._become(sessions.again(self.session, message))
                return
            except Refused as refused:
                outcome = Outcome(None, shim.MESSAGE_UNAVAILABLE, str(refused))
        if message == self.session.running:
            self._outcome = outcome
        self._become(sessions.ran(self.session, message))

    async def _body_of(self, notice: pb.MessageNotice, membership: Membership) -> memoryview:
        digest, body = self._body
        if digest != notice.body_sha256:
            self._body = ("", memoryview(b""))
            body = await self._link.fetch(membership.attempt, notice.body_sha256, notice.body_bytes)
            self._body = (notice.body_sha256, body)
        return body

    async def _reply(self) -> None:
        message, outcome, membership = self.session.owed, self._outcome, self._membership
        assert outcome is not None and membership is not None
        packed = outcome.packed
        if packed is not None and packed.body_bytes > membership.max_body_bytes:
            log.warning("a reply of %d bytes is over the coordinator's cap", packed.body_bytes)
        await self._send(message, outcome)
        self._outcome = None
        self._become(sessions.replied(self.session, message))
        self._notices.pop(message, None)

    async def _decline(self) -> None:
        message = self.session.waiting[0]
        await self._send(message, self._gone("is about to go dark and did not begin"))
        self._become(sessions.declined(self.session))
        self._notices.pop(message, None)

    async def _abandon(self) -> None:
        message = self.session.running
        log.warning("the ClientApp did not end in time: an error is replied in its place")
        await self._send(message, self._gone("goes dark before the ClientApp has ended"))
        self._become(sessions.abandoned(self.session))

    async def _send(self, message: str, outcome: Outcome) -> None:
        assert self._membership is not None
        try:
            await self._link.reply(self._membership, self._terms.lease_token, message, outcome)
        except Refused as refused:
            # It does not count, and would not if it came again; the strategy was given an error in its place.
            log.warning("a reply was refused: %s", refused)

    def _gone(self, why: str) -> Outcome:
        return Outcome(None, shim.NODE_UNAVAILABLE, f"{self._terms.site} {why}")

    async def _wait(self) -> None:
        now = self._stand.clock.now()
        at = sessions.wakes_at(self.session, now)
        await self._rest(None if at is None else self._stand.clock.wall(at - now))

    async def _leave(self) -> None:
        if self.session.attempt is not None:
            with suppress(Transient, Refused):
                # The coordinator notices by itself that we are gone; being drained does not wait for it.
                await self._link.leave(self.session.attempt, self.session.stopping or "the window ends")
        self._become(sessions.gone(self.session))
        terms = self._terms
        drained = SiteDrained(
            id=derived_id(f"{terms.window_id}/{terms.lease_token}", SiteDrained.topic, terms.site),
            at=self._stand.clock.now(),
            site=terms.site,
            federation=terms.federation,
            window_id=terms.window_id,
            lease_token=terms.lease_token,
            delivered=self.session.delivered,
        )
        self._stand.journal.commit(say=(drained,))
        self._stand.outbox.wake()

    def _say_started(self, number: int) -> None:
        if self._started:
            return
        self._started = True
        terms = self._terms
        started = TrainingStarted(
            id=derived_id(f"{terms.window_id}/{terms.lease_token}", TrainingStarted.topic, terms.site),
            at=self._stand.clock.now(),
            site=terms.site,
            federation=terms.federation,
            window_id=terms.window_id,
            lease_token=terms.lease_token,
            round=number,
        )
        self._stand.journal.commit(say=(started,))
        self._stand.outbox.wake()

    def _become(self, session: Session) -> None:
        if session != self.session:
            self.session = session
            self._changed.set()

    async def _rest(self, wall: timedelta | None) -> None:
        """Wait for a change of the session, and at most so long."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(None if wall is None else max(0.0, wall.total_seconds())):
                await self._changed.wait()
