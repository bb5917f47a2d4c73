"""What a federation decides: who is a member, when a round opens, ends and is merged.

Every function takes the state and an input and gives the state after it and what follows. Nothing here waits, reads a
clock or knows a wire. A round goes ``running → finishing → merging`` and is followed by the next one; without members
the federation is ``dark``. It is boxed by time, by steps, or by both, and one active site is as good as many.

A site may join in mid-round: it trains from the round's base, and its contribution weighs what it trained. It may leave
at any step: what it pushed counts. Nobody is waited for who has left, has gone silent or brought what does not pass.

A round that ends with nothing contributed is opened again under its own number, from the same base: a number is spent
by an outer step alone. A site that trained for the first opening and was cut off may still contribute to the second.

One site, one membership: a newer trainer of the site takes the place of an older one, whose contribution does not count
any more unless it was accepted before. When the newer one holds a newer lease, the older is fenced for good.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from windfall.contracts.commands import FinishRound
from windfall.contracts.events import (
    ContributionAccepted,
    FederationFinished,
    NodeProfiled,
    RoundCompleted,
    RoundStarted,
    SiteJoined,
    SiteLeft,
)
from windfall.contracts.message import Digest, Instant, Message, Name, derived_id
from windfall.federation_coordinator.pace import Pace, Seen, seen


class Frozen(BaseModel):
    """A value of the journal."""

    model_config = ConfigDict(frozen=True)


class Phase(StrEnum):
    """Where the federation stands."""

    DARK = "dark"
    RUNNING = "running"
    FINISHING = "finishing"
    MERGING = "merging"
    FINISHED = "finished"


@dataclass(frozen=True)
class Policy:
    """How rounds are boxed. Durations are business time."""

    length: timedelta | None
    """A round ends after this; none boxes it by steps alone."""
    steps: int | None
    """A site finishes by itself after this many local steps; none boxes it by time alone."""
    straggler_grace: timedelta
    """How long after the end of a round a contribution is waited for, once there is another."""
    micro_batch: int | None
    """Samples per step for every site; none follows each site's profile."""
    pace: Pace = field(default_factory=Pace)
    """Local steps of each site where ``steps`` does not say: as links and speeds are known now."""


class Member(Frozen):
    """A site that takes part."""

    site: Name
    attempt: int
    lease_token: int
    window_id: UUID
    since: int
    """First round that it trains in. One who joins while a round is finishing is not waited for."""


class Contribution(Frozen):
    """A checked contribution that lies on the coordinator's disk."""

    site: Name
    attempt: int
    tokens: int
    steps: int
    loss_nats: float
    bytes_up: int
    partial: bool
    sha256: Digest
    codec: str
    skipped: int = 0
    trace: dict[str, str] = Field(default_factory=dict)
    """W3C headers of the upload, so that the merge can be found from the window's trace."""

    @property
    def order(self) -> tuple[str, int]:
        """Contributions merge in this order, whatever the order of their arrival."""
        return (self.site, self.attempt)


class Receipt(Frozen):
    """Names a contribution that was accepted."""

    round: int
    attempt: int


class Federation(Frozen):
    """Everything that a coordinator must remember across a crash, model files apart."""

    name: Name
    base_digest: Digest
    """Of the model from which the current round starts."""
    rule: str = ""
    """How contributions are written and merged, as the members know it."""
    round: int = 0
    phase: Phase = Phase.DARK
    ends_at: Instant | None = None
    deadline: Instant | None = None
    members: dict[str, Member] = Field(default_factory=dict)
    attempts: dict[str, int] = Field(default_factory=dict)
    """Last attempt number given to each site."""
    lease_tokens: dict[str, int] = Field(default_factory=dict)
    """Highest lease token seen from each site: the fence."""
    contributions: tuple[Contribution, ...] = ()
    """Accepted in the current round."""
    receipts: dict[str, Receipt] = Field(default_factory=dict)
    """Each site's last accepted contribution. One whose receipt was lost on the way asks again in a later round, and
    must hear that it counts."""
    openings: int = 0
    """Rounds opened, those included that were opened again: no two openings are one sentence."""
    micro_batches: dict[str, int] = Field(default_factory=dict)
    """Recommended by each site's profile."""
    profiles: dict[str, Seen] = Field(default_factory=dict)
    """What each site's profile says about its way here."""
    local_steps: dict[str, int] = Field(default_factory=dict)
    """Of each site in the running round; empty when it is boxed by time alone."""
    tokens_total: int = 0
    bytes_down: int = 0
    """Sent to sites since the last merge."""
    stopping: bool = False


