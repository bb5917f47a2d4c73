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
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import grpc

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
from windfall.contracts.v1 import training_pb2 as pb
from windfall.servicekit.bus import back_off
from windfall.servicekit.crashpoint import reach
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.offload import Offload
from windfall.servicekit.rpc import Refused
from windfall.servicekit.service import Stand
from windfall.servicekit.telemetry import span
from windfall.site_trainer import announcements, overlapping
from windfall.site_trainer import session as sessions
from windfall.site_trainer.bases import Bases
from windfall.site_trainer.beside import Beside
from windfall.site_trainer.coordinator import CoordinatorLink, Membership, unknown
from windfall.site_trainer.course import Course, now_s
from windfall.site_trainer.delivery import Delivery
from windfall.site_trainer.engine import Engine, TrainsOn, Tunes, on_rows
from windfall.site_trainer.foresight import fits, foreseen, remember
from windfall.site_trainer.heartbeat import beat, opening
from windfall.site_trainer.local_training import LocalTraining
from windfall.site_trainer.overlapping import next_action
from windfall.site_trainer.saving import Saving
from windfall.site_trainer.session import Action, Session, Work
from windfall.site_trainer.supply import Supply
from windfall.site_trainer.terms import Terms
from windfall.site_trainer.tuning import Tuning, tuned
from windfall.tasks.ranges import NONE, Ranges

