"""What held-out data says of a model, and what follows: the best is kept, a bad one is discarded. Pure."""

from datetime import datetime
from math import isfinite

from windfall.contracts.events import ContributionRefused, RoundDiscarded
from windfall.contracts.message import derived_id
from windfall.federation_coordinator.ending import reached
from windfall.federation_coordinator.federation import Best, Contribution, Decision, Federation, Phase, Policy
from windfall.federation_coordinator.rounds import begin, open_round, stop


def is_best(state: Federation, loss_nats: float) -> bool:
    """Whether no model before did as well."""
    return isfinite(loss_nats) and (state.best is None or loss_nats < state.best.loss_nats)


def evaluated(state: Federation, model: Best, best: bool, now: datetime, policy: Policy) -> tuple[Federation, Decision]:
    """A model from which a round starts has been evaluated.

    Args:
        model: which one, and its loss.
        best: no model did as well before, and its file is kept.
    """
    update: dict[str, object] = {"best": model} if best else {}
    if model.digest == state.base_digest:
        update["loss_nats"] = model.loss_nats
    state = state.model_copy(update=update)
    if state.stopping or state.phase is Phase.FINISHED or not (because := reached(state, policy.ends, now)):
        return state, Decision()
    return stop(state, now, policy, because)


def worsens(state: Federation, loss_nats: float, policy: Policy) -> str:
    """Why the model that was just merged is not to be kept; empty when it is."""
    if policy.canary is None:
        return ""
    if not isfinite(loss_nats):
        return "its held-out loss is not finite"
    if state.loss_nats is None or loss_nats <= state.loss_nats + policy.canary * abs(state.loss_nats):
        return ""
    return f"its held-out loss is {loss_nats:.4f} after {state.loss_nats:.4f}"


def discarded(
    state: Federation, model_digest: str, because: str, now: datetime, policy: Policy
) -> tuple[Federation, Decision]:
    """The model that was merged is not kept: the next round starts from the same base, and what moved it there is
    refused afterwards."""
    refusals = tuple(_refusal(state, one, because, now) for one in state.contributions)
    gone = RoundDiscarded(
        id=derived_id(f"{state.name}/{state.round}", RoundDiscarded.topic, state.name),
        at=now,
        federation=state.name,
        round=state.round,
        base_digest=state.base_digest,
        model_digest=model_digest,
        contributors=tuple(one.site for one in sorted(state.contributions, key=lambda one: one.key)),
        because=because,
    )
    state, opened = open_round(begin(state, state.base_digest), now, policy)
    return state, Decision(say=(*refusals, gone)) + opened


def rolled_back(state: Federation, now: datetime, policy: Policy) -> tuple[Federation, Decision]:
    """Go on from the best model under a new number. Whatever was trained from later ones does not count any more.

    The caller has seen to it that there is a best model, and that nothing is being merged.
    """
    best = state.best
    assert best is not None and state.phase is not Phase.MERGING
    because = f"the model goes back to that of round {best.round}, whose held-out loss is {best.loss_nats:.4f}"
    unmerged = (*state.contributions, *state.late)
    refusals = tuple(_refusal(state, one, because, now) for one in unmerged)
    gone = RoundDiscarded(
        id=derived_id(f"{state.name}/{state.round}", RoundDiscarded.topic, state.name),
        at=now,
        federation=state.name,
        round=state.round,
        base_digest=best.digest,
        model_digest=state.base_digest,
        contributors=tuple(one.site for one in unmerged),
        because=because,
    )
    state = begin(state, best.digest).model_copy(update={"past": (), "late": (), "loss_nats": best.loss_nats})
    state, opened = open_round(state, now, policy)
    return state, Decision(say=(*refusals, gone)) + opened


def _refusal(state: Federation, one: Contribution, because: str, now: datetime) -> ContributionRefused:
    return ContributionRefused(
        id=derived_id(f"{state.name}/{one.base_round}/{one.attempt}/canary", ContributionRefused.topic, one.site),
        at=now,
        site=one.site,
        federation=state.name,
        round=one.base_round,
        attempt=one.attempt,
        reason="canary",
        detail=because,
    )
