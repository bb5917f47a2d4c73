"""Who takes part: joining, leaving, and what a member that listens is told. Pure, as ``rounds``.

A site may join in mid-round: it trains from the round's base, and its contribution weighs what it trained. It may leave
at any step: what it pushed counts. Nobody is waited for who has left, has gone silent or brought what does not pass.

One site, one membership: a newer trainer of the site takes the place of an older one, whose contribution does not count
any more unless it was accepted before. When the newer one holds a newer lease, the older is fenced for good.
"""

from datetime import datetime
from typing import Literal
from uuid import UUID

from windfall.contracts.events import LinkMeasured, NodeProfiled, SiteJoined, SiteLeft
from windfall.contracts.message import derived_id
from windfall.contracts.subjects import HUB
from windfall.federation_coordinator.federation import (
    Decision,
    Federation,
    Fenced,
    Member,
    NotMember,
    Phase,
    Policy,
    Progresses,
    Word,
)
from windfall.federation_coordinator.pace import measured_again, seen
from windfall.federation_coordinator.rounds import fill, finish, has_spoken, open_round, settle, waited_for


def join(
    state: Federation,
    site: str,
    window_id: UUID,
    lease_token: int,
    now: datetime,
    policy: Policy,
    progresses: Progresses | None = None,
) -> tuple[Federation, Decision]:
    """Admit a site; a member that joins again (its trainer was restarted) is replaced by its new attempt.

    One who joins while a round is finishing, or has as many sites as may, is not waited for, but what it brings in time
    counts.

    Raises:
        Fenced: the lease token is lower than the highest seen from this site.
    """
    highest = state.lease_tokens.get(site, 0)
    if lease_token < highest:
        raise Fenced(f"{site} holds lease {lease_token}, but {highest} is newer")
    decision = Decision()
    if site in state.members:
        state, decision = without(state, state.members[site], "replaced", now)
    attempt = state.attempts.get(site, 0) + 1
    company = state.lone and state.phase is Phase.RUNNING and bool(state.members)
    trained = company and any(
        (one := (progresses or {}).get(other)) is not None and one.round == state.round and one.tokens > 0
        for other in state.members
    )
    wanted = site not in policy.excluded and (site not in policy.left_out or not state.members)
    spent = policy.once and has_spoken(state, site, state.round)
    room = wanted and _has_room(state, policy) and not spent
    at_once = state.phase is Phase.DARK or (state.phase is Phase.RUNNING and not trained and room)
    since = state.round if at_once else state.round + 1
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
    if state.phase is not Phase.RUNNING:
        # The attempt that was replaced may have been the last one that a finishing round waited for.
        state, settled = settle(state, now, policy)
        state, opened = open_round(state, now, policy)
        return state, decision + settled + opened
    if trained and room:
        # Who was alone has trained on without a box: the newcomer begins with what it learnt.
        state, finishing = finish(state, now, policy)
        return state, decision + finishing
    if not at_once:
        return state, decision
    state, boxed = _boxed(state, site, now, policy)
    return state, decision + boxed + Decision(tell=(Word(site, "opened"),))


def ruled(state: Federation, rule: str, now: datetime, policy: Policy) -> tuple[Federation, Decision]:
    """These are the settings of today. When they were others yesterday, every membership ends: who joins again learns
    them, and replicas never follow two rules."""
    decision = Decision()
    if state.rule == rule:
        return state, decision
    if state.rule:
        for member in state.members.values():
            state, left = without(state, member, "replaced", now)
            decision += left
    state, settled = settle(state.model_copy(update={"rule": rule}), now, policy)
    return state, decision + settled


def profiled(state: Federation, event: NodeProfiled) -> Federation:
    """Remember what the profiler recommends for a site. Of its link, what was measured last counts."""
    advice, before = event.recommendation, state.profiles.get(event.site)
    found = seen(event.measured, advice.micro_batch, advice.gradient_accumulation)
    accelerators = 0 if event.hardware is None else len(event.hardware.accelerators)
    found = found.model_copy(update={"link_at": event.at, "accelerators": accelerators})
    if before is not None and before.link_at is not None and before.link_at > event.at:
        newer = before.model_dump(include={"rtt_ms", "up_mb_per_s", "down_mb_per_s", "link_at"}, exclude_none=True)
        found = found.model_copy(update=newer)
    return state.model_copy(
        update={
            "recommended": {**state.recommended, event.site: advice},
            "profiles": {**state.profiles, event.site: found},
        }
    )


def linked(state: Federation, event: LinkMeasured) -> Federation:
    """Remember how far away a site is and how wide its way here. The way to another site is not this federation's."""
    if event.target != HUB:
        return state
    found = measured_again(state.profiles.get(event.site), event)
    return state.model_copy(update={"profiles": {**state.profiles, event.site: found}})


def steps_of(state: Federation, site: str, policy: Policy) -> int:
    """Local steps after which a site finishes its round by itself; 0 when it is boxed otherwise alone."""
    return 0 if state.lone else policy.steps or state.local_steps.get(site, policy.pace.otherwise)


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
    if not waited_for(state, member):
        return Decision()
    if state.phase is Phase.RUNNING:
        return Decision(tell=(Word(site, "opened"),))
    if state.phase is Phase.FINISHING:
        return Decision(tell=(Word(site, "opened"), Word(site, "finish")))
    return Decision()


def refuse(
    state: Federation, site: str, attempt: int, base_round: int, now: datetime, policy: Policy
) -> tuple[Federation, Decision]:
    """What a member brought to the current round does not pass: the round goes on and does not wait for it.

    The site trains again from the next opening; what it brings before that and passes counts.
    """
    member = state.members.get(site)
    open_now = state.phase in (Phase.RUNNING, Phase.FINISHING) and base_round == state.round
    if member is None or member.attempt != attempt or not open_now or not waited_for(state, member):
        return state, Decision()
    later = member.model_copy(update={"since": state.round + 1})
    return settle(state.model_copy(update={"members": {**state.members, site: later}}), now, policy)


def leave(
    state: Federation,
    site: str,
    attempt: int,
    reason: Literal["drained", "silent", "shut-out"],
    now: datetime,
    policy: Policy,
) -> tuple[Federation, Decision]:
    """End a membership; one that has ended already changes nothing."""
    member = state.members.get(site)
    if member is None or member.attempt != attempt:
        return state, Decision()
    state, left = without(state, member, reason, now)
    state, filled = fill(state, policy)
    state, settled = settle(state, now, policy)
    return state, left + filled + settled


def _boxed(state: Federation, newcomer: str, now: datetime, policy: Policy) -> tuple[Federation, Decision]:
    """A round that ran without a box, for one site or for lack of contributions, is boxed now that somebody comes."""
    decision = Decision()
    training = sorted(site for site, one in state.members.items() if one.since <= state.round)
    if state.lone and len(training) > 1:
        state = state.model_copy(update={"lone": False, "ends_at": None, "local_steps": dict(policy.pace.steps)})
        decision = Decision(tell=tuple(Word(site, "opened") for site in training if site != newcomer))
    if state.ends_at is None and policy.length is not None:
        state = state.model_copy(update={"ends_at": now + policy.length})
    return state, decision


def _has_room(state: Federation, policy: Policy) -> bool:
    training = sum(one.since <= state.round for one in state.members.values())
    return policy.maximum is None or training < policy.maximum


def without(
    state: Federation, member: Member, reason: Literal["drained", "silent", "replaced", "shut-out"], now: datetime
) -> tuple[Federation, Decision]:
    """End a membership, and say so; what follows for the round is not looked at."""
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
