"""The trainer at work: asks the session what to do, does it, and tells the session how it went.

The engine runs beside the event loop, one step at a time; words from the bus and from the coordinator's stream change
the session meanwhile, and the next action follows from it.

It joins before it loads torch, which takes longer than all the rest of its start: nothing here imports it at the top.

A trainer that cannot go on (no memory, a broken disk, a model that diverges) leaves the federation, so that nobody
waits for it, and ends with one line. It does not say ``site.drained``: it did not drain, and the provisioner sees it
die.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import UUID

import grpc
from pydantic import BaseModel, ConfigDict

from windfall.contracts.commands import FinishRound, StopTraining
from windfall.contracts.events import (
    SiteDrained,
    TaskLearnt,
    TrainingStarted,
    WindowClosed,
    WindowClosing,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import derived_id
from windfall.contracts.v1 import training_pb2 as pb
from windfall.servicekit.bus import back_off
from windfall.servicekit.crashpoint import reach
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.instruments import BARRIER_WAIT
from windfall.servicekit.metrics import record
from windfall.servicekit.offload import Offload
from windfall.servicekit.rpc import Refused
from windfall.servicekit.service import Stand
from windfall.servicekit.telemetry import span
from windfall.site_trainer import overlapping
from windfall.site_trainer import session as sessions
from windfall.site_trainer.barrier import Barrier
from windfall.site_trainer.bases import Bases
from windfall.site_trainer.beside import Beside
from windfall.site_trainer.coordinator import CoordinatorLink, Membership, unknown
from windfall.site_trainer.engine import Engine, TrainsOn, Tunes, on_rows
from windfall.site_trainer.foresight import fits, foreseen, remember
from windfall.site_trainer.local_training import LocalTraining
from windfall.site_trainer.overlapping import next_action
from windfall.site_trainer.saving import Saving
from windfall.site_trainer.session import Action, Opening, Session, Work
from windfall.site_trainer.supply import Supply
from windfall.site_trainer.tuning import Owner, Tuning, tuned
from windfall.tasks.ranges import NONE, Ranges

if TYPE_CHECKING:
    from windfall.site_trainer.parcel import Parcel, Unsent
    from windfall.site_trainer.replica import Replica

log = logging.getLogger(__name__)

T = TypeVar("T")

_REST: Final = timedelta(milliseconds=250)
"""Wall time between attempts at a coordinator that is away, at least."""
_LONGEST_REST: Final = timedelta(seconds=2)
"""And at most: it is doubled with each attempt in vain, which costs an fsync. The heartbeat's stream asks as often as
ever, and the first word that comes over it ends the rest."""
_PATIENCE: Final = timedelta(seconds=5)
"""Wall time, at most, between two memberships of which the first came to nothing."""
_VAIN_STEPS: Final = 100
"""Steps in a row without a finite loss after which a model has diverged."""
_LAST: Final = "last-membership"


class LastMembership(BaseModel):
    """The membership under which work was last sent, so that a checkpoint's work is never counted twice."""

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
    opens_at: datetime | None = None
    """When the window is expected to open; none when it is open."""
    owner: Owner = field(default_factory=Owner)
    """What goes before the coordinator's word."""