@dataclass(frozen=True)
class Word:
    """Something to push on a member's open stream."""

    site: str
    kind: Literal["opened", "finish", "stop"]


@dataclass(frozen=True)
class Decision:
    """What follows from an input."""

    say: tuple[Message, ...] = ()
    tell: tuple[Word, ...] = ()
    merge: bool = False
    """The contributions of the round are to be merged now."""

    def __add__(self, other: "Decision") -> "Decision":
        return Decision(self.say + other.say, self.tell + other.tell, self.merge or other.merge)


class Fenced(Exception):
    """The site holds a lease that is older than one the coordinator has seen."""


class NotMember(Exception):
    """The membership has ended."""


def join(
    state: Federation, site: str, window_id: UUID, lease_token: int, now: datetime, policy: Policy
) -> tuple[Federation, Decision]:
    """Admit a site; a member that joins again (its trainer was restarted) is replaced by its new attempt.

    One who joins while a round is finishing is not waited for, but what it brings in time counts.

    Raises:
        Fenced: the lease token is lower than the highest seen from this site.
    """
    highest = state.lease_tokens.get(site, 0)
    if lease_token < highest:
        raise Fenced(f"{site} holds lease {lease_token}, but {highest} is newer")
    decision = Decision()
    if site in state.members:
        state, decision = _without(state, state.members[site], "replaced", now)
    attempt = state.attempts.get(site, 0) + 1
    since = state.round if state.phase in (Phase.DARK, Phase.RUNNING) else state.round + 1
    member = Member(site=site, attempt=attempt, lease_token=lease_token, window_id=window_id, since=since)
    state = state.model_copy(
        update={
            "members": {**state.members, site: member},
            "attempts": {**state.attempts, site: attempt},
            "lease_tokens": {**state.lease_tokens, site: lease_token},
        }
    )
    joined = SiteJoined(
        id=derived_id(f"{state.name}/{attempt}", SiteJoined.topic, site),
        at=now,
        site=site,
        federation=state.name,
        window_id=window_id,
        lease_token=lease_token,
        attempt=attempt,
        round=since,
    )
    decision += Decision(say=(joined,))
    if state.phase is Phase.RUNNING:
        return state, decision + Decision(tell=(Word(site, "opened"),))
    # The attempt that was replaced may have been the last one that a finishing round waited for.
    state, settled = _settle(state, now, policy)
    state, opened = _open(state, now, policy)
    return state, decision + settled + opened


def ruled(state: Federation, rule: str, now: datetime, policy: Policy) -> tuple[Federation, Decision]:
    """These are the settings of today. When they were others yesterday, every membership ends: who joins again learns
    them, and replicas never follow two rules."""
    decision = Decision()
    if state.rule == rule:
        return state, decision
    if state.rule:
        for member in state.members.values():
            state, left = _without(state, member, "replaced", now)
            decision += left
    state, settled = _settle(state.model_copy(update={"rule": rule}), now, policy)
    return state, decision + settled


def profiled(state: Federation, event: NodeProfiled) -> Federation:
    """Remember what the profiler recommends for a site."""
    micro_batch = event.recommendation.micro_batch
    return state.model_copy(
        update={
            "micro_batches": {**state.micro_batches, event.site: micro_batch},
            "profiles": {**state.profiles, event.site: seen(event.measured, micro_batch)},
        }
    )


def steps_of(state: Federation, site: str, policy: Policy) -> int:
    """Local steps after which a site finishes its round by itself; 0 when it is boxed by time alone."""
    return policy.steps or state.local_steps.get(site, policy.pace.otherwise)


def resume(state: Federation, site: str, attempt: int) -> Decision:
    """A member's stream is open (again): tell it where the federation stands.

    Raises:
        NotMember: this membership has ended; the site may join anew.
    """
    if state.phase is Phase.FINISHED:
        return Decision(tell=(Word(site, "stop"),))
    member = state.members.get(site)
    if member is None or member.attempt != attempt:
        raise NotMember(f"{site} is not a member under attempt {attempt}; join again")
    if not _waited_for(state, member):
        return Decision()
    if state.phase is Phase.RUNNING:
        return Decision(tell=(Word(site, "opened"),))
    if state.phase is Phase.FINISHING:
        return Decision(tell=(Word(site, "opened"), Word(site, "finish")))
    return Decision()


