"""The trainer at work: asks the session what to do, does it, and tells the session how it went.

The engine runs beside the event loop, one step at a time; words from the bus and from the coordinator's stream change
the session meanwhile, and the next action follows from it.
"""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final, Protocol, TypeVar
from uuid import UUID

import torch
from pydantic import BaseModel, ConfigDict

from windfall.contracts.commands import FinishRound, StopTraining
from windfall.contracts.events import SiteDrained, TrainingStarted, WindowClosed, WindowClosing
from windfall.contracts.message import derived_id
from windfall.contracts.v1 import training_pb2 as pb
from windfall.lowcomm.codec import CODECS
from windfall.servicekit.errors import Transient
from windfall.servicekit.rpc import Refused
from windfall.servicekit.service import Stand
from windfall.servicekit.telemetry import span
from windfall.site_trainer import session as sessions
from windfall.site_trainer.coordinator import CoordinatorLink, Membership, tensors_of
from windfall.site_trainer.engine import Engine
from windfall.site_trainer.session import Action, Session, Work, next_action

log = logging.getLogger(__name__)

T = TypeVar("T")

_REST: Final = timedelta(milliseconds=250)
"""Wall time between attempts at a coordinator that is away."""
_LAST: Final = "last-membership"


class Offload(Protocol):
    """Runs blocking work beside the event loop: ``asyncio.to_thread``, or in place on virtual time."""

    def __call__(self, work: Callable[..., T], /, *arguments: object) -> Awaitable[T]: ...


class LastMembership(BaseModel):
    """The membership under which a checkpoint's work was trained, so that it is never counted twice."""

    model_config = ConfigDict(frozen=True)

    federation: str
    attempt: int
    round: int


@dataclass(frozen=True)
class Terms:
    """What a trainer was started for."""

    site: str
    federation: str
    window_id: UUID
    lease_token: int
    micro_batch: int
    drain_time: timedelta
    checkpoint_every: timedelta
    checkpoint: Path | None
    """Where unfinished work is kept; none keeps it nowhere."""


