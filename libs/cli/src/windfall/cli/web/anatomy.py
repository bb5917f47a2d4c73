"""What a round is made of, for its waterfall: its opening, each contribution, its commit, and the traces of all."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from windfall.cli.recording import Said
from windfall.cli.web.table import Table, short
from windfall.contracts.events import (
    ContributionAccepted,
    ContributionRefused,
    RoundCompleted,
    RoundDiscarded,
    RoundEvaluated,
    RoundStarted,
)

KEPT_ROUNDS: Final = 500
KEPT_PARTS: Final = 30
"""Rounds whose contributions are kept one by one."""


@dataclass(frozen=True)
class Anatomy:
    """A round from its opening to its evaluation."""

    name: str
    """``federation/number``."""
    federation: str
    round: int
    state: str = "running"
    """running, completed or discarded."""
    started_at: datetime | None = None
    ends_at: datetime | None = None
    members: int = 0
    completed_at: datetime | None = None
    """When the outer step was committed."""
    evaluated_at: datetime | None = None
    contributors: int = 0
    tokens: int | None = None
    tokens_total: int | None = None
    steps: int | None = None
    loss_nats: float | None = None
    held_out_nats: float | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None
    model_digest: str = ""
    trace_id: str = ""
    """Of the span that opened it; once it is completed, of the one that committed it."""
    because: str = ""


@dataclass(frozen=True)
class Part:
    """One contribution, accepted or refused."""

    site: str
    at: datetime
    tokens: int = 0
    steps: int = 0
    loss_nats: float | None = None
    bytes_up: int = 0
    partial: bool = False
    rounds_late: int = 0
    refused: str = ""
    """Why, where it was."""
    trace_id: str = ""


class Rounds:
    """The rounds of every federation; of the newest ones each part."""

    def __init__(self) -> None:
        self.table = Table(KEPT_ROUNDS)
        self.parts: dict[str, list[Mapping[str, object]]] = {}

    def take(self, said: Said) -> tuple[str, Mapping[str, object]] | None:
        """Take one event in; the part that it brought, with the round that it belongs to."""
        message = said.message
        match message:
            case ContributionAccepted() | ContributionRefused():
                name = f"{message.federation}/{message.round}"
                part = short(_part(message, said.trace_id or ""))
                self.parts.setdefault(name, []).append(part)
                while len(self.parts) > KEPT_PARTS:
                    del self.parts[next(iter(self.parts))]
                return name, part
            case RoundStarted() | RoundCompleted() | RoundDiscarded():
                self._put(message.federation, message.round, message, said.trace_id or "")
            case RoundEvaluated() if message.round > 0:
                # A model is evaluated when the next round has begun: it belongs to the one that made it.
                self._put(message.federation, message.round - 1, message, "")
            case _:
                pass
        return None

    def _put(self, federation: str, number: int, message: object, trace_id: str) -> None:
        name = f"{federation}/{number}"
        self.table[name] = _after(self.table.get(name) or Anatomy(name, federation, number), message, trace_id)


def _part(message: ContributionAccepted | ContributionRefused, trace_id: str) -> Part:
    if isinstance(message, ContributionRefused):
        return Part(message.site, message.at, refused=f"{message.reason}: {message.detail}", trace_id=trace_id)
    return Part(
        message.site,
        message.at,
        message.tokens,
        message.steps,
        message.loss_nats,
        message.bytes_up,
        message.partial,
        message.rounds_late,
        trace_id=trace_id,
    )


def _after(row: Anatomy, message: object, trace_id: str) -> Anatomy:
    match message:
        case RoundStarted():
            told = replace(row, state="running", started_at=message.at, ends_at=message.ends_at)
            return replace(told, members=len(message.members), trace_id=trace_id, because=message.because)
        case RoundCompleted():
            told = replace(row, state="completed", completed_at=message.at, contributors=len(message.contributors))
            told = replace(told, tokens=message.tokens, tokens_total=message.tokens_total, steps=message.steps)
            told = replace(told, loss_nats=message.loss_nats, model_digest=message.model_digest)
            told = replace(told, bytes_up=message.bytes_up, bytes_down=message.bytes_down)
            return replace(told, trace_id=trace_id or row.trace_id)
        case RoundDiscarded():
            return replace(row, state="discarded", because=message.because)
        case RoundEvaluated():
            return replace(row, held_out_nats=message.loss_nats, evaluated_at=message.at)
        case _:
            return row
