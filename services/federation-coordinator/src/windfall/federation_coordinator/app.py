"""The coordinator at work: hear → decide → journal → say, and the memberships that are open right now."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal, TypeVar
from uuid import UUID

from windfall.contracts.commands import StopFederation
from windfall.contracts.events import ContributionRefused, NodeProfiled, RoundEvaluated
from windfall.contracts.message import Message, derived_id
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator import rounds
from windfall.federation_coordinator.checkpoints import KEY as CHECKPOINTS
from windfall.federation_coordinator.checkpoints import Checkpoint, Kept, led_to, left_out, stepped
from windfall.federation_coordinator.checks import Refusal, check_manifest
from windfall.federation_coordinator.incoming import Chunk, Incoming, fill
from windfall.federation_coordinator.pace import paced
from windfall.federation_coordinator.planning import Planning
from windfall.federation_coordinator.rounds import Contribution, Decision, Federation, NotMember, Phase, Policy, Word
from windfall.federation_coordinator.store import ModelStore
from windfall.lowcomm.layout import Layout
from windfall.servicekit.crashpoint import reach
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.offload import Offload, finished
from windfall.servicekit.service import Stand
from windfall.servicekit.telemetry import outgoing_trace, span
from windfall.tasks.task import Evaluation

log = logging.getLogger(__name__)

T = TypeVar("T")

_STATE = "federation"


@dataclass(frozen=True)
class Model:
    """What is trained, and how its contributions travel."""

    task: str
    task_settings: str
    layout: Layout


class Coordinator:
    """One federation. Decisions are taken on the event loop and journaled before anything follows from them.

    A disk that is full or broken is a ``Mistake``: nothing was decided, and the service ends with one line.
    """

    def __init__(
        self,
        stand: Stand,
        name: str,
        model: Model,
        policy: Policy,
        store: ModelStore,
        first_digest: str,
        silence: timedelta,
        offload: Offload,
        evaluate: Callable[[int], Evaluation | None] | None = None,
        follows_links: bool = False,
        planning: Planning | None = None,
    ) -> None:
        self.stand = stand
        self.model = model
        self.store = store
        self._told = policy
        self._follows_links = follows_links
        self._planning = planning
        self._speeds: dict[str, float] = {}
        self._beats: dict[str, tuple[pb.Beat, float]] = {}
        self._silence = silence
        self.offload = offload
        self._evaluate = evaluate
        self._streams: dict[tuple[str, int], asyncio.Queue[pb.Directive | None]] = {}
        self._silent: dict[tuple[str, int], asyncio.TimerHandle] = {}
        self._rearm = asyncio.Event()
        self._fresh_model = asyncio.Event()
        self._resting = False
        self._bytes_down = 0
        self._pushing: set[tuple[int, str, int]] = set()
        self.state = stand.journal.load(_STATE, Federation) or Federation(name=name, base_digest=first_digest)

    def attend(self) -> None:
        """Register handlers and start the loops; after a restart, go on where the journal stands."""
        self.stand.bus.hears(NodeProfiled, "*", self._profiled)
        self.stand.bus.hears(StopFederation, self.state.name, self._stop)
        rule = json.dumps(self.store.rule.settings)
        state, decision = rounds.ruled(self.state, rule, self.stand.clock.now(), self._policy)
        for member in state.members.values():
            self._watch_silence(member.site, member.attempt)
        self.store.prune(state.round, led_to(self.stand.journal.load(CHECKPOINTS, Kept), state.round))
        self.stand.spawn(self._keep_time(), "rounds")
        self.stand.spawn(self._keep_score(), "evaluation")
        self._commit(state, decision + Decision(merge=state.phase is Phase.MERGING))
        if self._planning is not None:
            self._planning.attend(lambda: self.state, self._conclude)

    # --- heard on the bus ---------------------------------------------------------------------------------------------

    async def _profiled(self, event: NodeProfiled) -> None:
        self._commit(rounds.profiled(self.state, event), Decision(), event.id)

    async def _stop(self, command: StopFederation) -> None:
        if not self.stand.journal.heard(command.id):
            state, decision = rounds.stop(self.state, self.stand.clock.now(), self._policy)
            self._commit(state, decision, command.id)

    def _conclude(self) -> None:
        """The plan has reached its goal: end as one who is told to stop."""
        self._commit(*rounds.stop(self.state, self.stand.clock.now(), self._policy))

    # --- asked over gRPC ----------------------------------------------------------------------------------------------

    def join(self, site: str, window_id: UUID, lease_token: int) -> int:
        """Admit a site and give its attempt number. Raises ``rounds.Fenced``."""
        now = self.stand.clock.now()
        state, decision = rounds.join(self.state, site, window_id, lease_token, now, self._paced(site))
        self._commit(state, decision)
        reach("join.admitted")
        attempt = state.attempts[site]
        self._watch_silence(site, attempt)
        return attempt

    async def directives(self, site: str, attempt: int) -> AsyncIterator[pb.Directive]:
        """What a member is told for as long as its stream is open. Raises ``rounds.NotMember`` when membership ends."""
        decision = rounds.resume(self.state, site, attempt)
        queue: asyncio.Queue[pb.Directive | None] = asyncio.Queue()
        self._streams[site, attempt] = queue
        for word in decision.tell:
            queue.put_nowait(self._directive(word))
        try:
            while (directive := await queue.get()) is not None:
                yield directive
        finally:
            if self._streams.get((site, attempt)) is queue:
                del self._streams[site, attempt]
        raise NotMember(f"the membership of {site} under attempt {attempt} has ended")

    def beat(self, beat: pb.Beat) -> None:
        """The member lives, and has come so far."""
        member = self.state.members.get(beat.site)
        if member is None or member.attempt != beat.attempt:
            return
        self._watch_silence(beat.site, beat.attempt)
        now = asyncio.get_running_loop().time()
        before, at = self._beats.get(beat.site, (beat, now))
        if (before.attempt, before.round) != (beat.attempt, beat.round) or not 0 < before.steps <= beat.steps:
            before, at = beat, now
        self._beats[beat.site] = before, at
        if beat.steps > before.steps and now > at:
            # Whatever came before the first step (a download, a compilation) is no part of its speed.
            self._speeds[beat.site] = (beat.steps - before.steps) / (now - at)

    @property
    def _policy(self) -> Policy:
        """As told, with the pace that follows from what is known now."""
        return self._paced()

    def _paced(self, *joining: str) -> Policy:
        if not self._follows_links:
            return self._told
        members = {site: self.state.profiles.get(site) for site in (*self.state.members, *joining)}
        codec, parameters = self.store.rule.settings[0], self.model.layout.elements
        return replace(self._told, pace=paced(codec, parameters, members, self._speeds))

    def pulled(self, nbytes: int) -> None:
        """So many bytes of a base went down."""
        self._bytes_down += nbytes

    def leave(self, site: str, attempt: int) -> None:
        """The member is going; what it pushed counts."""
        self._end_membership(site, attempt, "drained")
        reach("leave.journaled")

    async def receive(self, manifest: pb.Manifest, chunks: AsyncIterator[Chunk]) -> bool:
        """Take a contribution in; true when it had been accepted already.

        Raises:
            Refusal: it does not pass, and would not if it came again.
            Transient: it may come again, from where ``Progress`` says.
        """
        key = manifest.key
        if self.accepted(key):
            return True
        way = (key.round, key.site, key.attempt)
        try:
            check_manifest(manifest, self.state, self.model.layout, self.store.rule)
            if way in self._pushing:
                # A cut link is noticed at the site first: the stream that it broke is about to end here as well.
                raise Transient("this contribution is on its way already")
            self._pushing.add(way)
            reach("push.begun")
            try:
                await self._store(manifest, chunks)
            finally:
                self._pushing.discard(way)
        except Refusal as refusal:
            self._refused(manifest, refusal)
            raise
        return False

    def accepted(self, key: pb.ContributionKey) -> bool:
        """Whether this contribution counts, in this round or an earlier one."""
        return key.federation == self.state.name and rounds.accepted(self.state, key.round, key.site, key.attempt)

    async def _store(self, manifest: pb.Manifest, chunks: AsyncIterator[Chunk]) -> None:
        key = manifest.key
        async with self._incoming(key, manifest.total_bytes) as incoming:
            if manifest.offset != incoming.received:
                raise Transient(f"bytes from {manifest.offset} are offered, {incoming.received} are wanted")
            try:
                await fill(incoming, chunks, self.offload)
                if incoming.received < manifest.total_bytes:
                    # A broken stream may look like one that has ended.
                    raise Transient(f"{incoming.received} of {manifest.total_bytes} bytes arrived")
                final = self.store.contribution_path(key.round, key.site, key.attempt)
                await self._finish(incoming.seal, manifest.sha256, final)
                await self._finish(self.store.look, key.round, key.site, key.attempt, manifest)
                # The round may have been merged while the bytes came: what is late does not count, and says so.
                check_manifest(manifest, self.state, self.model.layout, self.store.rule)
            except Refusal as refusal:
                incoming.discard()
                if refusal.reason == "digest" and manifest.offset > 0:
                    # What lay here from before the cut was not the beginning of this.
                    raise Transient("the bytes before the cut are damaged; begin again") from refusal
                raise
        contribution = Contribution(
            site=key.site,
            attempt=key.attempt,
            tokens=manifest.tokens,
            steps=manifest.steps,
            loss_nats=manifest.loss,
            bytes_up=manifest.total_bytes,
            partial=manifest.partial,
            sha256=manifest.sha256,
            codec=manifest.codec,
            skipped=manifest.skipped,
            trace=outgoing_trace(),
        )
        state, decision = rounds.accept(self.state, contribution, self.stand.clock.now(), self._policy)
        reach("accept.checked")
        self._commit(state, decision)
        reach("accept.journaled")

    def _refused(self, manifest: pb.Manifest, refusal: Refusal) -> None:
        key = manifest.key
        if key.site not in self.state.attempts:
            # A stranger's name is not worth an event of that site.
            log.warning("refused a contribution of unknown site: %s", refusal.detail)
            return
        cause = f"{self.state.name}/{key.round}/{key.attempt}/{refusal.reason}/{manifest.sha256[:64]}"
        event = ContributionRefused(
            id=derived_id(cause, ContributionRefused.topic, key.site),
            at=self.stand.clock.now(),
            site=key.site,
            federation=self.state.name,
            round=key.round,
            attempt=key.attempt,
            reason=refusal.reason,
            detail=refusal.detail,
        )
        now = self.stand.clock.now()
        state, follows = rounds.refuse(self.state, key.site, key.attempt, key.round, now, self._policy)
        self._commit(state, Decision(say=(event,)) + follows)

    @asynccontextmanager
    async def _incoming(self, key: pb.ContributionKey, nbytes: int) -> AsyncIterator[Incoming]:
        opening = asyncio.ensure_future(self.offload(self.store.incoming, key.round, key.site, key.attempt, nbytes))
        try:
            yield await finished(opening)
        finally:
            if not opening.cancelled() and opening.exception() is None:
                opening.result().pause()

    async def _finish(self, work: Callable[..., T], *arguments: object) -> T:
        return await finished(asyncio.ensure_future(self.offload(work, *arguments)))

    # --- loops --------------------------------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while True:
            self._rearm.clear()
            at = rounds.next_instant(self.state)
            waits: set[asyncio.Future[object]] = {asyncio.ensure_future(self._rearm.wait())}
            if at is not None:
                waits.add(asyncio.ensure_future(self.stand.clock.sleep_until(at)))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            state, decision = rounds.tick(self.state, self.stand.clock.now(), self._policy)
            if state is not self.state:
                self._commit(state, decision)
                reach("finish.journaled")

    async def _merge(self) -> None:
        contributions = sorted(self.state.contributions, key=lambda one: one.order)
        number = self.state.round
        with span(
            "round",
            root=True,
            links=[one.trace for one in contributions],
            attributes={"windfall.federation": self.state.name, "windfall.round": number},
        ):
            around = outgoing_trace()
            damaged = await self.offload(self.store.unmergeable, number, contributions)
            if damaged:
                self._commit(*left_out(self.state, damaged, self.stand.clock.now(), self._policy))
                return
            reach("merge.begun")
            digest = await self.offload(self.store.merge, number, contributions)
            after = Checkpoint(round=number + 1, digest=digest, sums=await self.offload(self.store.sums, number + 1))
            kept = stepped(self.stand.journal.load(CHECKPOINTS, Kept), after, contributions)
            reach("merge.done")
            for one in contributions:
                # Closes the window's own trace: from the wind to the weights.
                with span("merge", parent=one.trace, links=[around], attributes={"windfall.round": number}):
                    pass
            down, self._bytes_down = self._bytes_down, 0
            now = self.stand.clock.now()
            state, decision = rounds.merged(self.state, digest, down, now, self._policy)
            self._commit(state, decision, kept=kept)
            reach("merge.journaled")
        log.info("round %d completed by %s", number, ", ".join(one.site for one in contributions))
        await self.offload(self.store.prune, state.round, led_to(kept, state.round))

    async def _keep_score(self) -> None:
        """Evaluate the newest model whenever there is one, and lay the last one down where a person finds it.

        Models that came and went meanwhile are skipped.
        """
        while True:
            self._fresh_model.clear()
            state = self.state
            say = await self._evaluated(state)
            if _over(state):
                await self.offload(self.store.export, state.round, self.store.final)
                reach("export.written")
                say = (*say, rounds.finished(state, self.stand.clock.now()))
            if say:
                self._commit(self.state, Decision(say=say))
            await self._fresh_model.wait()

    async def _evaluated(self, state: Federation) -> tuple[Message, ...]:
        found = None if self._evaluate is None else await self.offload(self._evaluate, state.round)
        if found is None:
            return ()
        reach("evaluation.done")
        evaluated = RoundEvaluated(
            id=derived_id(f"{state.name}/{state.round}", RoundEvaluated.topic, state.name),
            at=self.stand.clock.now(),
            federation=state.name,
            round=state.round,
            model_digest=state.base_digest,
            loss_nats=round(found.loss, 4),
            metric=found.metric,
            value=round(found.value, 4),
        )
        return (evaluated,)

    # --- after a decision ---------------------------------------------------------------------------------------------

    def _commit(
        self, state: Federation, decision: Decision, heard: UUID | None = None, kept: Kept | None = None
    ) -> None:
        planning = {} if self._planning is None else self._planning.overhear(decision.say)
        checkpoints = {} if kept is None else {CHECKPOINTS: kept}
        self.stand.journal.commit(state={_STATE: state, **planning, **checkpoints}, say=decision.say, heard=heard)
        before, self.state = self.state, state
        self.stand.outbox.wake()
        self._tell(decision.tell)
        self._end_streams(before)
        self._rearm.set()
        if state.base_digest != before.base_digest or (_over(state) and not _over(before)):
            self._fresh_model.set()
        if decision.merge:
            self.stand.spawn(self._merge(), "merge")

    def _tell(self, words: tuple[Word, ...]) -> None:
        for word in words:
            member = self.state.members[word.site]
            queue = self._streams.get((word.site, member.attempt))
            if queue is not None:
                queue.put_nowait(self._directive(word))

    def _end_streams(self, before: Federation) -> None:
        """Who is no member any more hears it at once, and joins again if it still lives."""
        still = {(member.site, member.attempt) for member in self.state.members.values()}
        for member in before.members.values():
            key = (member.site, member.attempt)
            if key in still:
                continue
            if (timer := self._silent.pop(key, None)) is not None:
                timer.cancel()
            if (queue := self._streams.get(key)) is not None:
                queue.put_nowait(None)

    def _directive(self, word: Word) -> pb.Directive:
        state = self.state
        if word.kind == "opened":
            return pb.Directive(
                round_opened=pb.RoundOpened(
                    round=state.round,
                    base_digest=state.base_digest,
                    base_bytes=self.model.layout.nbytes,
                    local_steps=rounds.steps_of(state, word.site, self._policy),
                    micro_batch=self._policy.micro_batch or state.micro_batches.get(word.site, 0),
                    tokens=state.tokens_total,
                    sites=len(state.members),
                )
            )
        if word.kind == "finish":
            return pb.Directive(finish_round=pb.FinishRound(round=state.round))
        return pb.Directive(stop=pb.Stop(reason="the federation is finished"))

    def _watch_silence(self, site: str, attempt: int) -> None:
        if self._resting:
            return
        if (timer := self._silent.pop((site, attempt), None)) is not None:
            timer.cancel()
        self._silent[site, attempt] = asyncio.get_running_loop().call_later(
            self._silence.total_seconds(), self._drop, site, attempt
        )

    def _drop(self, site: str, attempt: int) -> None:
        try:
            self._end_membership(site, attempt, "silent")
        except Mistake as mistake:
            # A timer has nobody above it who would hear.
            self.stand.fail(mistake)

    def _end_membership(self, site: str, attempt: int, reason: Literal["drained", "silent"]) -> None:
        state, decision = rounds.leave(self.state, site, attempt, reason, self.stand.clock.now(), self._policy)
        if state is not self.state:
            self._commit(state, decision)

    def rest(self) -> None:
        """Forget the timers of open memberships, and set no more: whoever comes next judges who is silent."""
        self._resting = True
        for timer in self._silent.values():
            timer.cancel()
        self._silent.clear()


def _over(state: Federation) -> bool:
    return state.phase is Phase.FINISHED
