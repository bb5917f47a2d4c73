"""Rounds: who trained, what came of it, and what it moved."""

from dataclasses import dataclass, replace
from datetime import datetime

from windfall.cli.resources.resource import Resource, Rows
from windfall.contracts.events import RoundCompleted, RoundDiscarded, RoundEvaluated, RoundStarted
from windfall.contracts.message import Message


@dataclass(frozen=True)
class Round:
    """From its opening to its evaluation."""

    name: str
    """``federation/number``."""
    federation: str
    round: int
    state: str = "running"
    """running, completed or discarded."""
    started_at: datetime | None = None
    """The last time, where it was opened again."""
    duration_s: float | None = None
    sites: tuple[str, ...] = ()
    """Who trains in it, and once it is completed who contributed."""
    tokens: int | None = None
    steps: int | None = None
    loss_nats: float | None = None
    held_out_nats: float | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None
    model_digest: str = ""


def fold(rows: Rows, message: Message) -> None:
    """Take one event in. A model is evaluated when the next round has begun: it belongs to the one that made it."""
    if isinstance(message, RoundEvaluated):
        number = message.round - 1
    elif isinstance(message, RoundStarted | RoundCompleted | RoundDiscarded):
        number = message.round
    else:
        return
    key = f"{message.federation}/{number}"
    if number >= 0:
        rows[key] = _after(rows.get(key) or Round(key, message.federation, number), message)


def _after(row: Round, message: Message) -> Round:
    match message:
        case RoundStarted():
            return replace(row, state="running", started_at=message.at, sites=message.members)
        case RoundCompleted():
            told = replace(row, duration_s=message.duration_s, sites=message.contributors, tokens=message.tokens)
            told = replace(told, steps=message.steps, loss_nats=message.loss_nats, model_digest=message.model_digest)
            return replace(told, state="completed", bytes_up=message.bytes_up, bytes_down=message.bytes_down)
        case RoundDiscarded():
            return replace(row, state="discarded")
        case RoundEvaluated():
            return replace(row, held_out_nats=message.loss_nats)
        case _:
            return row


ROUNDS = Resource(
    "rounds",
    "Round",
    ("round",),
    Round,
    (
        ("round", "name"),
        ("state", "state"),
        ("started", "started_at"),
        ("lasted", "duration_s"),
        ("sites", "sites"),
        ("tokens", "tokens"),
        ("loss", "loss_nats"),
        ("held out", "held_out_nats"),
    ),
    (("steps", "steps"), ("up", "bytes_up"), ("down", "bytes_down"), ("model", "model_digest")),
    (RoundStarted, RoundCompleted, RoundDiscarded, RoundEvaluated),
    fold,
    newest=False,
    empty="no round has started yet: the first one opens when enough sites have joined",
)
