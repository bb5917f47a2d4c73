"""What a federation decides about its rounds: when one opens, ends, is merged, and what counts in it.

Every function takes the state and an input and gives the state after it and what follows. Nothing here waits, reads a
clock or knows a wire. A round goes ``running → finishing → merging`` and is followed by the next one; with too few
members the federation is ``dark``. It is boxed by time, by steps, by tokens, or by several of them; one active site is
as good as many, and trains on without being told to synchronise with nobody.

A round that ends with nothing contributed is opened again under its own number, from the same base: a number is spent
by an outer step, or by one that was discarded. A site that trained for the first opening and was cut off may still
contribute to the second. Too few contributions wait for more under the same number.

What comes when its round has been merged without it is late: it goes into the next merge, for less. Where a model is
synchronised in fragments, a round each, that is the next merge of its own fragment, and only merges of that one make it
later.
"""

from datetime import datetime, timedelta
from typing import Final, Literal

from windfall.contracts.commands import FinishRound
from windfall.contracts.events import (
    ContributionAccepted,
    ContributionRefused,
    FederationPaused,
    RoundCompleted,
    RoundStarted,
)
from windfall.contracts.message import derived_id
from windfall.federation_coordinator.ending import reached
from windfall.federation_coordinator.federation import (
    Contribution,
    Decision,
    Federation,
    Member,
    Phase,
    Policy,
    Progress,
    Progresses,
    Receipt,
    Word,
)
from windfall.federation_coordinator.taking_part import chosen_of, half_done, left_out
from windfall.lowcomm.staleness import MOST_ROUNDS_LATE

_OPEN: Final = (Phase.RUNNING, Phase.FINISHING)


def accepted(state: Federation, base_round: int, site: str, attempt: int) -> bool:
    """Whether this contribution counts, in the current round or an earlier one."""
    if any(one.key == (site, attempt, base_round) for one in (*state.contributions, *state.late)):
        return True
    return state.receipts.get(site) == Receipt(round=base_round, attempt=attempt)


def standing(state: Federation, base_round: int, policy: Policy) -> Literal["fresh", "late"] | None:
    """What a contribution would be now that was trained from the base of this round; none: it cannot count."""
    if state.phase is Phase.FINISHED:
        return None
    if base_round == state.round and state.phase is not Phase.MERGING:
        return "fresh"
    late = 0 < turns_late(state, base_round) <= policy.rounds_late
    return "late" if late and base_of(state, base_round) is not None else None


def counts_in(state: Federation, base_round: int) -> int:
    """The round whose merge takes in what is accepted now and was trained from the base of that round."""
    soonest = state.round + (state.phase is Phase.MERGING)
    return soonest + (base_round - soonest) % state.fragments


def turns_late(state: Federation, base_round: int) -> int:
    """How many outer steps its fragment will have taken without it."""
    return (counts_in(state, base_round) - base_round) // state.fragments


def base_of(state: Federation, base_round: int) -> str | None:
    """Digest of the base of a round; none of one that is forgotten, or to come."""
    back = state.round - base_round
    if back == 0:
        return state.base_digest
    return state.past[-back] if 0 < back <= len(state.past) else None


def took_s(state: Federation, base_round: int, now: datetime) -> float | None:
    """Seconds since a round was first opened; none where that is forgotten."""
    back = state.round - base_round
    begun = state.begun_at if back == 0 else state.past_begun[-back] if 0 < back <= len(state.past_begun) else None
    return None if begun is None else max(0.0, (now - begun).total_seconds())


def accept(state: Federation, contribution: Contribution, now: datetime, policy: Policy) -> tuple[Federation, Decision]:
    """Count a checked contribution; the same one again changes nothing."""
    site, attempt, base_round = contribution.key
    if accepted(state, base_round, site, attempt):
        return state, Decision()
    fresh, number = standing(state, base_round, policy) == "fresh", counts_in(state, base_round)
    field = "contributions" if fresh else "late"
    state = state.model_copy(
        update={
            field: (*getattr(state, field), contribution),
            "receipts": {**state.receipts, site: Receipt(round=base_round, attempt=attempt)},
        }
    )
    event = ContributionAccepted(
        id=derived_id(f"{state.name}/{base_round}/{attempt}", ContributionAccepted.topic, site),
        at=now,
        site=site,
        federation=state.name,
        round=number,
        attempt=attempt,
        tokens=contribution.tokens,
        steps=contribution.steps,
        loss_nats=contribution.loss_nats,
        bytes_up=contribution.bytes_up,
        partial=contribution.partial,
        skipped=contribution.skipped,
        spikes=contribution.spikes,
        refused_passes=contribution.refused_passes,
        cursor=contribution.cursor,
        rows=contribution.rows,
        rounds_late=number - base_round,
    )
    state, follows = settle(state, now, policy)
    return state, Decision(say=(event,)) + follows


