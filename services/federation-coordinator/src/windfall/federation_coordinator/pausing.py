"""A federation that a person pauses: the running round is finished, what sites trained counts, and no other round opens
until it is resumed, from the model at which it stood. Pure.

Members stay members and wait. To stop is stronger than to pause.
"""

from datetime import datetime

from windfall.contracts.events import FederationResumed
from windfall.contracts.message import derived_id
from windfall.federation_coordinator.federation import Decision, Federation, Phase, Policy
from windfall.federation_coordinator.rounds import finish, open_round


def pause(state: Federation, now: datetime, policy: Policy, because: str) -> tuple[Federation, Decision]:
    """Open no more rounds; twice changes nothing, and so does pausing what is over or about to be."""
    if state.paused or state.stopping or state.phase is Phase.FINISHED:
        return state, Decision()
    state = state.model_copy(update={"paused": True, "paused_because": because, "pauses": state.pauses + 1})
    if state.phase is Phase.RUNNING:
        return finish(state, now, policy)
    return open_round(state, now, policy)


def resume(state: Federation, now: datetime, policy: Policy, because: str) -> tuple[Federation, Decision]:
    """Open rounds again, under the number and from the base of the one that was to come."""
    if not state.paused:
        return state, Decision()
    resumed = FederationResumed(
        id=derived_id(f"{state.name}/{state.pauses}", FederationResumed.topic, state.name),
        at=now,
        federation=state.name,
        round=state.round,
        base_digest=state.base_digest,
        because=because,
    )
    state = state.model_copy(update={"paused": False, "paused_because": "", "resting": False})
    state, opened = open_round(state, now, policy)
    return state, Decision(say=(resumed,)) + opened
