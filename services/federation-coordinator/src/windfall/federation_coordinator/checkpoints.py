"""What the coordinator's disk must hold, and what follows when it does not.

A checkpoint is a base with the outer optimizer's state beside it. The newest two are kept, with the contributions that
lead from one to the other: whatever happens to the newest, the outer step can be taken again, to the same digest. Only
when that is impossible does the federation go on from the one before, under the next round's number, and says what
was lost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from windfall.contracts.events import CheckpointDamaged
from windfall.contracts.message import Digest, Instant, derived_id
from windfall.federation_coordinator import membership, rounds
from windfall.federation_coordinator.federation import (
    Best,
    Contribution,
    Decision,
    Federation,
    Frozen,
    Phase,
    Policy,
)

KEY: Final = "checkpoints"
"""Of the journal's state."""


class Checkpoint(Frozen):
    """A base and the outer optimizer's state beside it, as they were laid down."""

    round: int
    digest: Digest
    sums: tuple[str, ...] = ()
    """Checksums of the outer optimizer's state, a file each; of the base there is the digest."""
    made_at: Instant | None = None
    tokens_total: int | None = None
    """Trained by all sites until then."""
    loss_nats: float | None = None
    """On held-out data, once that is known."""

    def again(self, round_number: int, sums: tuple[str, ...]) -> "Checkpoint":
        """The same model, laid down as that of a later round."""
        return self.model_copy(update={"round": round_number, "sums": sums})


class Kept(Frozen):
    """The newest checkpoint, and what makes it again."""

    current: Checkpoint
    previous: Checkpoint | None = None
    contributions: tuple[Contribution, ...] = ()
    """What leads from the previous one to the current one."""

    @property
    def tokens(self) -> int:
        """What the current one has trained beyond the previous one."""
        return sum(one.tokens for one in self.contributions)

    def of(self, digest: str) -> Checkpoint | None:
        """The checkpoint of this model; none when it is not kept."""
        return next((one for one in (self.current, self.previous) if one is not None and one.digest == digest), None)

    def unled(self) -> "Kept":
        """What leads to the current one does not: it came to another digest."""
        return self.model_copy(update={"contributions": ()})

    def evaluated(self, digest: str, loss_nats: float) -> "Kept":
        """A model was evaluated on held-out data."""
        known = {"loss_nats": loss_nats}
        update = {
            name: one.model_copy(update=known)
            for name, one in (("current", self.current), ("previous", self.previous))
            if one is not None and one.digest == digest
        }
        return self.model_copy(update=update)


@dataclass(frozen=True)
class Found:
    """What lies on disk, held against what the journal says."""

    base: bool
    """The newest base is what it was."""
    states: bool
    """So is the outer state beside it."""
    again: bool = False
    """It can be made again: from the seed, or from the previous checkpoint and every contribution that led to it."""
    previous: bool = False
    """The previous checkpoint is what it was."""


Remedy = Literal["none", "rebuild", "fall-back", "person"]


def remedy(found: Found, state: Federation) -> Remedy:
    """The mildest that helps. A federation that is finished falls back to nothing: its model was handed out."""
    if found.base and found.states:
        return "none"
    if found.again:
        return "rebuild"
    return "fall-back" if found.previous and state.phase is not Phase.FINISHED else "person"


def stepped(kept: Kept | None, after: Checkpoint, contributions: Sequence[Contribution]) -> Kept:
    """An outer step is taken."""
    if kept is None or kept.current.round != after.round - 1:
        return Kept(current=after)
    return Kept(current=after, previous=kept.current, contributions=tuple(contributions))


def stayed(kept: Kept | None, after: Checkpoint) -> Kept:
    """What was merged is not kept: the base of the round before stands under this one's number as well."""
    if kept is None or kept.current.round != after.round - 1:
        return Kept(current=after)
    return Kept(current=kept.current.again(after.round, after.sums), previous=kept.current)


def gone_back(best: Best, round_number: int, sums: tuple[str, ...]) -> Checkpoint:
    """The best model, laid down as that of a later round."""
    return Checkpoint(
        round=round_number,
        digest=best.digest,
        sums=sums,
        made_at=best.made_at,
        tokens_total=best.tokens_total,
        loss_nats=best.loss_nats,
    )


def scored(kept: Kept | None, round_number: int, digest: str, loss_nats: float) -> Best:
    """What is known of a model that was evaluated."""
    known = kept.of(digest) if kept is not None else None
    return Best(
        round=round_number,
        digest=digest,
        loss_nats=loss_nats,
        made_at=known.made_at if known is not None else None,
        tokens_total=known.tokens_total if known is not None else None,
    )