def tick(
    state: Federation, now: datetime, policy: Policy, progresses: Progresses | None = None
) -> tuple[Federation, Decision]:
    """Let time pass and sites get on: end the round, or stop waiting for stragglers."""
    if not state.stopping and state.phase is not Phase.FINISHED and (because := reached(state, policy.ends, now)):
        return stop(state, now, policy, because)
    if state.phase is Phase.RUNNING:
        over = state.ends_at is not None and now >= state.ends_at
        return (
            finish(state, now, policy)
            if over or _trained_enough(state, policy, progresses or {})
            else (
                state,
                Decision(),
            )
        )
    overdue = _overdue_at(state, policy, progresses or {})
    if overdue is None or now < overdue:
        return state, Decision()
    return merge(state) if _quorate(state, policy) else _open_again(state, now, policy)


def next_instant(state: Federation, policy: Policy, progresses: Progresses | None = None) -> datetime | None:
    """When ``tick`` has something to do; none while only inputs can change anything."""
    instants = [] if state.phase is Phase.FINISHED or state.stopping else [policy.ends.at]
    if state.phase is Phase.RUNNING:
        instants.append(state.ends_at)
    instants.append(_overdue_at(state, policy, progresses or {}))
    return min((at for at in instants if at is not None), default=None)


def merged(
    state: Federation, model_digest: str, bytes_down: int, now: datetime, policy: Policy
) -> tuple[Federation, Decision]:
    """The outer step is taken: the round is completed and the next one opens, if there is anybody to train."""
    contributions = sorted(state.contributions, key=lambda one: one.key)
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
        duration_s=_lasted_s(state, now),
    )
    state = begin(state, model_digest, tokens)
    if not state.stopping and (because := reached(state, policy.ends, now)):
        state = state.model_copy(update={"stopping": True, "stopped_because": because})
    state, opened = open_round(state, now, policy)
    return state, Decision(say=(completed,)) + opened


def begin(state: Federation, base_digest: str, tokens: int = 0) -> Federation:
    """The next number, from this base, with nothing contributed yet."""
    return state.model_copy(
        update={
            "round": state.round + 1,
            "base_digest": base_digest,
            "past": (*state.past, state.base_digest)[-MOST_ROUNDS_LATE * state.fragments :],
            "past_begun": (*state.past_begun, state.begun_at)[-MOST_ROUNDS_LATE * state.fragments :],
            "begun_at": None,
            "phase": Phase.DARK,
            "contributions": (),
            "opened_at": None,
            "ends_at": None,
            "ended_at": None,
            "lone": False,
            "tokens_total": state.tokens_total + tokens,
            "bytes_down": 0,
        }
    )


def stop(
    state: Federation, now: datetime, policy: Policy, because: str = "told to stop"
) -> tuple[Federation, Decision]:
    """Start no more rounds; the running one is finished first."""
    if state.phase is Phase.FINISHED:
        return state, Decision()
    told = {"stopping": True, "stopped_because": state.stopped_because or because}
    # To stop is stronger than to pause.
    state = state.model_copy(update={**told, "paused": False, "resting": False})
    if state.phase is Phase.RUNNING:
        return finish(state, now, policy)
    return end(state, now) if state.phase is Phase.DARK else (state, Decision())


def end(state: Federation, now: datetime) -> tuple[Federation, Decision]:
    """The last round is over. What came late for it still counts; what waits for the turn of another fragment does not
    any more."""
    if state.contributions or any(_in_turn(state, one) for one in state.late):
        return merge(state)
    words = tuple(Word(site, "stop") for site in sorted(state.members))
    refusals = tuple(_too_late(state, one, now) for one in state.late)
    return state.model_copy(update={"phase": Phase.FINISHED, "late": ()}), Decision(say=refusals, tell=words)