class Trainer:
    """One trainer, from its start to having left. Under a lease that was taken ahead it keeps warm until its window is
    said to be open.

    Args:
        engine: makes one for a membership; blocks.
        offload: runs what blocks beside the event loop.
        warm_up: readies the device before anything is known of what is trained; blocks.
    """

    def __init__(
        self,
        stand: Stand,
        terms: Terms,
        link: CoordinatorLink,
        engine: Callable[[Membership], Engine],
        offload: Offload,
        warm_up: Callable[[], None] = lambda: None,
    ) -> None:
        self._stand = stand
        self._terms = terms
        self._link = link
        self._make_engine = engine
        self._offload = offload
        self._warm_up = warm_up
        self._engine: Engine | None = None
        self._supply: Supply | None = None
        self._foreseen: Membership | None = None
        self._membership: Membership | None = None
        self._stream: asyncio.Task[None] | None = None
        self._parcel: Parcel | None = None
        base_path = None if terms.checkpoint is None else terms.checkpoint.with_name("base.safetensors")
        self._bases = Bases(link, base_path, offload, self._train)
        self._unsent: Unsent = {}
        self._changed = asyncio.Event()
        self._beside = Beside(self._changed.set)
        self._barrier = Barrier()
        self._local_training = LocalTraining()
        self._saving = Saving(terms.checkpoint, terms.checkpoint_every, offload, stand.spawn)
        self._drain_time = terms.drain_time
        self._speed = 1 / stand.clock.wall(timedelta(seconds=1)).total_seconds()
        self._restoring = terms.checkpoint is not None
        self._holds_base = False
        self._started = False
        self._tuning = tuned(terms.owner, Session())
        """What the engine goes by; at first as it was made."""
        self._skipped = 0
        self._vain_joins = 0
        self._vain = 0
        """Attempts at a coordinator that is away, since the last that was none."""
        self.session = Session(permitted=terms.opens_at is None, lead=terms.drain_time * self._speed)
        self.loaded = asyncio.Event()
        """Set when what training needs is in memory: the node is ready, and measuring it disturbs nobody."""
        self.finished = asyncio.Event()

    def attend(self) -> None:
        """Register handlers and start."""
        bus, site = self._stand.bus, self._terms.site
        # Followed and not heard: the site's last trainer may still drain, or may have died with our word in its hands.
        bus.follows(WindowOpened, site, self._opened)
        bus.follows(WindowWithdrawn, site, self._withdrawn)
        bus.follows(WindowClosing, site, self._closing)
        bus.follows(WindowClosed, site, self._closed)
        bus.hears(FinishRound, site, self._finish)
        bus.hears(StopTraining, site, self._stop)
        self._stand.spawn(self._run(), "session")

    def stop(self, reason: str) -> None:
        """Drain: finish the step, push what is there, leave."""
        self._become(overlapping.stop(self.session, reason, self._stand.clock.now()))

    # --- heard on the bus ---------------------------------------------------------------------------------------------

    async def _opened(self, event: WindowOpened) -> None:
        if event.window_id == self._terms.window_id:
            self._become(sessions.permitted(self.session))

    async def _withdrawn(self, event: WindowWithdrawn) -> None:
        if event.window_id == self._terms.window_id:
            self._become(sessions.withdrawn(self.session, "the window is not expected any more"))

    async def _closing(self, event: WindowClosing) -> None:
        if event.window_id == self._terms.window_id:
            self._become(sessions.closing(self.session, event.closes_at, event.at))

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
            Action.WARM: self._warm,
            Action.JOIN: self._join,
            Action.PULL: self._pull,
            Action.STEP: self._step,
            Action.PUSH: self._push,
            Action.TELL: self._tell,
            Action.REBASE: self._rebase,
            Action.WAIT: self._wait,
            Action.LEAVE: self._leave,
        }
        try:
            while (action := next_action(self.session, self._stand.clock.now())) is not Action.END:
                self._beside.look()
                try:
                    await actions[action]()
                    self._vain = 0
                except Transient as error:
                    self._vain += 1
                    log.info("%s will be tried again: %s", action, error)
                    await self._rest(error.retry_after or min(_LONGEST_REST, max(_REST, back_off(self._vain))))
        except Mistake:
            await self._say_goodbye("the trainer cannot go on")
            raise
        finally:
            if self._stream is not None:
                self._stream.cancel()
            self._beside.cancel()
            self.finished.set()
            self._stand.stopping.set()

    async def _warm(self) -> None:
        """Load what can be loaded without joining. What goes wrong with it is met again by who joins, and said then."""
        began = _now()
        await self._offload(self._warm_up)
        expected = foreseen(self._stand.journal, self._terms.federation)
        if expected is not None:
            try:
                self._engine = await self._train(self._make_engine, expected)
                self._foreseen = expected
            except Mistake as error:
                log.warning("no engine ahead of the window: %s", error)
        loaded = "without an engine" if self._engine is None else "with its engine"
        log.info("warm after %.1f s, %s; the window is expected at %s", _now() - began, loaded, self._terms.opens_at)
        self.loaded.set()
        self._become(sessions.warmed(self.session))

    async def _join(self) -> None:
        # What goes on beside stands under a membership that has ended.
        await self._beside.end()
        if self._vain_joins and await self._rest(min(_PATIENCE, back_off(self._vain_joins))):
            # Something changed meanwhile: perhaps there is nothing to join for any more.
            return
        with span("join", attributes={"windfall.site": self._terms.site}):
            try:
                membership = await self._link.join(self._terms.window_id, self._terms.lease_token)
            except Refused as refused:
                await self._not_admitted(refused)
                return
            except Transient:
                await self._load()
                raise
        self._vain_joins += 1
        self._rejoined(membership)
        reach("join.admitted")
        self._become(overlapping.joined(self.session, membership.attempt))
        if self._stream is not None:
            self._stream.cancel()
        self._stream = self._stand.spawn(self._listen(membership), "heartbeat")
        remember(self._stand.journal, self._terms.federation, membership)
        self._say_learnt(membership)
        if self._foreseen is not None and not fits(self._foreseen, membership):
            self._engine = None
        self._foreseen = None
        # The heart beats already: loading torch and making a large engine may take longer than a silence may last.
        try:
            await self._offload(_understand, membership)
        except ValueError as error:
            await self._not_admitted(unknown(error))
            return
        if self._engine is None:
            self._engine = await self._train(self._make_engine, membership)
            self._tuning = tuned(self._terms.owner, Session())
        self.loaded.set()
        goes_on = isinstance(self._engine, TrainsOn)
        if membership.fragments > 1 and not goes_on:
            raise Mistake(
                f"a {type(self._engine).__name__} cannot synchronise the {membership.fragments} fragments of a model in"
                " turn",
                "Set WINDFALL_PROCESSES=1 here, or begin a federation with WINDFALL_FRAGMENTS=1",
            )
        if membership.overlap and not goes_on:
            log.info("a %s waits while it synchronises: it cannot train on", type(self._engine).__name__)
        self._become(overlapping.allowed(self.session, membership.overlap and goes_on, membership.fragments))

    async def _load(self) -> None:
        """Nobody admits us yet: load meanwhile what will be needed."""
        if not self.loaded.is_set():
            await self._offload(self._warm_up)
            self.loaded.set()

    def _rejoined(self, membership: Membership) -> None:
        before, self._membership = self._membership, membership
        # What an earlier membership left unsaid belongs to a model that has moved on.
        self._unsent = {}
        self._supply = self._supplied(membership)
        if before is not None and before.corpus != membership.corpus:
            self._engine, self._holds_base = None, False
            self._become(overlapping.disowned(self.session))
        if before is None or _said_alike(before, membership):
            return
        self._bases.replica = None
        if self._parcel is not None:
            log.warning("the contribution to round %d was written under another rule", self._parcel.manifest.key.round)
            self._become(overlapping.refused(self.session, self._parcel.manifest.key.round, late=True))
            self._parcel = None

    def _supplied(self, membership: Membership) -> Supply | None:
        if self._supply is not None:
            self._supply.forget()
        if membership.corpus is None:
            return None
        ask = partial(self._link.rows, membership.attempt, self._terms.lease_token)
        return Supply(ask, partial(self._stand.spawn, name="rows"))

    async def _not_admitted(self, refused: Refused) -> None:
        """A lease that is fenced drains in peace: a newer trainer has taken over. Anything else a person must mend."""
        if refused.code is not grpc.StatusCode.FAILED_PRECONDITION:
            raise Mistake(
                f"the coordinator does not admit {self._terms.site} ({refused})",
                "Mend WINDFALL_SITE, WINDFALL_FEDERATION or WINDFALL_COORDINATOR",
                ExitCode.SERVER,
            ) from refused
        log.error("not admitted: %s", refused)
        if self._parcel is not None and await self._arrived(self._parcel):
            key = self._parcel.manifest.key
            self._become(overlapping.pushed(self.session, key.round, key.attempt))
        self._parcel = None
        self._become(overlapping.refused_entry(self.session, str(refused)))

    async def _listen(self, membership: Membership) -> None:
        """Keep the stream open and take in what comes; a membership that ended is joined anew."""
        beat = partial(self._beat, membership.attempt)
        while True:
            try:
                async with aclosing(self._link.directives(beat, membership.heartbeat_s)) as directives:
                    async for directive in directives:
                        self._heed(directive)
            except Transient as error:
                log.info("heartbeat is cut: %s", error)
            except Refused as refused:
                log.info("no longer a member: %s", refused)
                self._become(sessions.membership_ended(self.session))
                return
            await asyncio.sleep(_REST.total_seconds())

    def _heed(self, directive: pb.Directive) -> None:
        self._vain_joins = 0
        if self._vain:
            # It is there again: whoever rests goes on.
            self._vain = 0
            self._changed.set()
        kind = directive.WhichOneof("kind")
        if kind == "round_opened":
            word = directive.round_opened
            opening = Opening(
                word.round,
                word.base_digest,
                word.base_bytes,
                word.local_steps,
                word.micro_batch,
                word.tokens,
                word.sites,
                word.codec,
                word.accumulation,
                word.precision,
            )
            self._become(overlapping.opened(self.session, opening))
        elif kind == "finish_round":
            self._become(sessions.finish(self.session, directive.finish_round.round))
        elif kind == "stop":
            self._become(overlapping.dismissed(self.session))
            self.stop(directive.stop.reason)

    def _beat(self, attempt: int) -> pb.Beat:
        number, work = overlapping.way(self.session)
        return pb.Beat(
            federation=self._terms.federation,
            site=self._terms.site,
            attempt=attempt,
            round=number,
            steps=work.steps,
            tokens=work.tokens,
            state=pb.SITE_STATE_TRAINING if work.steps else pb.SITE_STATE_IDLE,
        )

    async def _pull(self) -> None:
        engine, membership, session = self._standing()
        digest, number = session.base_digest, session.round or 0
        replica = await self._pulled(membership, number, digest, session.base_bytes)
        if replica is None:
            return
        load = partial(engine.load, replica.base, session.tokens, session.sites)
        await self._train(load)
        self._local_training.begun_anew()
        self._holds_base = True
        reach("pull.loaded")
        restored = await self._restore(engine, load, digest, number)
        self._become(sessions.pulled(self.session, digest, restored))

    async def _pulled(self, membership: Membership, number: int, digest: str, model_bytes: int) -> "Replica | None":
        """The base of a round; none when the coordinator has moved on from it, which the session then knows."""
        with span("pull", attributes={"windfall.round": number}):
            try:
                return await self._bases.fetch(membership, digest, model_bytes)
            except Refused as refused:
                if refused.code is not grpc.StatusCode.NOT_FOUND:
                    # The operator changed the rule: who joins again learns it.
                    self._become(sessions.membership_ended(self.session))
                    raise Transient(f"joining again: {refused}") from refused
                log.info("base is gone: %s", refused)
                self._become(overlapping.base_gone(self.session, digest))
                return None

    async def _restore(self, engine: Engine, load: Callable[[], None], digest: str, number: int) -> Work:
        """Take up what a trainer before us had done from this base, unless its contribution was accepted."""
        if not self._restoring or self._terms.checkpoint is None:
            return Work()
        restored = await self._train(engine.restore, self._terms.checkpoint, digest)
        last = self._stand.journal.load(_LAST, LastMembership)
        sent = last is not None and (last.federation, last.round) == (self._terms.federation, number)
        if restored and last is not None and sent and await self._link.accepted(number, last.attempt):
            restored = False
        # Only now: a cut before this point begins again, from a base that is loaded anew.
        self._restoring = False
        if restored:
            return _work(engine)
        await self._train(load)
        return Work()

    async def _step(self) -> None:
        engine, _, session = self._standing()
        began = _now()
        self._local_training.step()
        size = session.micro_batch or self._terms.micro_batch
        rows = await self._draw(engine, size)
        if self._supply is not None and (not rows or self.session.loaded != session.base_digest):
            return
        await self._tune(engine, tuned(self._terms.owner, session))
        self._become(sessions.stepping(self.session))
        report = await (self._train(on_rows(engine).step_on, rows) if rows else self._train(engine.step, size))
        reach("step.done")
        self._skipped = self._skipped + 1 if report.skipped else 0
        if self._skipped >= _VAIN_STEPS:
            raise Mistake(
                f"the model diverges: {self._skipped} steps in a row had no finite loss",
                "Lower the task's learning rate, or look for what is broken in the site's data",
                ExitCode.FAILED,
            )
        work = _work(engine)
        self._become(overlapping.worked(self.session, session.base_digest, work))
        self._pace(timedelta(seconds=_now() - began))
        if work.steps and not self._started:
            self._say_started(session.round or 0)
        await self._saving.when_due(engine)

    async def _tune(self, engine: Engine, wanted: Tuning) -> None:
        if wanted != self._tuning and isinstance(engine, Tunes):
            await self._train(engine.tune, wanted.accumulation, wanted.precision)
            log.info("steps in %d passes at least, in %s", wanted.accumulation, wanted.precision)
        self._tuning = wanted

    async def _draw(self, engine: Engine, count: int) -> Ranges:
        """Rows of the shared corpus for the next step; none where the site trains its own data."""
        if self._supply is None:
            return NONE
        away = NONE if self._parcel is None else self._parcel.rows
        goes_on = self.session.told is not None
        after, rows = await self._supply.draw(count, engine.progress.rows, away, goes_on)
        self._become(after(self.session))
        return rows

    async def _push(self) -> None:
        if self._parcel is None:
            self._become(sessions.pushing(self.session))
        if self._parcel is not None or await self._pack():
            await self._deliver()

    async def _tell(self) -> None:
        """Put what was trained on its way and train on; it is delivered beside that."""
        engine, membership, _ = self._standing()
        if await self._pack() and self._parcel is not None and isinstance(engine, TrainsOn):
            await self._train(engine.tell, membership.rotation.part(self._parcel.manifest.key.round))
            self._become(overlapping.told(self.session, self._parcel.attempt))

    async def _rebase(self) -> None:
        """Go over to the base that lies ready, with what was trained since telling."""
        engine, _, session = self._standing()
        opening, told, replica = session.then, session.told, self._bases.replica
        assert opening is not None and told is not None and isinstance(engine, TrainsOn)
        if replica is None or replica.digest != opening.base_digest:
            self._become(overlapping.fetched(session, ""))
            return
        await self._train(engine.rebase, replica.base, bool(told.counts), opening.tokens, opening.sites)
        self._become(overlapping.rebased(self.session, opening, _work(engine)))
        if opening.base_digest == session.base_digest:
            # What was saved from this base before holds work that counts by now.
            await self._saving.now(engine)

    async def _synchronise(self) -> None:
        """What is to be done beside training, until nothing is."""
        while (action := overlapping.beside(self.session)) is not None:
            try:
                await (self._deliver() if action is Action.PUSH else self._fetch())
            except Transient as error:
                log.info("%s will be tried again: %s", action, error)
                await asyncio.sleep((error.retry_after or _REST).total_seconds())

    async def _fetch(self) -> None:
        _, membership, session = self._standing()
        assert session.then is not None
        digest = session.then.base_digest
        if await self._pulled(membership, session.then.number, digest, session.then.base_bytes) is not None:
            self._become(overlapping.fetched(self.session, digest))

    async def _pack(self) -> bool:
        """Write the contribution; false when it cannot be, and we have left to begin afresh."""
        engine, membership, session = self._standing()
        try:
            self._parcel = await self._packed(engine, membership, session)
            self._local_training.told(self._parcel.manifest)
        except ValueError as error:
            log.error("what was trained in round %d is lost: %s", session.round or 0, error)
            await self._say_goodbye("what was trained is not finite")
            self._become(sessions.unsound(self.session))
            return False
        except Refused as refused:
            log.warning("nothing more is told: %s", refused)
            self._become(overlapping.refused(self.session, session.round or 0, late=True))
            return False
        return True

    async def _deliver(self) -> None:
        _, membership, session = self._standing()
        began, parcel = _now(), self._parcel
        assert parcel is not None
        manifest = parcel.manifest
        manifest.partial = sessions.draining(session, self._stand.clock.now())
        with span(
            "contribution",
            attributes={
                "windfall.site": self._terms.site,
                "windfall.round": manifest.key.round,
                "windfall.tokens": manifest.tokens,
                "windfall.steps": manifest.steps,
                "windfall.drain": manifest.partial,
            },
        ):
            try:
                if manifest.key.attempt != membership.attempt and await self._arrived(parcel):
                    self._settled(parcel)
                    self._become(overlapping.arrived(self.session, manifest.key.round, manifest.key.attempt))
                    return
                await self._send(parcel, membership.attempt)
            except Refused as refused:
                self._not_taken(parcel, refused)
                return
        reach("push.answered")
        self._settled(parcel)
        self._become(overlapping.pushed(self.session, manifest.key.round, manifest.key.attempt))
        self._drain_time = max(self._drain_time, timedelta(seconds=2 * (_now() - began)))

    async def _packed(self, engine: Engine, membership: Membership, session: Session) -> "Parcel":
        from windfall.site_trainer.parcel import written

        terms = self._terms
        key = pb.ContributionKey(
            federation=terms.federation, site=terms.site, round=session.round or 0, attempt=membership.attempt
        )
        noise = await self._link.telling()
        parcel = await self._train(written, engine, session, membership, self._unsent, key, terms.lease_token, noise)
        reach("pack.done")
        return parcel

    def _settled(self, parcel: "Parcel") -> None:
        """It counts: what it did not get to say waits for the next one, unless the membership has ended meanwhile."""
        self._parcel = None
        if self._supply is not None:
            self._supply.counted(parcel.rows)
        self._bases.said(parcel)
        standing = self._membership is not None and self._membership.attempt == parcel.attempt
        self._unsent = parcel.unsent if standing else {}

    async def _send(self, parcel: "Parcel", attempt: int) -> None:
        key = parcel.manifest.key
        key.attempt = attempt
        sent = LastMembership(federation=key.federation, attempt=attempt, round=key.round)
        # On disk before the first byte goes out: who restarts from a checkpoint asks first whether this was accepted.
        self._stand.journal.commit(state={_LAST: sent})
        reach("push.journaled")
        await self._link.push(parcel.manifest, memoryview(parcel.data))

    async def _arrived(self, parcel: "Parcel") -> bool:
        """Whether it counts under the membership that it was last sent under, though the receipt never came."""
        return await self._link.accepted(parcel.manifest.key.round, parcel.manifest.key.attempt)

    def _not_taken(self, parcel: "Parcel", refused: Refused) -> None:
        if refused.code is grpc.StatusCode.NOT_FOUND:
            log.info("no longer a member: %s", refused)
            self._become(sessions.membership_ended(self.session))
            return
        log.warning("contribution refused: %s", refused)
        late = refused.code is grpc.StatusCode.FAILED_PRECONDITION
        # Of what will be told again, the codec has said nothing.
        self._unsent = self._unsent if late and self.session.told is not None else {}
        self._parcel = None
        if self._supply is not None:
            self._supply.forget()
        self._become(overlapping.refused(self.session, parcel.manifest.key.round, late=late))

    async def _wait(self) -> None:
        now = self._stand.clock.now()
        until = overlapping.next_instant(self.session, now)
        if until is None:
            await self._changed.wait()
        else:
            await self._rest(self._stand.clock.wall(until - now))
        self._changed.clear()

    async def _leave(self) -> None:
        await self._beside.end()
        session, terms = self.session, self._terms
        await self._say_goodbye(session.stopping or "the window closes")
        reach("leave.said")
        if self._engine is not None and self._holds_base:
            # Optimizer state and the data's cursor outlive the lease.
            await self._saving.now(self._engine)
            await self._bases.keep(self._membership)
        drained = SiteDrained(
            id=derived_id(f"{terms.window_id}/{terms.lease_token}", SiteDrained.topic, terms.site),
            at=self._stand.clock.now(),
            site=terms.site,
            federation=terms.federation,
            window_id=terms.window_id,
            lease_token=terms.lease_token,
            delivered=overlapping.delivered(session),
        )
        self._stand.journal.commit(say=(drained,))
        reach("drained.journaled")
        self._stand.outbox.wake()
        self._become(sessions.gone(self.session))

    async def _say_goodbye(self, reason: str) -> None:
        if self.session.attempt is not None:
            with suppress(Transient, Refused):
                # The coordinator notices by itself that we are gone; being drained does not wait for it.
                await self._link.leave(self.session.attempt, reason)

    async def _train(self, work: Callable[..., T], *arguments: object) -> T:
        """Let the engine work, and say in one line when it has no room to."""
        try:
            return await self._offload(work, *arguments)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            raise Mistake(
                f"the node has not enough memory to train, one sample at a time: {str(error).partition(chr(10))[0]}",
                "Train a smaller model, or on a larger node",
                ExitCode.RESOURCE,
            ) from error

    def _pace(self, step: timedelta) -> None:
        """A step that begins just before we drain is waited for: begin to drain earlier by as much."""
        self._become(sessions.paced(self.session, (self._drain_time + step) * self._speed))

    def _say_learnt(self, membership: Membership) -> None:
        """Once under a lease, unless it is another task then; whoever measures this node measures steps of it."""
        terms, key = self._terms, f"{membership.task}/{membership.task_settings}"
        learnt = TaskLearnt(
            id=derived_id(f"{terms.window_id}/{terms.lease_token}/{key}", TaskLearnt.topic, terms.site),
            at=self._stand.clock.now(),
            site=terms.site,
            federation=terms.federation,
            window_id=terms.window_id,
            lease_token=terms.lease_token,
            task=membership.task,
            task_settings=membership.task_settings,
        )
        self._stand.journal.commit(say=(learnt,))
        self._stand.outbox.wake()

    def _say_started(self, number: int) -> None:
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

    def _standing(self) -> tuple[Engine, Membership, Session]:
        assert self._engine is not None and self._membership is not None
        return self._engine, self._membership, self.session

    def _become(self, session: Session) -> None:
        if session != self.session:
            waited_s = self._barrier.passed(self.session, session, _now())
            if waited_s is not None:
                record(BARRIER_WAIT, waited_s, {"windfall.site": self._terms.site})
            self.session = session
            self._changed.set()
            if overlapping.beside(session) is not None and not self._beside.busy:
                self._beside.begin(self._synchronise())

    async def _rest(self, wall: timedelta) -> bool:
        """Wait, but not past a change of the session; whether there was one."""
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, wall.total_seconds())):
                await self._changed.wait()
        return self._changed.is_set()


def _understand(membership: Membership) -> None:
    """Loads torch, the first time.

    Raises:
        ValueError: this trainer does not know the rule, or the model has less fragments.
    """
    _ = membership.rule, membership.rotation


def _out_of_memory(error: Exception) -> bool:
    """The node's memory, or a device's."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError)


def _said_alike(one: Membership, other: Membership) -> bool:
    """Whether what is written for one is read by the other."""
    return (one.rule_settings, one.fragments) == (other.rule_settings, other.fragments)


def _work(engine: Engine) -> Work:
    progress = engine.progress
    return Work(progress.steps, progress.tokens, progress.loss_nats)


def _now() -> float:
    """Seconds on the event loop's own clock: wall time, or virtual time in a fleet that runs on it."""
    return asyncio.get_running_loop().time()
