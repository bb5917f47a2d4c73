"""What the hub's events say about a fleet that runs, as one value for the live view: a pure fold over events."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from windfall.cli.counting import counted
from windfall.contracts.events import (
    CheckpointDamaged,
    ContributionAccepted,
    ContributionRefused,
    FederationFinished,
    NodeFailed,
    NodeHindered,
    NodeReady,
    NodeReleased,
    RoundCompleted,
    RoundEvaluated,
    RoundStarted,
    SignalRecovered,
    SignalStale,
    SiteDrained,
    SiteJoined,
    SiteLeft,
    TrainingStarted,
    WindowClosed,
    WindowClosing,
    WindowExpected,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import Message


@dataclass(frozen=True)
class Span:
    """Something that lasted; open-ended while it does."""

    since: datetime
    until: datetime | None = None


@dataclass(frozen=True)
class Lane:
    """One site as the hub knows it."""

    site: str
    window: str = "dark"
    """dark, expected, open, closing or stale."""
    node: str = "–"
    """warm (ready ahead of its window), ready, released or failed."""
    training: str = "–"
    """joined, training, drained."""
    round: int | None = None
    tokens: int = 0
    tokens_per_s: float | None = None
    """Of the last contribution, by the wall clock."""
    loss_nats: float | None = None
    bytes_up: int = 0
    windows: tuple[Span, ...] = ()
    trained: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Fleet:
    """All lanes and the federation's progress."""

    lanes: Mapping[str, Lane]
    speed: float = 1.0
    """Business seconds per wall second."""
    round: int | None = None
    round_started_at: datetime | None = None
    rounds_completed: int = 0
    held_out: tuple[float, ...] = ()
    """Held-out loss after each evaluated round, in nats per token."""
    tokens: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    finished: bool = False
    heard: int = 0
    joined: Mapping[str, datetime] = field(default_factory=dict)


def fleet(sites: tuple[str, ...], speed: float) -> Fleet:
    """A fleet of which nothing has been heard yet."""
    return Fleet(lanes={site: Lane(site) for site in sites}, speed=speed)


def hear(fleet: Fleet, message: Message) -> Fleet:
    """The fleet after one event. Events of sites that are not of this fleet change nothing but the count."""
    fleet = _federation(replace(fleet, heard=fleet.heard + 1), message)
    lane = fleet.lanes.get(message.whom)
    if lane is None:
        return fleet
    return replace(fleet, lanes={**fleet.lanes, lane.site: _lane(lane, fleet, message)})


def _federation(fleet: Fleet, message: Message) -> Fleet:
    match message:
        case RoundStarted():
            return replace(fleet, round=message.round, round_started_at=message.at)
        case RoundCompleted():
            return replace(
                fleet,
                rounds_completed=fleet.rounds_completed + 1,
                tokens=message.tokens_total,
                bytes_up=fleet.bytes_up + message.bytes_up,
                bytes_down=fleet.bytes_down + message.bytes_down,
            )
        case RoundEvaluated():
            return replace(fleet, held_out=(*fleet.held_out, message.loss_nats))
        case SiteJoined():
            return replace(fleet, joined={**fleet.joined, message.site: message.at})
        case FederationFinished():
            return replace(fleet, finished=True)
        case _:
            return fleet


def _lane(lane: Lane, fleet: Fleet, message: Message) -> Lane:
    match message:
        case WindowExpected():
            return replace(lane, window="expected") if lane.window in ("dark", "stale") else lane
        case WindowWithdrawn():
            return replace(lane, window="dark") if lane.window == "expected" else lane
        case WindowOpened():
            node = "ready" if lane.node == "warm" else lane.node
            return replace(lane, window="open", node=node, windows=(*lane.windows, Span(message.at)))
        case WindowClosing():
            return replace(lane, window="closing")
        case WindowClosed():
            return replace(lane, window="dark", windows=_ended(lane.windows, message.at))
        case SignalStale():
            return replace(lane, window="stale")
        case SignalRecovered():
            return replace(lane, window="dark" if lane.window == "stale" else lane.window)
        case NodeReady():
            return replace(lane, node="warm" if lane.window == "expected" else "ready", training="–")
        case NodeFailed():
            return replace(lane, node="failed")
        case NodeReleased():
            return replace(lane, node="released", training="–", round=None, trained=_ended(lane.trained, message.at))
        case SiteJoined():
            return replace(lane, training="joined", round=message.round)
        case TrainingStarted():
            return replace(lane, training="training", round=message.round, trained=(*lane.trained, Span(message.at)))
        case ContributionAccepted():
            return replace(
                lane,
                round=message.round,
                tokens=lane.tokens + message.tokens,
                tokens_per_s=_rate(fleet, message),
                loss_nats=message.loss_nats,
                bytes_up=lane.bytes_up + message.bytes_up,
            )
        case SiteDrained():
            return replace(lane, training="drained", trained=_ended(lane.trained, message.at))
        case SiteLeft():
            return replace(lane, training="–", round=None, trained=_ended(lane.trained, message.at))
        case _:
            return lane


def _rate(fleet: Fleet, message: ContributionAccepted) -> float | None:
    """Tokens per wall second since the round began or the site joined, whichever was later."""
    since = [at for at in (fleet.round_started_at, fleet.joined.get(message.site)) if at is not None]
    if not since or message.at <= max(since):
        return None
    wall: timedelta = (message.at - max(since)) / fleet.speed
    return message.tokens / wall.total_seconds()


def _ended(spans: tuple[Span, ...], at: datetime) -> tuple[Span, ...]:
    if spans and spans[-1].until is None:
        return (*spans[:-1], replace(spans[-1], until=at))
    return spans


def tell(message: Message) -> str | None:
    """One plain line for a person who is not at a terminal; none when the event is not worth one."""
    match message:
        case WindowWithdrawn():
            return f"{message.site}: the expected window does not come"
        case WindowOpened():
            until = f", expected until {message.expected_close_at:%H:%M}" if message.expected_close_at else ""
            at = "" if message.intensity_g_per_kwh is None else f" at {message.intensity_g_per_kwh:.0f} gCO2/kWh"
            return f"{message.site}: window open{at}{until}"
        case WindowClosed():
            return f"{message.site}: window closed ({message.reason})"
        case NodeReleased() if message.reason not in ("drained", "released"):
            return f"{message.site}: node released ({message.reason})"
        case NodeFailed():
            return f"{message.site}: no node: {message.reason}"
        case NodeHindered() if message.because:
            return f"{message.site}: no node yet: {message.because}"
        case SignalStale():
            return f"{message.site}: signal stale, closed to be safe"
        case ContributionRefused():
            return f"{message.site}: contribution to round {message.round} refused ({message.reason}: {message.detail})"
        case RoundEvaluated() if message.round & (message.round - 1) == 0:
            return f"{counted(message.round, 'rounds')} committed, held-out loss {message.loss_nats:.3f}"
        case CheckpointDamaged():
            return message.detail
        case FederationFinished():
            rounds, tokens = counted(message.rounds, "rounds"), counted(message.tokens_total, "tokens")
            return f"federation finished after {rounds}, {tokens}"
        case _:
            return None
