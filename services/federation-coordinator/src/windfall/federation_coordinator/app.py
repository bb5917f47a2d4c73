"""The coordinator at work: hear → decide → journal → say."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from pydantic import BaseModel

from windfall.contracts.attestation import Attestation
from windfall.contracts.commands import PauseFederation, ReadmitSite, ResumeFederation, RollBack, StopFederation
from windfall.contracts.events import (
    ContributionRefused,
    EnergyRecorded,
    LinkMeasured,
    NodeProfiled,
    RoundEvaluated,
    RoundStarted,
)
from windfall.contracts.message import derived_id
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator import ending, membership, pausing, quality, rounds
from windfall.federation_coordinator.advisor import Advisor
from windfall.federation_coordinator.beginning import Wanted, chosen, pending
from windfall.federation_coordinator.checkpoints import KEY as CHECKPOINTS
from windfall.federation_coordinator.checkpoints import (
    Checkpoint,
    Kept,
    gone_back,
    led_to,
    left_out,
    scored,
    stayed,
    stepped,
)
from windfall.federation_coordinator.checks import Refusal, Seen
from windfall.federation_coordinator.choosing import settings_of
from windfall.federation_coordinator.deliveries import Deliveries
from windfall.federation_coordinator.federation import Contribution, Decision, Federation, Phase, Policy, Word
from windfall.federation_coordinator.firewall import Limits
from windfall.federation_coordinator.guard import Guard
from windfall.federation_coordinator.incoming import Chunk
from windfall.federation_coordinator.influence import speeds_of
from windfall.federation_coordinator.mending import Mending, given_up
from windfall.federation_coordinator.planning import Planning
from windfall.federation_coordinator.presence import Presence
from windfall.federation_coordinator.reception import Reception
from windfall.federation_coordinator.row_leases import RowLeases, ranges_of
from windfall.federation_coordinator.signatures import Signatures, Trust
from windfall.federation_coordinator.store import ModelStore
from windfall.lowcomm.layout import Layout
from windfall.lowcomm.rotation import Rotation
from windfall.lowcomm.rule import Rule
from windfall.servicekit.crashpoint import reach
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.instruments import ROUNDS
from windfall.servicekit.metrics import record
from windfall.servicekit.offload import Offload
from windfall.servicekit.service import Stand
from windfall.servicekit.telemetry import outgoing_trace, span
from windfall.servicekit.transferred import Transferred

if TYPE_CHECKING:
    from windfall.tasks.task import Evaluation

log = logging.getLogger(__name__)

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

    Args:
        evaluate: the model from which a round starts, on held-out data; none when there is no such model any more.
        overlaps: sites train on while they synchronise: they wait at no barrier, and how fast they get to one is not
            how fast they are.
        wanted: how contributions are to be written, where that was not chosen before.
        patience: wall time that such a choice waits for sites to be measured.
        again: makes the newest checkpoint whole (see :class:`~windfall.federation_coordinator.recovery.Recovered`).
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
        evaluate: "Callable[[int], Evaluation | None] | None" = None,
        follows_links: bool = False,
        planning: Planning | None = None,
        limits: Limits | None = None,
        leases: RowLeases | None = None,
        overlaps: bool = False,
        wanted: Wanted = Wanted(),
        patience: timedelta = timedelta(minutes=3),
        trust: Trust = Trust(),
        again: Callable[[], bool] | None = None,
    ) -> None:
        self.stand = stand
        self.model = model
        self.store = store
        self.offload = offload
        self._told = policy
        self._planning = planning
        self._patience = patience
        self.leases = leases or RowLeases()
        self._evaluate = evaluate
        self._presence = Presence(stand.clock, silence, self._drop)
        self._deliveries = None if overlaps else Deliveries()
        self._reception = Reception(self, store, model.layout, offload, self._presence.moves)
        self.mending = Mending(again)
        self._rearm = asyncio.Event()
        self._fresh_model = asyncio.Event()
        self._scored: tuple[str, Evaluation] | None = None
        self._bytes_down = 0
        self._advisor = Advisor(policy, store, model.layout.elements, wanted, follows_links, waits=not overlaps)
        self._moved = asyncio.Event()
        fragments = store.fragments.count
        self._guard = Guard(stand.journal, limits or Limits(), fragments)
        self._signatures = Signatures(stand.journal, trust, _wall)
        self.state = stand.journal.load(_STATE, Federation) or Federation(
            name=name, base_digest=first_digest, fragments=fragments
        )
        self.transferred = Transferred(self.state.name)

    def attend(self) -> None:
        """Register handlers and start the loops; after a restart, go on where the journal stands."""
        self.transferred.show()
        if self.state.phase is not Phase.FINISHED:
            # One that never completes a round is alerted as well.
            record(ROUNDS, 0, {"windfall.federation": self.state.name, "windfall.outcome": "completed"})
        bus = self.stand.bus
        bus.hears(NodeProfiled, "*", self._profiled)
        bus.hears(LinkMeasured, "*", self._linked)
        bus.hears(StopFederation, self.state.name, self._stop)
        bus.hears(PauseFederation, self.state.name, self._pause)
        bus.hears(ResumeFederation, self.state.name, self._resume)
        bus.hears(RollBack, self.state.name, self._roll_back)
        bus.hears(ReadmitSite, self.state.name, self._readmit)
        if self._told.ends.emissions_kg is not None and self._planning is None:
            bus.hears(EnergyRecorded, "*", self._emitted)
        state, decision = membership.ruled(self.state, self._rule, self.stand.clock.now(), self.policy)
        for member in state.members.values():
            self._presence.watch(member.site, member.attempt)
        led = led_to(self.kept, state.round)
        self.store.sweep(state.round, [one.key for one in (*state.contributions, *state.late, *led)])
        if self.mending.pending:
            self.stand.spawn(self._mend(), "mending")
        self.stand.spawn(self._keep_time(), "rounds")
        self.stand.spawn(self._keep_score(), "evaluation")
        self._commit(state, decision + Decision(merge=state.phase is Phase.MERGING))
        if pending(state, self._advisor.wanted):
            self.stand.spawn(self._choose(), "terms")
        if self._planning is not None:
            self._planning.attend(lambda: self.state, self._conclude)

    @property
    def policy(self) -> Policy:
        """As told, with what follows from what is known now."""
        return self._advisor.policy(self.state, self._speeds)

    @property
    def kept(self) -> Kept | None:
        """The newest checkpoints; none before the first merge of a journal that another version began."""
        return self.stand.journal.load(CHECKPOINTS, Kept)

    @property
    def _rule(self) -> str:
        fragments = self.store.fragments.count
        return json.dumps(self.store.rule.settings) + self.leases.rule + (f" in {fragments}" if fragments > 1 else "")

    # --- heard on the bus ---------------------------------------------------------------------------------------------

    async def _profiled(self, event: NodeProfiled) -> None:
        self._commit(membership.profiled(self.state, event), Decision(), event.id)

    async def _linked(self, event: LinkMeasured) -> None:
        state = membership.linked(self.state, event)
        if state is not self.state:
            self._commit(state, Decision(), event.id)

    async def _emitted(self, event: EnergyRecorded) -> None:
        if not self.stand.journal.heard(event.id):
            self._commit(ending.emitted(self.state, event), Decision(), event.id)

    async def _stop(self, command: StopFederation) -> None:
        if not self.stand.journal.heard(command.id):
            state, decision = rounds.stop(self.state, self.stand.clock.now(), self.policy, command.reason)
            self._commit(state, decision, command.id)

    async def _pause(self, command: PauseFederation) -> None:
        if not self.stand.journal.heard(command.id):
            decided = pausing.pause(self.state, self.stand.clock.now(), self.policy, command.reason)
            self._commit(*decided, command.id)

    async def _resume(self, command: ResumeFederation) -> None:
        if not self.stand.journal.heard(command.id):
            decided = pausing.resume(self.state, self.stand.clock.now(), self.policy, command.reason)
            self._commit(*decided, command.id)

    async def _roll_back(self, command: RollBack) -> None:
        if self.stand.journal.heard(command.id):
            return
        await self.mending.whole()
        number, best = self.state.round, self.state.best
        if best is None or best.digest == self.state.base_digest or self.state.phase is Phase.FINISHED:
            log.warning("nothing to go back to: no other model did better on held-out data")
            self._commit(self.state, Decision(), command.id)
            return
        if self.state.phase is Phase.MERGING:
            raise Transient("a round is being merged")
        if not await self.offload(self.store.adopt_best, number + 1, best.digest):
            log.error("the best model is not whole any more; going on from the newest")
            self._commit(self.state, Decision(), command.id)
            return
        sums = await self.offload(self.store.sums, number + 1)
        kept = Kept(current=gone_back(best, number + 1, sums))
        state = self.state
        if state.round != number or state.phase is Phase.MERGING:
            raise Transient("a round was merged meanwhile")
        self._commit(*quality.rolled_back(state, self.stand.clock.now(), self.policy), command.id, kept)

    async def _readmit(self, command: ReadmitSite) -> None:
        self.stand.journal.commit(state=self._guard.readmit(command.member), heard=command.id)

    def _conclude(self) -> None:
        """The plan has reached its goal: end as one who is told to stop."""
        self._commit(*rounds.stop(self.state, self.stand.clock.now(), self.policy, "the plan's work is done"))

    # --- asked over gRPC ----------------------------------------------------------------------------------------------

    def join(self, site: str, window_id: UUID, lease_token: int, signs: bool = False) -> int:
        """Admit a site and give its attempt number. Raises ``federation.Fenced``; ``Refusal`` when it is shut out, or
        will not sign what it must."""
        self._guard.admit(site, self.state.round)
        self._signatures.admit(site, signs)
        now, progresses = self.stand.clock.now(), self._presence.progresses
        policy = self._advisor.policy(self.state, self._speeds, site)
        state, decision = membership.join(self.state, site, window_id, lease_token, now, policy, progresses)
        self._commit(state, decision)
        reach("join.admitted")
        attempt = state.attempts[site]
        self._presence.watch(site, attempt)
        return attempt

    def directives(self, site: str, attempt: int) -> AsyncIterator[pb.Directive]:
        """What a member is told for as long as its stream is open. Raises ``NotMember``, at once or when it ends."""
        decision = membership.resume(self.state, site, attempt)
        return self._presence.directives(site, attempt, map(self._directive, decision.tell))

    def beat(self, beat: pb.Beat) -> None:
        """The member lives, and has come so far."""
        member = self.state.members.get(beat.site)
        if member is None or member.attempt != beat.attempt:
            return
        if self._presence.beat(beat) and (self._told.tokens is not None or self.state.phase is Phase.FINISHING):
            self._rearm.set()

    @property
    def _speeds(self) -> Mapping[str, float]:
        """Steps per second, by what sites delivered, or else by what they say on the way."""
        return {**self._presence.speeds, **(self._deliveries.speeds if self._deliveries is not None else {})}

    def closed_to(self, site: str) -> str:
        """Why this site may not read what is kept; empty when it may."""
        if site not in self.state.attempts:
            return f"{site} was never admitted to {self.state.name}"
        return self._guard.barred(site, self.state.round)

    def pulled(self, nbytes: int, codec: str) -> None:
        """So many bytes of a base, or of what leads to it, went down."""
        self._bytes_down += nbytes
        self.transferred.add("down", codec, nbytes)

    def leave(self, site: str, attempt: int) -> None:
        """The member is going; what it pushed counts."""
        self._end_membership(site, attempt, "drained")
        reach("leave.journaled")

    def accepted(self, key: pb.ContributionKey) -> bool:
        """Whether this contribution counts, in this round or an earlier one."""
        return key.federation == self.state.name and rounds.accepted(self.state, key.round, key.site, key.attempt)

    def prove(self, manifest: pb.Manifest) -> Attestation | None:
        """What proves that a contribution is its site's, if anything must. Raises ``Refusal``."""
        return self._signatures.check(manifest)

    def judge(self, manifest: pb.Manifest, seen: Seen) -> None:
        """Hold what was found in a contribution against those that were accepted before. Raises ``Refusal``."""
        self._guard.judge(manifest, seen.norm, seen.content)

    async def receive(self, manifest: pb.Manifest, chunks: AsyncIterator[Chunk]) -> bool:
        """Take a contribution in; true when it had been accepted already.

        Raises:
            Refusal: it does not pass, and would not if it came again.
            Transient: it may come again, from where ``Progress`` says.
        """
        if self.accepted(manifest.key):
            return True
        try:
            proof = await self._reception.take(manifest, chunks)
        except Refusal as refusal:
            self._refused(manifest, refusal)
            raise
        now = self.stand.clock.now()
        contribution = Contribution(
            site=manifest.key.site,
            attempt=manifest.key.attempt,
            base_round=manifest.key.round,
            tokens=manifest.tokens,
            took_s=rounds.took_s(self.state, manifest.key.round, now),
            steps=manifest.steps,
            loss_nats=manifest.loss,
            bytes_up=manifest.total_bytes,
            partial=manifest.partial,
            sha256=manifest.sha256,
            codec=manifest.codec,
            skipped=manifest.skipped,
            spikes=manifest.spikes,
            refused_passes=manifest.refused_passes,
            cursor=manifest.cursor,
            rows=ranges_of(manifest.rows),
            trace=outgoing_trace(),
        )
        state, decision = rounds.accept(self.state, contribution, now, self.policy)
        reach("accept.checked")
        self._commit(state, decision, evidence=self._signatures.kept(proof))
        reach("accept.journaled")
        self.transferred.add("up", contribution.codec, contribution.bytes_up)
        if self._deliveries is not None and not contribution.partial:
            self._deliveries.delivered(*contribution.key, contribution.steps, _now_s())
        return False

    def _refused(self, manifest: pb.Manifest, refusal: Refusal) -> None:
        key = manifest.key
        if key.site not in self.state.attempts:
            # A stranger's name is not worth an event of that site.
            log.warning("refused a contribution of unknown site: %s", refusal.detail)
            return
        now = self.stand.clock.now()
        cause = f"{self.state.name}/{key.round}/{key.attempt}/{refusal.reason}/{manifest.sha256[:64]}"
        event = ContributionRefused(
            id=derived_id(cause, ContributionRefused.topic, key.site),
            at=now,
            site=key.site,
            federation=self.state.name,
            round=key.round,
            attempt=key.attempt,
            reason=refusal.reason,
            detail=refusal.detail,
            rows=self.leases.returning(manifest, self.state.members),
        )
        state, follows = membership.refuse(self.state, key.site, key.attempt, key.round, now, self.policy)
        self._commit(state, Decision(say=(event,)) + follows)
        if self._guard.barred(key.site, self.state.round):
            self._end_membership(key.site, key.attempt, "shut-out")

    # --- loops --------------------------------------------------------------------------------------------------------

    async def _keep_time(self) -> None:
        while True:
            self._rearm.clear()
            at = rounds.next_instant(self.state, self._told, self._presence.progresses)
            waits: set[asyncio.Future[object]] = {asyncio.ensure_future(self._rearm.wait())}
            if at is not None:
                waits.add(asyncio.ensure_future(self.stand.clock.sleep_until(at)))
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()
            now, progresses = self.stand.clock.now(), self._presence.progresses
            state, decision = rounds.tick(self.state, now, self.policy, progresses)
            if state is not self.state:
                self._commit(state, decision)
                reach("finish.journaled")

    async def _mend(self) -> None:
        if not await self.mending.work(self.offload, self.stand.risen):
            assert self.kept is not None
            self._commit(self.state, Decision(), kept=self.kept.unled())
            raise given_up(self.state.round)
        log.info("the model of round %d is whole again", self.state.round)

    async def _choose(self) -> None:
        """Wait until those who are there were measured, and not for ever; then choose how contributions are written.
        Who has joined joins again and learns it: nothing was trained yet."""
        advisor = self._advisor
        while len(self.state.members) < max(1, self._told.minimum):
            self._moved.clear()
            await self._moved.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience.total_seconds()):
                while not advisor.ready(self.state, self._speeds):
                    self._moved.clear()
                    await self._moved.wait()
        layout = self.model.layout
        known, most = advisor.known(self.state, self._speeds), Rotation.most(layout.split)
        terms = chosen(advisor.wanted, self._told, layout.elements, most, known)
        _, _, clip, merge = self.store.rule.settings
        rule = Rule.parse(terms.codec, "", clip, merge)
        await self.offload(self.store.adopt, rule, terms.fragments)
        self._guard.cut(terms.fragments)
        self._told = replace(self._told, alone_codec=advisor.wanted.alone(rule.sparse))
        begun = Checkpoint(round=0, digest=self.state.base_digest, made_at=self.stand.clock.now(), tokens_total=0)
        kept = Kept(current=begun.again(0, self.store.sums(0)))
        log.info("chosen: codec %s, %d fragments; %s", terms.codec, terms.fragments, terms.because)
        state = self.state.model_copy(update={"terms": terms, "fragments": terms.fragments})
        now = self.stand.clock.now()
        policy = self._advisor.policy(state, self._speeds)
        state, decision = membership.ruled(state, self._rule, now, policy)
        # Where it is what sites were told already, nobody joins again.
        state, opened = rounds.open_round(state, now, policy)
        self._commit(state, decision + opened, kept=kept)

    async def _merge(self) -> None:
        await self.mending.whole()
        brought = sorted(self.state.contributions, key=lambda one: one.key)
        contributions = self._guard.counted(brought, speeds_of(self.state))
        for one in contributions:
            if one.told_tokens is not None:
                log.warning("%s tells of %d tokens, which count as %d", one.site, one.told_tokens, one.tokens)
        number = self.state.round
        with span(
            "round",
            root=True,
            links=[one.trace for one in contributions],
            carried={"windfall.federation": self.state.name, "windfall.round": number},
        ):
            around = outgoing_trace()
            with span("verify"):
                damaged = await self.offload(self.store.unmergeable, contributions)
            if damaged:
                self._commit(*left_out(self.state, damaged, self.stand.clock.now(), self.policy))
                return
            reach("merge.begun")
            with span("aggregate", attributes={"windfall.contributions": len(contributions)}):
                digest = await self.offload(self.store.merge, number, contributions)
            because = await self._worse(number + 1, digest)
            if because:
                await self.offload(self.store.repeat, number)
            sums = await self.offload(self.store.sums, number + 1)
            reach("merge.done")
            for one in contributions:
                # Closes the window's own trace: from the wind to the weights.
                with span("merge", parent=one.trace, links=[around], attributes={"windfall.round": number}):
                    pass
            down, self._bytes_down = self._bytes_down, 0
            now, state = self.stand.clock.now(), self.state.model_copy(update={"contributions": contributions})
            if because:
                state, decision = quality.discarded(state, digest, because, now, self.policy)
            else:
                state, decision = rounds.merged(state, digest, down, now, self.policy)
            after = Checkpoint(
                round=state.round, digest=state.base_digest, sums=sums, made_at=now, tokens_total=state.tokens_total
            )
            before = self.kept
            kept = stayed(before, after) if because else stepped(before, after, contributions)
            with span("commit"):
                self._commit(state, decision, kept=kept)
            reach("merge.journaled")
        sites = ", ".join(one.site for one in contributions)
        log.info("round %d %s", number, f"discarded, {because}" if because else f"completed by {sites}")
        # What led to the checkpoint before the previous one, or to none at all.
        needless = [*(before.contributions if before is not None else ()), *(contributions if because else ())]
        await self.offload(self.store.prune, state.round, [one.key for one in needless])

    async def _worse(self, number: int, digest: str) -> str:
        """Why the model that was just merged is not kept; empty when it is, or nobody looks."""
        if self._told.canary is None or self._evaluate is None:
            return ""
        with span("evaluate"):
            found = await self.offload(self._evaluate, number)
        if found is None:
            return ""
        because = quality.worsens(self.state, found.loss, self._told)
        self._scored = None if because else (digest, found)
        return because

    async def _keep_score(self) -> None:
        """Evaluate the newest model whenever there is one, and lay the last one down where a person finds it.

        Models that came and went meanwhile are skipped.
        """
        await self.mending.whole()
        while True:
            self._fresh_model.clear()
            state = self.state
            await self._score(state)
            if state.phase is Phase.FINISHED:
                await self.offload(self.store.export, state.round, self.store.final)
                reach("export.written")
                self._commit(self.state, Decision(say=(ending.finished(state, self.stand.clock.now()),)))
            await self._fresh_model.wait()

    async def _score(self, state: Federation) -> None:
        if self._evaluate is None:
            return
        found = self._scored[1] if self._scored is not None and self._scored[0] == state.base_digest else None
        found = found or await self.offload(self._evaluate, state.round)
        if found is None:
            return
        reach("evaluation.done")
        loss = round(found.loss, 4)
        model = scored(self.kept, state.round, state.base_digest, loss)
        best = quality.is_best(self.state, loss) and await self.offload(self.store.keep_best, state.round)
        now = self.stand.clock.now()
        said = RoundEvaluated(
            id=derived_id(f"{state.name}/{state.round}", RoundEvaluated.topic, state.name),
            at=now,
            federation=state.name,
            round=state.round,
            model_digest=state.base_digest,
            loss_nats=loss,
            metric=found.metric,
            value=round(found.value, 4),
            best=best,
        )
        after, decision = quality.evaluated(self.state, model, best, now, self.policy)
        kept = self.kept and self.kept.evaluated(model.digest, model.loss_nats)
        self._commit(after, Decision(say=(said,)) + decision, kept=kept)

    # --- after a decision ---------------------------------------------------------------------------------------------

    def _commit(
        self,
        state: Federation,
        decision: Decision,
        heard: UUID | None = None,
        kept: Kept | None = None,
        evidence: Mapping[str, BaseModel] | None = None,
    ) -> None:
        planning = {} if self._planning is None else self._planning.overhear(decision.say)
        checkpoints = {} if kept is None else {CHECKPOINTS: kept}
        rows, completed = self.leases.overhear(decision.say)
        guarded = self._guard.overhear(decision.say)
        remembered = {_STATE: state, **planning, **checkpoints, **rows, **guarded, **(evidence or {})}
        self.stand.journal.commit(state=remembered, say=(*decision.say, *completed), heard=heard)
        before, self.state = self.state, state
        self.stand.outbox.wake()
        for word in decision.tell:
            self._presence.tell(state.members[word.site], self._directive(word))
        self._presence.follow(before, state)
        self._rearm.set()
        over = state.phase is Phase.FINISHED and before.phase is not Phase.FINISHED
        if state.base_digest != before.base_digest or over:
            self._fresh_model.set()
        if decision.merge:
            self.stand.spawn(self._merge(), "merge")
        self._moved.set()
        if any(isinstance(message, RoundStarted) for message in decision.say):
            said = self._advisor.news(state, self._speeds, self.stand.clock)
            if said is not None:
                self.stand.journal.commit(say=(said,))
                self.stand.outbox.wake()

    def _directive(self, word: Word) -> pb.Directive:
        state = self.state
        if word.kind == "opened":
            if self._deliveries is not None:
                self._deliveries.opened(word.site, state.members[word.site].attempt, state.round, _now_s())
            settings = settings_of(word.site, self._told.for_all, state.recommended.get(word.site))
            return pb.Directive(
                round_opened=pb.RoundOpened(
                    round=state.round,
                    base_digest=state.base_digest,
                    base_bytes=self.model.layout.nbytes,
                    local_steps=membership.steps_of(state, word.site, self.policy),
                    micro_batch=settings.samples,
                    accumulation=settings.accumulation,
                    precision=settings.precision or "",
                    tokens=state.tokens_total,
                    sites=sum(one.since <= state.round for one in state.members.values()),
                    codec=self._told.alone_codec if state.lone else "",
                )
            )
        if word.kind == "finish":
            return pb.Directive(finish_round=pb.FinishRound(round=state.round))
        return pb.Directive(stop=pb.Stop(reason=state.stopped_because or "the federation is finished"))

    def _drop(self, site: str, attempt: int) -> None:
        try:
            self._end_membership(site, attempt, "silent")
        except Mistake as mistake:
            # A timer has nobody above it who would hear.
            self.stand.fail(mistake)

    def _end_membership(self, site: str, attempt: int, reason: Literal["drained", "silent", "shut-out"]) -> None:
        state, decision = membership.leave(self.state, site, attempt, reason, self.stand.clock.now(), self.policy)
        if state is not self.state:
            self._commit(state, decision)

    def rest(self) -> None:
        """Forget the timers of open memberships, and set no more: whoever comes next judges who is silent."""
        self._presence.rest()


def _wall() -> datetime:
    """By which certificates end, whatever the federation's own clock says."""
    return datetime.now(UTC)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