def led_to(kept: Kept | None, round_number: int) -> tuple[Contribution, ...]:
    """What must stay so that the base of a round can be made again."""
    return kept.contributions if kept is not None and kept.current.round == round_number else ()


def rebuilding(state: Federation, found: Found, now: datetime) -> CheckpointDamaged:
    """The newest checkpoint is about to be made again; nothing is lost."""
    part: Literal["base", "outer-state"] = "outer-state" if found.base else "base"
    return CheckpointDamaged(
        id=derived_id(f"{state.name}/{state.round}/{part}/rebuilt", CheckpointDamaged.topic, state.name),
        at=now,
        federation=state.name,
        round=state.round,
        part=part,
        remedy="rebuilt",
        base_digest=state.base_digest,
        detail=f"the {part} of round {state.round} was damaged on disk and is made again; nothing is lost",
    )


def fallen_back(state: Federation, kept: Kept, now: datetime, policy: Policy) -> tuple[Federation, Kept, Decision]:
    """The newest checkpoint is lost for good: go on from the previous one, which lies under the next round's number.

    Every membership ends: what sites have trained since stands on a base that is gone, and who joins again trains from
    the one that is there. What was accepted since is lost with it.
    """
    assert kept.previous is not None
    tokens = kept.tokens + sum(one.tokens for one in (*state.contributions, *state.late))
    number, back = state.round + 1, kept.previous
    event = CheckpointDamaged(
        id=derived_id(f"{state.name}/{state.round}/fell-back", CheckpointDamaged.topic, state.name),
        at=now,
        federation=state.name,
        round=state.round,
        part="base",
        remedy="fell-back",
        base_digest=back.digest,
        rounds_lost=state.round - back.round,
        tokens_lost=tokens,
        detail=f"the model of round {state.round} was damaged on disk beyond repair: round {number} starts from that of"
        f" round {back.round}, and {tokens} tokens are lost",
    )
    state = state.model_copy(
        update={
            "round": number,
            "base_digest": back.digest,
            "phase": Phase.DARK,
            "contributions": (),
            "late": (),
            "past": (),
            "ends_at": None,
            "ended_at": None,
            "lone": False,
            "loss_nats": None,
            "tokens_total": state.tokens_total - kept.tokens,
        }
    )
    decision = Decision(say=(event,))
    for member in state.members.values():
        state, left = membership.without(state, member, "replaced", now)
        decision += left
    state, opened = rounds.open_round(state, now, policy)
    return state, Kept(current=back.again(number, back.sums)), decision + opened


def left_out(
    state: Federation, damaged: Sequence[Contribution], now: datetime, policy: Policy
) -> tuple[Federation, Decision]:
    """Contributions that were accepted are not on disk as they were: the round is merged without them.

    Their receipts are taken back, so that a site that sends one again is heard. When none is left the round opens again
    under its own number, and the sites join anew to train for it.
    """
    keys = {one.key for one in damaged}
    decision = Decision(say=tuple(_left_out(state, one, now) for one in damaged))
    receipts = {
        site: receipt for site, receipt in state.receipts.items() if (site, receipt.attempt, receipt.round) not in keys
    }
    remaining = tuple(one for one in state.contributions if one.key not in keys)
    state = state.model_copy(update={"contributions": remaining, "receipts": receipts})
    if remaining:
        return state, decision + Decision(merge=True)
    for site, attempt, _ in sorted(keys):
        member = state.members.get(site)
        if member is not None and member.attempt == attempt:
            state, left = membership.without(state, member, "replaced", now)
            decision += left
    state, opened = rounds.open_round(state.model_copy(update={"phase": Phase.DARK}), now, policy)
    return state, decision + opened


def _left_out(state: Federation, one: Contribution, now: datetime) -> CheckpointDamaged:
    cause = f"{state.name}/{state.round}/{one.attempt}/{one.sha256}/left-out"
    return CheckpointDamaged(
        id=derived_id(cause, CheckpointDamaged.topic, one.site),
        at=now,
        federation=state.name,
        round=state.round,
        part="contribution",
        remedy="left-out",
        contributor=one.site,
        base_digest=state.base_digest,
        tokens_lost=one.tokens,
        detail=f"the contribution of {one.site} to round {state.round} was damaged on disk after it was accepted: the"
        f" round goes on without it, and {one.tokens} tokens are lost",
    )