def open_round(state: Federation, now: datetime, policy: Policy) -> tuple[Federation, Decision]:
    """Open a round when there is none and enough members are there. What was contributed under its number stays."""
    if state.phase is not Phase.DARK:
        return state, Decision()
    if state.stopping:
        return end(state, now)
    if state.paused:
        return rest(state, now)
    if policy.held or len(state.members.keys() - policy.excluded) < max(1, policy.minimum):
        return state, Decision()
    contributed = {(one.site, one.attempt) for one in state.contributions}
    spent = [
        one
        for one in state.members.values()
        if policy.once and (one.site, one.attempt) not in contributed and has_spoken(state, one.site, state.round)
    ]
    ready = [one for one in state.members.values() if (one.site, one.attempt) not in contributed and one not in spent]
    out = left_out(state, ready, policy)
    chosen = chosen_of(state, [one for one in ready if one.site not in out], policy.maximum)
    lone = policy.alone is not None and len(chosen) == 1 and (len(state.members) == 1 or policy.maximum == 1)
    members = {
        site: member.model_copy(
            update={"since": state.round + (member in spent or (member in ready and site not in chosen))}
        )
        for site, member in state.members.items()
    }
    state = state.model_copy(
        update={
            "phase": Phase.RUNNING,
            "opened_at": now,
            "begun_at": state.begun_at or now,
            "ends_at": _ends_at(now, policy, lone),
            "ended_at": None,
            "lone": lone,
            "members": members,
            "openings": state.openings + 1,
            "local_steps": {} if lone else dict(policy.pace.steps),
            "left_out": {site: state.left_out.get(site, 0) + 1 for site in out},
        }
    )
    if not chosen:
        return settle(state, now, policy)
    boxed = dict.fromkeys(chosen, policy.steps) if policy.steps and not lone else state.local_steps
    boxed = {site: steps for site, steps in boxed.items() if site not in out}
    started = RoundStarted(
        id=derived_id(f"{state.name}/{state.round}/{state.openings}", RoundStarted.topic, state.name),
        at=now,
        federation=state.name,
        round=state.round,
        base_digest=state.base_digest,
        members=chosen,
        ends_at=state.ends_at,
        local_steps=boxed,
        because="alone, it trains on" if lone else policy.pace.because,
        left_out=out,
    )
    return state, Decision(say=(started,), tell=tuple(Word(site, "opened") for site in chosen))


def rest(state: Federation, now: datetime) -> tuple[Federation, Decision]:
    """It is paused, and no round runs any more. What was contributed under the next number stays."""
    if state.resting:
        return state, Decision()
    paused = FederationPaused(
        id=derived_id(f"{state.name}/{state.pauses}", FederationPaused.topic, state.name),
        at=now,
        federation=state.name,
        round=state.round,
        base_digest=state.base_digest,
        because=state.paused_because,
    )
    return state.model_copy(update={"resting": True}), Decision(say=(paused,))


def finish(state: Federation, now: datetime, policy: Policy) -> tuple[Federation, Decision]:
    """The running round is over: whoever trains in it brings what it has."""
    state = state.model_copy(update={"phase": Phase.FINISHING, "ended_at": now})
    state, settled = settle(state, now, policy)
    if state.phase is not Phase.FINISHING:
        return state, settled
    waited = sorted(site for site, member in state.members.items() if waited_for(state, member))
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


def settle(state: Federation, now: datetime, policy: Policy) -> tuple[Federation, Decision]:
    """Merge when nobody is left to wait for; begin afresh when nobody brought anything, or too few did. Once half have
    brought all their steps, the others bring what they have."""
    if state.phase not in _OPEN or any(waited_for(state, member) for member in state.members.values()):
        return finish(state, now, policy) if half_done(state, policy) else (state, Decision())
    if _quorate(state, policy):
        return merge(state)
    waiting = [
        one
        for one in state.members.values()
        if not _has_contributed(state, one) and not (policy.once and has_spoken(state, one.site, state.round))
    ]
    if state.contributions and not state.paused and not (waiting and len(state.members) >= policy.minimum):
        # Whoever comes next trains under the same number.
        return state.model_copy(update={"phase": Phase.RUNNING, "ends_at": None, "ended_at": None}), Decision()
    return open_round(state.model_copy(update={"phase": Phase.DARK, "ends_at": None, "ended_at": None}), now, policy)


