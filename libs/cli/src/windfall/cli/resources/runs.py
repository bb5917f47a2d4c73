"""Runs: a federation from its first round to its last word, with whatever was paused, discarded and gone back to."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from windfall.cli.resources.resource import Resource, Row, Rows
from windfall.contracts.events import (
    EnergyRecorded,
    FederationFinished,
    FederationPaused,
    FederationResumed,
    RoundCompleted,
    RoundDiscarded,
    RoundEvaluated,
    RoundStarted,
    SiteJoined,
)
from windfall.contracts.message import Message


@dataclass(frozen=True)
class Run:
    """What a federation came to between its first round and its end."""

    name: str
    """``federation/ordinal``: a federation that begins anew under its name is another run."""
    federation: str
    state: str = "training"
    """training, paused, finished, or abandoned: it began anew and had never finished."""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    rounds: int = 0
    """Completed."""
    rounds_discarded: int = 0
    """Whose model was not kept, those included from which somebody went back."""
    pauses: int = 0
    sites: tuple[str, ...] = ()
    """Who contributed."""
    tokens_total: int = 0
    loss_first: float | None = None
    """In training, of the first round, in nats."""
    loss_last: float | None = None
    held_out_first: float | None = None
    held_out_last: float | None = None
    energy_kwh: float | None = None
    """That its sites drew in the windows in which they had joined it, by their ledgers."""
    emissions_g: float | None = None
    """Of CO2, in these windows."""
    bytes_up: int = 0
    bytes_down: int = 0
    model_digest: str = ""
    because: str = ""
    """Why it has ended or is paused."""


class Runs(Rows):
    """Rows, and what cannot be told of one yet: what a window drew before its site joined, what the first model scored
    before the first round."""

    def __init__(self) -> None:
        super().__init__()
        self.joined: dict[UUID, str] = {}
        """Window → federation."""
        self.drawn: dict[UUID, list[EnergyRecorded]] = {}
        """Window → what stands in no row yet."""
        self.scored: dict[str, float] = {}
        """Federation → held-out loss of what it begins with."""

    def of(self, federation: str) -> list[Run]:
        """All of a federation, the oldest first."""
        return [row for row in self.values() if row.federation == federation]


HEARD = (
    SiteJoined,
    RoundStarted,
    RoundCompleted,
    RoundDiscarded,
    RoundEvaluated,
    FederationPaused,
    FederationResumed,
    FederationFinished,
    EnergyRecorded,
)


def fold(rows: Rows, message: Message) -> None:
    """Take one event in."""
    assert isinstance(rows, Runs)
    match message:
        case EnergyRecorded(window_id=UUID() as window):
            rows.drawn.setdefault(window, []).append(message)
            _place(rows, (window,))
        case SiteJoined():
            rows.joined[message.window_id] = message.federation
            _place(rows, (message.window_id,))
        case RoundEvaluated(round=0):
            rows.scored[message.federation] = message.loss_nats
            if (row := _last(rows, message.federation)) is not None and not row.rounds:
                _begin(rows, row)
        case RoundStarted():
            _started(rows, message)
        case (
            RoundCompleted()
            | RoundDiscarded()
            | RoundEvaluated()
            | FederationPaused()
            | FederationResumed()
            | FederationFinished()
        ):
            if (row := _last(rows, message.federation)) is not None:
                rows[row.name] = _after(row, message)


def _started(rows: Runs, message: RoundStarted) -> None:
    row = _last(rows, message.federation)
    anew = row is not None and message.round == 0 and row.rounds > 0
    if row is not None and row.state != "finished" and not anew:
        rows[row.name] = replace(row, state="training")
        return
    if row is not None and row.state != "finished":
        rows[row.name] = replace(row, state="abandoned")
    name = f"{message.federation}/{len(rows.of(message.federation)) + 1}"
    _begin(rows, Run(name, message.federation, started_at=message.at))
    _place(rows, [window for window in rows.drawn if rows.joined.get(window) == message.federation])


def _begin(rows: Runs, row: Run) -> None:
    first = rows.scored.pop(row.federation, row.held_out_first)
    rows[row.name] = replace(row, held_out_first=first, held_out_last=row.held_out_last or first)


def _after(row: Run, message: Message) -> Run:
    match message:
        case RoundCompleted():
            told = replace(row, rounds=row.rounds + 1, loss_last=message.loss_nats, model_digest=message.model_digest)
            told = replace(told, sites=tuple(sorted({*row.sites, *message.contributors})))
            told = replace(
                told, bytes_up=row.bytes_up + message.bytes_up, bytes_down=row.bytes_down + message.bytes_down
            )
            first = message.loss_nats if row.loss_first is None else row.loss_first
            return replace(told, tokens_total=message.tokens_total, loss_first=first)
        case RoundDiscarded():
            return replace(row, rounds_discarded=row.rounds_discarded + 1, model_digest=message.base_digest)
        case RoundEvaluated():
            first = message.loss_nats if row.held_out_first is None else row.held_out_first
            return replace(row, held_out_first=first, held_out_last=message.loss_nats)
        case FederationPaused():
            return replace(row, state="paused", pauses=row.pauses + 1, because=message.because)
        case FederationResumed():
            return replace(row, state="training", because="")
        case FederationFinished():
            told = replace(row, state="finished", ended_at=message.at, because=message.because)
            return replace(told, tokens_total=message.tokens_total, model_digest=message.model_digest)
        case _:
            return row


def _place(rows: Runs, windows: Iterable[UUID]) -> None:
    """Count what these windows drew towards the run that was under way, as far as it is known which that is."""
    for window in windows:
        runs = rows.of(rows.joined.get(window, ""))
        if not runs:
            continue
        for drawn in rows.drawn.pop(window, ()):
            begun = [one for one in runs if one.started_at is not None and one.started_at <= drawn.end]
            # A node that comes up before the first round comes up for it.
            row = rows[(begun[-1] if begun else runs[0]).name]
            rows[row.name] = replace(
                row,
                energy_kwh=(row.energy_kwh or 0.0) + drawn.energy_kwh,
                emissions_g=(row.emissions_g or 0.0) + drawn.emissions_kg * 1000,
            )


def _last(rows: Runs, federation: str) -> Run | None:
    return next(reversed(rows.of(federation)), None)


def _concerns(row: Row, message: Message) -> bool:
    """Between its first round and its end."""
    begun = row.started_at is None or row.started_at <= message.at
    return begun and (row.ended_at is None or message.at <= row.ended_at)


RUNS = Resource(
    "runs",
    "Run",
    ("run",),
    Run,
    (
        ("run", "name"),
        ("state", "state"),
        ("started", "started_at"),
        ("ended", "ended_at"),
        ("rounds", "rounds"),
        ("sites", "sites"),
        ("tokens", "tokens_total"),
        ("loss first", "loss_first"),
        ("last", "loss_last"),
        ("kWh", "energy_kwh"),
        ("gCO2", "emissions_g"),
    ),
    (
        ("held out first", "held_out_first"),
        ("held out last", "held_out_last"),
        ("discarded", "rounds_discarded"),
        ("pauses", "pauses"),
        ("up", "bytes_up"),
        ("down", "bytes_down"),
        ("model", "model_digest"),
        ("because", "because"),
    ),
    HEARD,
    fold,
    newest=False,
    empty="no round has started yet: a run begins with its first one",
    begin=Runs,
    concerns=_concerns,
)
