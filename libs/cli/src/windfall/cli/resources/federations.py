"""Federations: how far each model is, and who trains it now."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from windfall.cli.resources.resource import Resource, Rows
from windfall.contracts.events import (
    FederationFinished,
    FederationPaused,
    FederationResumed,
    PlanMade,
    RoundCompleted,
    RoundEvaluated,
    RoundStarted,
)
from windfall.contracts.message import Message


@dataclass(frozen=True)
class Federation:
    """As its coordinator has said it last."""

    name: str
    state: str = "waiting"
    """waiting, training, paused or finished."""
    round: int | None = None
    """The one that started last."""
    sites: tuple[str, ...] = ()
    """Who trains in it."""
    completed: int | None = None
    """The last round that was."""
    tokens_total: int | None = None
    loss_nats: float | None = None
    held_out_nats: float | None = None
    changed_at: datetime | None = None
    model_digest: str = ""
    plan: str = ""
    because: str = ""
    """Why it is finished or paused."""


HEARD: Final = (
    RoundStarted,
    RoundCompleted,
    RoundEvaluated,
    PlanMade,
    FederationPaused,
    FederationResumed,
    FederationFinished,
)


def fold(rows: Rows, message: Message) -> None:
    """Take one event in."""
    if isinstance(message, HEARD):
        row = rows.get(message.federation) or Federation(message.federation)
        rows[message.federation] = _after(row, message)


def _after(row: Federation, message: Message) -> Federation:
    match message:
        case RoundStarted():
            return replace(row, state="training", round=message.round, sites=message.members, changed_at=message.at)
        case RoundCompleted():
            told = replace(row, completed=message.round, tokens_total=message.tokens_total, changed_at=message.at)
            told = replace(told, loss_nats=message.loss_nats, model_digest=message.model_digest)
            over = row.round == message.round
            return replace(told, state="waiting" if over else row.state, sites=() if over else row.sites)
        case RoundEvaluated():
            return replace(row, held_out_nats=message.loss_nats)
        case PlanMade():
            return replace(row, plan=message.because)
        case FederationPaused():
            return replace(row, state="paused", sites=(), because=message.because, changed_at=message.at)
        case FederationResumed():
            waits = replace(row, because="", changed_at=message.at)
            return replace(waits, state="waiting") if row.state == "paused" else waits
        case FederationFinished():
            told = replace(row, state="finished", sites=(), because=message.because, changed_at=message.at)
            return replace(told, tokens_total=message.tokens_total, model_digest=message.model_digest)
        case _:
            return row


FEDERATIONS = Resource(
    "federations",
    "Federation",
    ("federation",),
    Federation,
    (
        ("federation", "name"),
        ("state", "state"),
        ("round", "round"),
        ("sites", "sites"),
        ("tokens", "tokens_total"),
        ("loss", "loss_nats"),
        ("held out", "held_out_nats"),
        ("changed", "changed_at"),
    ),
    (("completed", "completed"), ("model", "model_digest"), ("plan", "plan"), ("because", "because")),
    HEARD,
    fold,
    newest=True,
    empty="no federation has trained here yet. Start one with `windfall demo`, or a coordinator",
)
