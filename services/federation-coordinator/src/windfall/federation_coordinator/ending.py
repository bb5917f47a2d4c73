"""When a federation has had enough, and its last word. Pure."""

from datetime import datetime

from windfall.contracts.events import EnergyRecorded, FederationFinished
from windfall.contracts.message import derived_id
from windfall.federation_coordinator.federation import Ends, Federation


def reached(state: Federation, ends: Ends, now: datetime) -> str:
    """Which of its ends a federation has reached, in one sentence; empty while it has reached none."""
    emitted = sum(state.emissions_kg.values())
    if ends.tokens is not None and state.tokens_total >= ends.tokens:
        return f"{state.tokens_total} tokens are trained, {ends.tokens} were wanted"
    if ends.loss is not None and state.loss_nats is not None and state.loss_nats <= ends.loss:
        return f"the held-out loss is {state.loss_nats:.4f}, {ends.loss:g} was wanted"
    if ends.emissions_kg is not None and emitted >= ends.emissions_kg:
        return f"{emitted:.3f} kg of CO2 are emitted, {ends.emissions_kg:g} kg were the budget"
    if ends.at is not None and now >= ends.at:
        return f"it is {ends.at.isoformat()}, the deadline"
    return ""


def emitted(state: Federation, event: EnergyRecorded) -> Federation:
    """One more entry of a site's ledger. The caller sees to it that no event is counted twice."""
    total = state.emissions_kg.get(event.site, 0.0) + event.emissions_kg
    return state.model_copy(update={"emissions_kg": {**state.emissions_kg, event.site: total}})


def finished(state: Federation, now: datetime) -> FederationFinished:
    """The last word of a federation."""
    return FederationFinished(
        id=derived_id(state.name, FederationFinished.topic, state.name),
        at=now,
        federation=state.name,
        rounds=state.round,
        tokens_total=state.tokens_total,
        model_digest=state.base_digest,
        because=state.stopped_because,
    )