class Trainer:
    """One trainer, from joining to having left."""

    def __init__(
        self,
        stand: Stand,
        terms: Terms,
        link: CoordinatorLink,
        engine: Callable[[Membership], Engine],
        offload: Offload,
    ) -> None:
        self._stand = stand
        self._terms = terms
        self._link = link
        self._make_engine = engine
        self._offload = offload
        self._engine: Engine | None = None
        self._membership: Membership | None = None
        self._stream: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._saved_at = _now()
        self._drain_time = terms.drain_time
        self._checkpointing = terms.checkpoint is not None
        self.session = Session()
        self.finished = asyncio.Event()

    def attend(self) -> None:
        """Register handlers and start."""
        bus, site = self._stand.bus, self._terms.site
        bus.hears(WindowClosing, site, self._closing)
        bus.hears(WindowClosed, site, self._closed)
        bus.hears(FinishRound, site, self._finish)
        bus.hears(StopTraining, site, self._stop)
        self._stand.spawn(self._run(), "session")

    def stop(self, reason: str) -> None:
        """Drain: finish the step, push what is there, leave."""
        self._become(sessions.stop(self.session, reason))

    # --- heard on the bus ---------------------------------------------------------------------------------------------

    async def _closing(self, event: WindowClosing) -> None:
        if event.window_id == self._terms.window_id:
            speed = 1 / self._stand.clock.wall(timedelta(seconds=1)).total_seconds()
            self._become(sessions.closing(self.session, event.closes_at - self._drain_time * speed))

    async def _closed(self, event: WindowClosed) -> None:
        if event.window_id == self._terms.window_id:
            self.stop(f"the window closed: {event.reason}")

    async def _finish(self, command: FinishRound) -> None:
        if command.federation == self._terms.federation:
            self._become(sessions.finish(self.session, command.round))

    async def _stop(self, command: StopTraining) -> None:
        if command.lease_token >= self._terms.lease_token:
            self.stop(command.reason)

    # --- the session --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        actions: dict[Action, Callable[[], Awaitable[None]]] = {
            Action.JOIN: self._join,
            Action.PULL: self._pull,
            Action.STEP: self._step,
            Action.PUSH: self._push,
            Action.WAIT: self._wait,
            Action.LEAVE: self._leave,
        }
        try:
            while (action := next_action(self.session, self._stand.clock.now())) is not Action.END:
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
        with span("join", attributes={"windfall.site": self._terms.site}):
            try:
                membership = await self._link.join(self._terms.window_id, self._terms.lease_token)
            except Refused as refused:
                log.error("not admitted: %s", refused)
                self._become(sessions.refused_entry(self.session, str(refused)))
                return
        if self._engine is None:
            self._engine = await self._offload(self._make_engine, membership)
        self._membership = membership
        self._become(sessions.joined(self.session, membership.attempt))
        if self._stream is not None:
            self._stream.cancel()
        self._stream = self._stand.spawn(self._listen(membership), "heartbeat")

    async def _listen(self, membership: Membership) -> None:
        """Keep the stream open and take in what comes; a membership that ended is joined anew."""
        while True:
            try:
                async for directive in self._link.directives(self._beat, membership.heartbeat_s):
                    self._heed(directive)
            except Transient as error:
                log.info("heartbeat is cut: %s", error)
            except Refused as refused:
                log.info("no longer a member: %s", refused)
                self._become(sessions.membership_ended(self.session))
                return
            await asyncio.sleep(_REST.total_seconds())

    def _heed(self, directive: pb.Directive) -> None:
        kind = directive.WhichOneof("kind")
        if kind == "round_opened":
            word = directive.round_opened
            self._become(
                sessions.opened(
                    self.session, word.round, word.base_digest, word.base_bytes, word.local_steps, word.micro_batch
                )
            )
        elif kind == "finish_round":
            self._become(sessions.finish(self.session, directive.finish_round.round))
        elif kind == "stop":
            self.stop(directive.stop.reason)

    def _beat(self) -> pb.Beat:
        session = self.session
        return pb.Beat(
            federation=self._terms.federation,
            site=self._terms.site,
            attempt=session.attempt or 0,
            round=session.round or 0,
            steps=session.work.steps,
            tokens=session.work.tokens,
            state=pb.SITE_STATE_TRAINING if session.work.steps else pb.SITE_STATE_IDLE,
        )

    async def _pull(self) -> None:
        engine, membership, session = self._standing()
        digest, number = session.base_digest, session.round or 0
        with span("pull", attributes={"windfall.round": number}):
            try:
                data = await self._link.pull(membership.attempt, digest, session.base_bytes)
            except Refused as refused:
                log.info("base is gone: %s", refused)
                self._become(sessions.base_gone(self.session, digest))
                return
        base = torch.frombuffer(data, dtype=torch.float32)
        await self._offload(engine.load, base)
        restored = await self._restore(engine, base, digest, number)
        self._become(sessions.pulled(self.session, digest, restored))
        self._stand.journal.commit(
            state={_LAST: LastMembership(federation=self._terms.federation, attempt=membership.attempt, round=number)}
        )

    async def _restore(self, engine: Engine, base: torch.Tensor, digest: str, number: int) -> Work:
        """Take up what a trainer before us had done from this base, unless its contribution was accepted."""
        if not self._checkpointing or self._terms.checkpoint is None:
            return Work()
        self._checkpointing = False
        last = self._stand.journal.load(_LAST, LastMembership)
        if not await self._offload(engine.restore, self._terms.checkpoint, digest):
            return Work()
        counted = last is None or last.round != number or await self._link.accepted(number, last.attempt)
        if counted:
            await self._offload(engine.load, base)
            return Work()
        return _work(engine)

    async def _step(self) -> None:
        engine, _, session = self._standing()
        first = session.work.steps == 0
        await self._offload(engine.step, session.micro_batch or self._terms.micro_batch)
        self._become(sessions.worked(self.session, _work(engine)))
        if first:
            self._say_started(session.round or 0)
        checkpoint = self._terms.checkpoint
        if checkpoint is not None and _now() - self._saved_at > self._terms.checkpoint_every.total_seconds():
            await self._offload(engine.save, checkpoint)
            self._saved_at = _now()

    async def _push(self) -> None:
        engine, membership, session = self._standing()
        number, work = session.round or 0, session.work
        leaving = sessions.draining(session, self._stand.clock.now())
        started = _now()
        self._become(sessions.pushing(session))
        with span(
            "contribution",
            attributes={
                "windfall.site": self._terms.site,
                "windfall.round": number,
                "windfall.tokens": work.tokens,
                "windfall.steps": work.steps,
                "windfall.drain": leaving,
            },
        ):
            gradient = await self._offload(engine.pseudo_gradient)
            data = await self._offload(CODECS[membership.codec].encode, gradient)
            manifest = pb.Manifest(
                key=pb.ContributionKey(
                    federation=self._terms.federation,
                    site=self._terms.site,
                    round=number,
                    attempt=membership.attempt,
                ),
                lease_token=self._terms.lease_token,
                base_digest=session.base_digest,
                codec=membership.codec,
                tokens=work.tokens,
                steps=work.steps,
                loss=round(work.loss_nats, 2),
                partial=leaving,
                total_bytes=data.nbytes,
                sha256=await self._offload(_sha256, data),
                tensors=tensors_of(membership.layout),
            )
            try:
                await self._link.push(manifest, data)
            except Refused as refused:
                log.warning("contribution refused: %s", refused)
                self._become(sessions.refused(self.session, number))
                return
            except Transient:
                self._become(sessions.interrupted(self.session))
                raise
        self._become(sessions.pushed(self.session, number))
        self._drain_time = max(self._drain_time, timedelta(seconds=2 * (_now() - started)))

    async def _wait(self) -> None:
        stop_at = self.session.stop_at
        if stop_at is None:
            await self._changed.wait()
        else:
            await self._rest(self._stand.clock.wall(stop_at - self._stand.clock.now()))
        self._changed.clear()

    async def _leave(self) -> None:
        session, terms = self.session, self._terms
        engine, checkpoint = self._engine, terms.checkpoint
        if engine is not None and checkpoint is not None and session.loaded:
            # Optimizer state and the data's cursor outlive the lease.
            await self._offload(engine.save, checkpoint)
        if session.attempt is not None:
            with suppress(Transient, Refused):
                # The coordinator notices by itself that we are gone; being drained does not wait for it.
                await self._link.leave(session.attempt, session.stopping or "the window closes")
        drained = SiteDrained(
            id=derived_id(f"{terms.window_id}/{terms.lease_token}", SiteDrained.topic, terms.site),
            at=self._stand.clock.now(),
            site=terms.site,
            federation=terms.federation,
            window_id=terms.window_id,
            lease_token=terms.lease_token,
            delivered=session.delivered,
        )
        self._stand.journal.commit(say=(drained,))
        self._stand.outbox.wake()
        self._become(sessions.gone(self.session))

    def _say_started(self, number: int) -> None:
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

    def _standing(self) -> tuple[Engine, Membership, Session]:
        assert self._engine is not None and self._membership is not None
        return self._engine, self._membership, self.session

    def _become(self, session: Session) -> None:
        if session != self.session:
            self.session = session
            self._changed.set()

    async def _rest(self, wall: timedelta) -> None:
        """Wait, but not past a change of the session."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, wall.total_seconds())):
                await self._changed.wait()


def _work(engine: Engine) -> Work:
    progress = engine.progress
    return Work(progress.steps, progress.tokens, progress.loss_nats)


def _now() -> float:
    """Seconds on the event loop's own clock: wall time, or virtual time in a fleet that runs on it."""
    return asyncio.get_running_loop().time()


def _sha256(data: memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
