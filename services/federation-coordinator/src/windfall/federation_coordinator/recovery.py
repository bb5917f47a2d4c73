"""At start: hold the disk against the journal, and say what is to be mended: before anything is served, or while who
reads the model waits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from windfall.contracts.events import CheckpointDamaged
from windfall.federation_coordinator import checkpoints
from windfall.federation_coordinator.checkpoints import KEY, Checkpoint, Found, Kept, remedy
from windfall.federation_coordinator.durable import RESTORE
from windfall.federation_coordinator.federation import Federation, Policy
from windfall.federation_coordinator.store import ModelStore
from windfall.servicekit.crashpoint import reach
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.journal import Journal

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

_STATE: Final = "federation"


@dataclass(frozen=True)
class Recovered:
    """From where the federation goes on."""

    digest: str
    """Of the base: that of round 0 when it begins."""
    again: Callable[[], bool] | None = None
    """Makes that base again, which is damaged, from what led to it; false when it does not come to this digest. It
    takes torch, so nobody waits for it who does not read the model."""


def recover(
    store: ModelStore, journal: Journal, first: Callable[[], Tensor], now: datetime, policy: Policy
) -> Recovered:
    """Leave the newest checkpoint whole, or what makes it whole, whatever happened to it; the journal holds what was
    done.

    Args:
        first: the model of round 0, flat.

    Raises:
        Mistake: nothing is left to go on from, or the settings are others than those it was written under.
    """
    store.clear()
    state = journal.load(_STATE, Federation)
    if state is None:
        digest = store.initialise(first())
        begun = Checkpoint(round=0, digest=digest, sums=store.sums(0), made_at=now, tokens_total=0)
        journal.commit(state={KEY: Kept(current=begun)})
        return Recovered(digest)
    kept = _kept(store, journal, state)
    if len(kept.current.sums) != len(store.states(state.round)):
        store.check(state.round, state.base_digest)
        kept = Kept(current=Checkpoint(round=state.round, digest=state.base_digest, sums=store.sums(state.round)))
    found = _look(store, kept)
    cure = remedy(found, state)
    if cure == "rebuild":
        damaged = checkpoints.rebuilding(state, found, now)
        log.error("%s", damaged.detail)
        journal.commit(state={KEY: kept}, say=(damaged,))
        reach("rebuild.planned")
        if kept.previous is not None:
            return Recovered(state.base_digest, partial(_merged_again, store, kept, kept.previous.round))
        if store.initialise(first()) == kept.current.digest:
            reach("rebuild.done")
            return Recovered(state.base_digest)
        log.error("the model of round %d was not made again to the same digest", state.round)
        cure = remedy(Found(base=False, states=False), state)
    if cure == "fall-back":
        state, kept = _fall_back(store, journal, state, kept, now, policy)
    elif cure == "person":
        # It names the file.
        store.check(state.round, state.base_digest)
        raise Mistake(
            f"the outer optimizer's state of round {state.round} is damaged and cannot be made again",
            RESTORE,
            ExitCode.RESOURCE,
        )
    else:
        journal.commit(state={KEY: kept})
    return Recovered(state.base_digest)


def _fall_back(
    store: ModelStore, journal: Journal, state: Federation, kept: Kept, now: datetime, policy: Policy
) -> tuple[Federation, Kept]:
    assert kept.previous is not None
    state, fallen, decision = checkpoints.fallen_back(state, kept, now, policy)
    log.error("%s", next(one.detail for one in decision.say if isinstance(one, CheckpointDamaged)))
    store.copy(kept.previous.round, state.round)
    reach("fallback.laid")
    journal.commit(state={_STATE: state, KEY: fallen}, say=decision.say)
    return state, fallen


def _kept(store: ModelStore, journal: Journal, state: Federation) -> Kept:
    kept = journal.load(KEY, Kept)
    if kept is not None and (kept.current.round, kept.current.digest) == (state.round, state.base_digest):
        return kept
    # Written by a version that kept none, or the first start: believe what lies beside the base.
    current = Checkpoint(round=state.round, digest=state.base_digest, sums=store.sums(state.round))
    return Kept(
        current=current, previous=kept.current if kept is not None and kept.current.round < state.round else None
    )


def _look(store: ModelStore, kept: Kept) -> Found:
    current = kept.current
    base = store.digest(current.round) == current.digest
    states = store.sums(current.round) == current.sums
    if base and states:
        return Found(base, states)
    before = kept.previous
    previous = (
        before is not None and store.digest(before.round) == before.digest and store.sums(before.round) == before.sums
    )
    led = before is not None and bool(kept.contributions)
    again = current.round == 0 or (previous and led and before is not None and not store.damaged(kept.contributions))
    return Found(base, states, again, previous)


def _merged_again(store: ModelStore, kept: Kept, before: int) -> bool:
    made = store.merge(before, kept.contributions)
    if made != kept.current.digest or store.sums(kept.current.round) != kept.current.sums:
        return False
    reach("rebuild.done")
    return True