def merge(state: Federation) -> tuple[Federation, Decision]:
    """Take in what was accepted until now, what was late for an earlier turn of this fragment included."""
    late = [
        one.model_copy(update={"rounds_late": min((state.round - one.base_round) // state.fragments, MOST_ROUNDS_LATE)})
        for one in state.late
        if _in_turn(state, one)
    ]
    update = {
        "phase": Phase.MERGING,
        "contributions": (*state.contributions, *late),
        "late": tuple(one for one in state.late if not _in_turn(state, one)),
        "ends_at": None,
        "ended_at": None,
    }
    return state.model_copy(update=update), Decision(merge=True)


def fill(state: Federation, policy: Policy) -> tuple[Federation, Decision]:
    """Let those in reserve take the places of who has left a running round."""
    if state.phase is not Phase.RUNNING or policy.maximum is None:
        return state, Decision()
    free = policy.maximum - sum(one.since <= state.round for one in state.members.values())
    unwanted = policy.excluded | policy.left_out.keys()
    reserve = [one for one in state.members.values() if one.since > state.round and one.site not in unwanted]
    chosen = chosen_of(state, reserve, free) if free > 0 else ()
    members = {site: state.members[site].model_copy(update={"since": state.round}) for site in chosen}
    state = state.model_copy(update={"members": {**state.members, **members}})
    return state, Decision(tell=tuple(Word(site, "opened") for site in chosen))


def waited_for(state: Federation, member: Member) -> bool:
    """Whether the round has no contribution yet of a member that trains in it."""
    return member.since <= state.round and not _has_contributed(state, member)


def _has_contributed(state: Federation, member: Member) -> bool:
    return any(one.key == (member.site, member.attempt, state.round) for one in state.contributions)


def has_spoken(state: Federation, site: str, base_round: int) -> bool:
    """Whether anything of the site counts that was trained from the base of this round or a later one, under whatever
    membership."""
    receipt = state.receipts.get(site)
    return receipt is not None and receipt.round >= base_round


def _in_turn(state: Federation, one: Contribution) -> bool:
    """Whether the round synchronises the fragment of which that speaks."""
    return (state.round - one.base_round) % state.fragments == 0


def _too_late(state: Federation, one: Contribution, now: datetime) -> ContributionRefused:
    return ContributionRefused(
        id=derived_id(f"{state.name}/{one.base_round}/{one.attempt}/ended", ContributionRefused.topic, one.site),
        at=now,
        site=one.site,
        federation=state.name,
        round=one.base_round,
        attempt=one.attempt,
        reason="round",
        detail="it came late, and the federation ended before the next turn of its fragment",
    )


def _lasted_s(state: Federation, now: datetime) -> float | None:
    """Seconds since the round was opened; 0 when the clock was set back meanwhile."""
    return None if state.opened_at is None else round(max(0.0, (now - state.opened_at).total_seconds()), 3)


def _ends_at(now: datetime, policy: Policy, lone: bool) -> datetime | None:
    if lone and policy.alone is not None:
        return now + max(policy.alone, policy.length or timedelta(0))
    return None if policy.length is None else now + policy.length


def _quorate(state: Federation, policy: Policy) -> bool:
    sites = {one.site for one in state.contributions}
    return bool(sites) and (state.stopping or len(sites) >= policy.minimum)


def _trained_enough(state: Federation, policy: Policy, progresses: Progresses) -> bool:
    if policy.tokens is None or state.lone:
        return False
    done = sum(one.tokens for one in state.contributions if one.base_round == state.round)
    under_way = (_progress(state, member, progresses) for member in state.members.values())
    return done + sum(one.tokens for one in under_way if one is not None) >= policy.tokens


def _overdue_at(state: Federation, policy: Policy, progresses: Progresses) -> datetime | None:
    """When the last of those who are waited for has stood still for too long, or all have had their time. Where too
    little was brought to be merged, that matters to those alone who might train meanwhile."""
    if state.phase is not Phase.FINISHING or state.ended_at is None:
        return None
    if not _quorate(state, policy) and not _idle(state, policy):
        return None
    moved = [state.ended_at]
    for member in state.members.values():
        progress = _progress(state, member, progresses)
        if progress is not None:
            moved.append(progress.moved_at)
    overdue = max(moved) + policy.straggler_grace
    return overdue if policy.straggler_limit is None else min(overdue, state.ended_at + policy.straggler_limit)


def _idle(state: Federation, policy: Policy) -> bool:
    """Whether a member waits for the next round that could train in this one, if it were opened again."""
    return not state.stopping and any(
        one.since > state.round
        and one.site not in policy.excluded
        and one.site not in policy.left_out
        and not (policy.once and has_spoken(state, one.site, state.round))
        for one in state.members.values()
    )


def _open_again(state: Federation, now: datetime, policy: Policy) -> tuple[Federation, Decision]:
    """Nobody is waited for any more, and the round begins again from its base, with all who are there. Who stood still
    keeps what it has trained."""
    members = {
        site: member.model_copy(update={"since": state.round + 1}) if waited_for(state, member) else member
        for site, member in state.members.items()
    }
    return settle(state.model_copy(update={"members": members}), now, policy)


def _progress(state: Federation, member: Member, progresses: Progresses) -> Progress | None:
    """Of a member that is waited for, in the round that runs."""
    progress = progresses.get(member.site)
    if progress is None or not waited_for(state, member):
        return None
    return progress if (progress.round, progress.attempt) == (state.round, member.attempt) else None