def accepted(state: Federation, round_number: int, site: str, attempt: int) -> bool:
    """Whether this contribution counts, in the current round or an earlier one."""
    if round_number == state.round and any(one.order == (site, attempt) for one in state.contributions):
        return True
    return state.receipts.get(site) == Receipt(round=round_number, attempt=attempt)


def accept(state: Federation, contribution: Contribution, now: datetime, policy: Policy) -> tuple[Federation, Decision]:
    """Count a checked contribution; the same one again changes nothing."""
    if any(known.order == contribution.order for known in state.contributions):
        return state, Decision()
    receipt = Receipt(round=state.round, attempt=contribution.attempt)
    state = state.model_copy(
        update={
            "contributions": (*state.contributions, contribution),
            "receipts": {**state.receipts, contribution.site: receipt},
        }
    )
    event = ContributionAccepted(
        id=derived_id(
            f"{state.name}/{state.round}/{contribution.attempt}", ContributionAccepted.topic, contribution.site
        ),
        at=now,
        site=contribution.site,
        federation=state.name,
        round=state.round,
        attempt=contribution.attempt,
        tokens=contribution.tokens,
        steps=contribution.steps,
        loss_nats=contribution.loss_nats,
        bytes_up=contribution.bytes_up,
        partial=contribution.partial,
        skipped=contribution.skipped,
    )
    state, follows = _settle(state, now, policy)
    return state, Decision(say=(event,)) + follows


def refuse(
    state: Federation, site: str, attempt: int, round_number: int, now: datetime, policy: Policy
) -> tuple[Federation, Decision]:
    """What a member brought to the current round does not pass: the round goes on and does not wait for it.

    The site trains again from the next opening; what it brings before that and passes counts.
    """
    member = state.members.get(site)
    open_now = state.phase in (Phase.RUNNING, Phase.FINISHING) and round_number == state.round
    if member is None or member.attempt != attempt or not open_now or not _waited_for(state, member):
        return state, Decision()
    later = member.model_copy(update={"since": state.round + 1})
    return _settle(state.model_copy(update={"members": {**state.members, site: later}}), now, policy)


def leave(
    state: Federation, site: str, attempt: int, reason: Literal["drained", "silent"], now: datetime, policy: Policy
) -> tuple[Federation, Decision]:
    """End a membership; one that has ended already changes nothing."""
    member = state.members.get(site)
    if member is None or member.attempt != attempt:
        return state, Decision()
    state, left = _without(state, member, reason, now)
    state, settled = _settle(state, now, policy)
    return state, left + settled


def tick(state: Federation, now: datetime, policy: Policy) -> tuple[Federation, Decision]:
    """Let time pass: end the round, or stop waiting for stragglers."""
    if state.phase is Phase.RUNNING and state.ends_at is not None and now >= state.ends_at:
        return _finish(state, now, policy)
    if state.phase is Phase.FINISHING and state.deadline is not None and now >= state.deadline and state.contributions:
        return _merge(state)
    return state, Decision()


def next_instant(state: Federation) -> datetime | None:
    """When ``tick`` has something to do; none while only inputs can change anything."""
    if state.phase is Phase.RUNNING:
        return state.ends_at
    if state.phase is Phase.FINISHING and state.contributions:
        return state.deadline
    return None


def merged(
    state: Federation, model_digest: str, bytes_down: int, now: datetime, policy: Policy
) -> tuple[Federation, Decision]:
    """The outer step is taken: the round is completed and the next one opens, if there is anybody to train."""
    contributions = sorted(state.contributions, key=lambda one: one.order)
    tokens = sum(one.tokens for one in contributions)
    completed = RoundCompleted(
        id=derived_id(f"{state.name}/{state.round}", RoundCompleted.topic, state.name),
        at=now,
        federation=state.name,
        round=state.round,
        base_digest=state.base_digest,
        model_digest=model_digest,
        contributors=tuple(one.site for one in contributions),
        tokens=tokens,
        tokens_total=state.tokens_total + tokens,
        steps=sum(one.steps for one in contributions),
        loss_nats=round(sum(one.loss_nats * one.tokens for one in contributions) / tokens, 4),
        bytes_up=sum(one.bytes_up for one in contributions),
        bytes_down=state.bytes_down + bytes_down,
    )
    state = state.model_copy(
        update={
            "round": state.round + 1,
            "base_digest": model_digest,
            "phase": Phase.DARK,
            "contributions": (),
            "ends_at": None,
            "deadline": None,
            "tokens_total": state.tokens_total + tokens,
            "bytes_down": 0,
        }
    )
    state, opened = _open(state, now, policy)
    return state, Decision(say=(completed,)) + opened