if TYPE_CHECKING:
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
        base_path = None if terms.checkpoint is None else terms.checkpoint.with_name("base.safetensors")
        self._bases = Bases(link, base_path, offload, self._train)
        self._speed = 1 / stand.clock.wall(timedelta(seconds=1)).total_seconds()
        session = Session(permitted=terms.opens_at is None, lead=terms.drain_time * self._speed)
        self._course = Course(session, terms.site, self._moved)
        self._delivery = Delivery(stand, terms, link, self._bases, self._course, self._train)
        self._beside = Beside(self._course.changed.set)
        self._local_training = LocalTraining()
        self._saving = Saving(terms.checkpoint, terms.checkpoint_every, offload, stand.spawn)
        self._restoring = terms.checkpoint is not None
        self._holds_base = False
        self._started = False
        self._tuning = tuned(terms.owner, Session())
        """What the engine goes by; at first as it was made."""
        self._skipped = 0
        self._vain_joins = 0
        self._vain = 0
        """Attempts at a coordinator that is away, since the last that was none."""
        self.loaded = asyncio.Event()
        """Set when what training needs is in memory: the node is ready, and measuring it disturbs nobody."""
        self.finished = asyncio.Event()

    @property
    def session(self) -> Session:
        """As it is now."""
        return self._course.session

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
        self._course.become(overlapping.stop(self.session, reason, self._stand.clock.now()))

    # --- heard on the bus ---------------------------------------------------------------------------------------------

    async def _opened(self, event: WindowOpened) -> None:
        if event.window_id == self._terms.window_id:
            self._course.become(sessions.permitted(self.session))

    async def _withdrawn(self, event: WindowWithdrawn) -> None:
        if event.window_id == self._terms.window_id:
            self._course.become(sessions.withdrawn(self.session, "the window is not expected any more"))

    async def _closing(self, event: WindowClosing) -> None:
        if event.window_id == self._terms.window_id:
            self._course.become(sessions.closing(self.session, event.closes_at, event.at))

    async def _closed(self, event: WindowClosed) -> None:
        if event.window_id == self._terms.window_id:
            self.stop(f"the window closed: {event.reason}")

    async def _finish(self, command: FinishRound) -> None:
        if command.federation == self._terms.federation:
            self._course.become(sessions.finish(self.session, command.round))

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
                    await self._course.rest(error.retry_after or min(_LONGEST_REST, max(_REST, back_off(self._vain))))
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
        began = now_s()
        await self._offload(self._warm_up)
        expected = foreseen(self._stand.journal, self._terms.federation)
        if expected is not None:
            try:
                self._engine = await self._train(self._make_engine, expected)
                self._foreseen = expected
            except Mistake as error:
                log.warning("no engine ahead of the window: %s", error)
        loaded = "without an engine" if self._engine is None else "with its engine"
        log.info("warm after %.1f s, %s; the window is expected at %s", now_s() - began, loaded, self._terms.opens_at)
        self.loaded.set()
        self._course.become(sessions.warmed(self.session))

    async def _join(self) -> None:
        # What goes on beside stands under a membership that has ended.
        await self._beside.end()
        if self._vain_joins and await self._course.rest(min(_PATIENCE, back_off(self._vain_joins))):
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
        self._course.become(overlapping.joined(self.session, membership.attempt))
        if self._stream is not None:
            self._stream.cancel()
        self._stream = self._stand.spawn(self._listen(membership), "heartbeat")
        remember(self._stand.journal, self._terms.federation, membership)
        self._say(announcements.learnt(self._terms, membership, self._stand.clock.now()))
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
        self._course.become(overlapping.allowed(self.session, membership.overlap and goes_on, membership.fragments))

    async def _load(self) -> None:
        """Nobody admits us yet: load meanwhile what will be needed."""
        if not self.loaded.is_set():
            await self._offload(self._warm_up)
            self.loaded.set()

    def _rejoined(self, membership: Membership) -> None:
        before, self._membership = self._membership, membership
        self._supply = self._supplied(membership)
        self._delivery.under(membership, self._supply)
        if before is not None and before.corpus != membership.corpus:
            self._engine, self._holds_base = None, False
            self._course.become(overlapping.disowned(self.session))
        if before is None or _said_alike(before, membership):
            return
        self._bases.replica = None
        if (parcel := self._delivery.parcel) is not None:
            log.warning("the contribution to round %d was written under another rule", parcel.manifest.key.round)
            self._course.become(overlapping.refused(self.session, parcel.manifest.key.round, late=True))
            self._delivery.parcel = None

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
        if (parcel := self._delivery.parcel) is not None and await self._delivery.arrived():
            key = parcel.manifest.key
            self._course.become(overlapping.pushed(self.session, key.round, key.attempt))
        self._delivery.parcel = None
        self._course.become(overlapping.refused_entry(self.session, str(refused)))

    async def _listen(self, membership: Membership) -> None:
        """Keep the stream open and take in what comes; a membership that ended is joined anew."""

        def beating() -> pb.Beat:
            return beat(self._terms, membership.attempt, self.session)

        while True:
            try:
                async with aclosing(self._link.directives(beating, membership.heartbeat_s)) as directives:
                    async for directive in directives:
                        self._heed(directive)
            except Transient as error:
                log.info("heartbeat is cut: %s", error)
            except Refused as refused:
                log.info("no longer a member: %s", refused)
                self._course.become(sessions.membership_ended(self.session))
                return
            await asyncio.sleep(_REST.total_seconds())

    def _heed(self, directive: pb.Directive) -> None:
        self._vain_joins = 0
        if self._vain:
            # It is there again: whoever rests goes on.
            self._vain = 0
            self._course.changed.set()
        kind = directive.WhichOneof("kind")
        if kind == "round_opened":
            self._course.become(overlapping.opened(self.session, opening(directive.round_opened)))
        elif kind == "finish_round":
            self._course.become(sessions.finish(self.session, directive.finish_round.round))
        elif kind == "stop":
            self._course.become(overlapping.dismissed(self.session))
            self.stop(directive.stop.reason)

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
        self._course.become(sessions.pulled(self.session, digest, restored))

    async def _pulled(self, membership: Membership, number: int, digest: str, model_bytes: int) -> "Replica | None":
        """The base of a round; none when the coordinator has moved on from it, which the session then knows."""
        with span("pull", attributes={"windfall.round": number}):
            try:
                return await self._bases.fetch(membership, digest, model_bytes)
            except Refused as refused:
                if refused.code is not grpc.StatusCode.NOT_FOUND:
                    # The operator changed the rule: who joins again learns it.
                    self._course.become(sessions.membership_ended(self.session))
                    raise Transient(f"joining again: {refused}") from refused
                log.info("base is gone: %s", refused)
                self._course.become(overlapping.base_gone(self.session, digest))
                return None

    async def _restore(self, engine: Engine, load: Callable[[], None], digest: str, number: int) -> Work:
        """Take up what a trainer before us had done from this base, unless its contribution was accepted."""
        if not self._restoring or self._terms.checkpoint is None:
            return Work()
        restored = await self._train(engine.restore, self._terms.checkpoint, digest)
        if restored and await self._delivery.counted(number):
            restored = False
        # Only now: a cut before this point begins again, from a base that is loaded anew.
        self._restoring = False
        if restored:
            return _work(engine)
        await self._train(load)
        return Work()

    async def _step(self) -> None:
        engine, _, session = self._standing()
        began = now_s()
        self._local_training.step()
        size = session.micro_batch or self._terms.micro_batch
        rows = await self._draw(engine, size)
        if self._supply is not None and (not rows or self.session.loaded != session.base_digest):
            return
        await self._tune(engine, tuned(self._terms.owner, session))
        self._course.become(sessions.stepping(self.session))
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
        self._course.become(overlapping.worked(self.session, session.base_digest, work))
        self._pace(timedelta(seconds=now_s() - began))
        if work.steps and not self._started:
            self._started = True
            self._say(announcements.started(self._terms, session.round or 0, self._stand.clock.now()))
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
        goes_on = self.session.told is not None
        after, rows = await self._supply.draw(count, engine.progress.rows, self._delivery.away, goes_on)
        self._course.become(after(self.session))
        return rows

    async def _push(self) -> None:
        if self._delivery.parcel is None:
            self._course.become(sessions.pushing(self.session))
        if self._delivery.parcel is not None or await self._pack():
            await self._delivery.deliver()

    async def _tell(self) -> None:
        """Put what was trained on its way and train on; it is delivered beside that."""
        engine, membership, _ = self._standing()
        if await self._pack() and (parcel := self._delivery.parcel) is not None and isinstance(engine, TrainsOn):
            await self._train(engine.tell, membership.rotation.part(parcel.manifest.key.round))
            self._course.become(overlapping.told(self.session, parcel.attempt))

    async def _pack(self) -> bool:
        """Write the contribution; false when it cannot be, and we have left to begin afresh."""
        engine, _, session = self._standing()
        try:
            manifest = await self._delivery.write(engine)
        except ValueError as error:
            log.error("what was trained in round %d is lost: %s", session.round or 0, error)
            await self._say_goodbye("what was trained is not finite")
            self._course.become(sessions.unsound(self.session))
            return False
        if manifest is not None:
            self._local_training.told(manifest)
        return manifest is not None

    async def _rebase(self) -> None:
        """Go over to the base that lies ready, with what was trained since telling."""
        engine, _, session = self._standing()
        opening, told, replica = session.then, session.told, self._bases.replica
        assert opening is not None and told is not None and isinstance(engine, TrainsOn)
        if replica is None or replica.digest != opening.base_digest:
            self._course.become(overlapping.fetched(session, ""))
            return
        await self._train(engine.rebase, replica.base, bool(told.counts), opening.tokens, opening.sites)
        self._course.become(overlapping.rebased(self.session, opening, _work(engine)))
        if opening.base_digest == session.base_digest:
            # What was saved from this base before holds work that counts by now.
            await self._saving.now(engine)

    async def _synchronise(self) -> None:
        """What is to be done beside training, until nothing is."""
        while (action := overlapping.beside(self.session)) is not None:
            try:
                await (self._delivery.deliver() if action is Action.PUSH else self._fetch())
            except Transient as error:
                log.info("%s will be tried again: %s", action, error)
                await asyncio.sleep((error.retry_after or _REST).total_seconds())

    async def _fetch(self) -> None:
        _, membership, session = self._standing()
        assert session.then is not None
        digest = session.then.base_digest
        if await self._pulled(membership, session.then.number, digest, session.then.base_bytes) is not None:
            self._course.become(overlapping.fetched(self.session, digest))

    async def _wait(self) -> None:
        now = self._stand.clock.now()
        until = overlapping.next_instant(self.session, now)
        if until is None:
            await self._course.changed.wait()
        else:
            await self._course.rest(self._stand.clock.wall(until - now))
        self._course.changed.clear()

    async def _leave(self) -> None:
        await self._beside.end()
        session, terms = self.session, self._terms
        await self._say_goodbye(session.stopping or "the window closes")
        reach("leave.said")
        if self._engine is not None and self._holds_base:
            # Optimizer state and the data's cursor outlive the lease.
            await self._saving.now(self._engine)
            await self._bases.keep(self._membership)
        self._stand.journal.commit(say=(announcements.drained(terms, session, self._stand.clock.now()),))
        reach("drained.journaled")
        self._stand.outbox.wake()
        self._course.become(sessions.gone(self.session))

    async def _say_goodbye(self, reason: str) -> None:
        if self.session.attempt is not None:
            with suppress(Transient, Refused):
                # The coordinator notices by itself that we are gone; being drained does not wait for it.
                await self._link.leave(self.session.attempt, reason)

    def _moved(self, session: Session) -> None:
        if overlapping.beside(session) is not None and not self._beside.busy:
            self._beside.begin(self._synchronise())

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
        self._course.become(sessions.paced(self.session, (self._delivery.time + step) * self._speed))

    def _say(self, event: TaskLearnt | TrainingStarted | SiteDrained) -> None:
        self._stand.journal.commit(say=(event,))
        self._stand.outbox.wake()

    def _standing(self) -> tuple[Engine, Membership, Session]:
        assert self._engine is not None and self._membership is not None
        return self._engine, self._membership, self.session


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