def stop(state: Federation, now: datetime, policy: Policy) -> tuple[Federation, Decision]:
    """Start no more rounds; the running one is finished first."""
    if state.phase is Phase.FINISHED:
        return state, Decision()
    state = state.model_copy(update={"stopping": True})
    if state.phase is Phase.RUNNING:
        return _finish(state, now, policy)
    if state.phase is Phase.DARK:
        return _end(state)
    return state, Decision()


def finished(state: Federation, now: datetime) -> FederationFinished:
    """The last word of a federation."""
    return FederationFinished(
        id=derived_id(state.name, FederationFinished.topic, state.name),
        at=now,
        federation=state.name,
        rounds=state.round,
        tokens_total=state.tokens_total,
        model_digest=state.base_digest,
    )


def _open(state: Federation, now: datetime, policy: Policy) -> tuple[Federation, Decision]:
    if state.phase is not Phase.DARK:
        return state, Decision()
    if state.stopping:
        return _end(state)
    if not state.members:
        return state, Decision()
    ends_at = None if policy.length is None else now + policy.length
    members = {site: member.model_copy(update={"since": state.round}) for site, member in state.members.items()}
    state = state.model_copy(
        update={
            "phase": Phase.RUNNING,
            "ends_at": ends_at,
            "deadline": None,
            "members": members,
            "openings": state.openings + 1,
            "local_steps": dict(policy.pace.steps),
        }
    )
    started = RoundStarted(
        id=derived_id(f"{state.name}/{state.round}/{state.openings}", RoundStarted.topic, state.name),
        at=now,
        federation=state.name,
        round=state.round,
        base_digest=state.base_digest,
        members=tuple(sorted(state.members)),
        ends_at=ends_at,
        local_steps=dict.fromkeys(state.members, policy.steps) if policy.steps else state.local_steps,
        because=policy.pace.because,
    )
    return state, Decision(say=(started,), tell=tuple(Word(site, "opened") for site in sorted(state.members)))


def _finish(state: Federation, now: datetime, policy: Policy) -> tuple[Federation, Decision]:
    state = state.model_copy(update={"phase": Phase.FINISHING, "deadline": now + policy.straggler_grace})
    state, settled = _settle(state, now, policy)
    if state.phase is not Phase.FINISHING:
        return state, settled
    waited = sorted(site for site, member in state.members.items() if _waited_for(state, member))
    orders = tuple(
        FinishRound(
            id=derived_id(f"{state.name}/{state.round}/{state.openings}", FinishRound.topic, site),
            at=now,
            site=site,
            federation=state.name,
            round=state.round,
        )
        for site in waited
    )
    return state, settled + Decision(say=orders, tell=tuple(Word(site, "finish") for site in waited))


def _settle(state: Federation, now: datetime, policy: Policy) -> tuple[Federation, Decision]:
    """Merge when nobody is left to wait for, or begin afresh when nobody brought anything."""
    if state.phase not in (Phase.RUNNING, Phase.FINISHING):
        return state, Decision()
    if any(_waited_for(state, member) for member in state.members.values()):
        return state, Decision()
    if state.contributions:
        return _merge(state)
    return _open(state.model_copy(update={"phase": Phase.DARK, "ends_at": None, "deadline": None}), now, policy)


def _merge(state: Federation) -> tuple[Federation, Decision]:
    return state.model_copy(update={"phase": Phase.MERGING, "ends_at": None, "deadline": None}), Decision(merge=True)


def _end(state: Federation) -> tuple[Federation, Decision]:
    words = tuple(Word(site, "stop") for site in sorted(state.members))
    return state.model_copy(update={"phase": Phase.FINISHED}), Decision(tell=words)


def _without(
    state: Federation, member: Member, reason: Literal["drained", "silent", "replaced"], now: datetime
) -> tuple[Federation, Decision]:
    left = SiteLeft(
        id=derived_id(f"{state.name}/{member.attempt}", SiteLeft.topic, member.site),
        at=now,
        site=member.site,
        federation=state.name,
        attempt=member.attempt,
        reason=reason,
    )
    members = {site: other for site, other in state.members.items() if site != member.site}
    return state.model_copy(update={"members": members}), Decision(say=(left,))


def _waited_for(state: Federation, member: Member) -> bool:
    contributed = any(one.order == (member.site, member.attempt) for one in state.contributions)
    return member.since <= state.round and not contributed
