"""A run's windows, folded from what was said: what each one saw, when, and what it gave. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from windfall.cli.recording import Said
from windfall.contracts.events import (
    ContributionAccepted,
    ContributionRefused,
    NodeFailed,
    NodeProfiled,
    NodeReady,
    NodeReleased,
    SiteDrained,
    SiteJoined,
    TrainingStarted,
    WindowClosed,
    WindowClosing,
    WindowExpected,
    WindowOpened,
)


@dataclass(frozen=True)
class Window:
    """One energy window of a site, from the signal to the released node. Instants are business time."""

    window_id: UUID
    site: str
    opened_at: datetime
    """When it opened, or is expected to."""
    expected_at: datetime | None = None
    """When it was first said to be near."""
    trace_id: str | None = None
    warned_at: datetime | None = None
    """When the forecast's warning came."""
    crossed_at: datetime | None = None
    """When the signal crossed the close threshold, before the grace."""
    closed_at: datetime | None = None
    closed_because: str | None = None
    ready_at: datetime | None = None
    """When the node was there: before the opening, if it was warm."""
    training_from: datetime | None = None
    """When the first step was done."""
    drained_at: datetime | None = None
    released_at: datetime | None = None
    released_because: str | None = None
    failed_because: str | None = None
    advice: str | None = None
    """The profiler's sentence on batch size and steps."""
    contributions: int = 0
    refused: int = 0
    tokens: int = 0
    steps: int = 0
    bytes_up: int = 0
    last_contribution_at: datetime | None = None

    @property
    def training_until(self) -> datetime | None:
        """When training ended: drained, or the node was gone."""
        return self.drained_at or self.released_at

    @property
    def close_to_last_contribution_s(self) -> float | None:
        """Business seconds from the crossing to the last accepted contribution.

        Zero when the warning had already drained the site; none when the window gave nothing or has not closed.
        """
        if self.crossed_at is None or self.last_contribution_at is None:
            return None
        return max(0.0, (self.last_contribution_at - self.crossed_at).total_seconds())


def windows(said: Sequence[Said]) -> tuple[Window, ...]:
    """The windows of a run that opened, by opening time. A recording may begin in mid-window: what is unknown stays
    none."""
    found: dict[UUID, Window] = {}
    opened: set[UUID] = set()
    attempts: dict[tuple[str, int], UUID] = {}
    for sentence in said:
        message = sentence.message
        if isinstance(message, WindowExpected | WindowOpened):
            begun = Window(message.window_id, message.site, message.at, trace_id=sentence.trace_id)
            found[message.window_id] = after(found.get(message.window_id, begun), message)
            opened |= {message.window_id} if isinstance(message, WindowOpened) else set()
        elif isinstance(message, SiteJoined):
            attempts[message.site, message.attempt] = message.window_id
        else:
            _tell(found, attempts, message)
    seen = (found[window_id] for window_id in opened)
    return tuple(sorted(seen, key=lambda window: (window.opened_at, window.site)))


def _tell(found: dict[UUID, Window], attempts: Mapping[tuple[str, int], UUID], message: object) -> None:
    if isinstance(message, ContributionAccepted | ContributionRefused):
        window_id = attempts.get((message.site, message.attempt))
    else:
        window_id = getattr(message, "window_id", None)
    if window_id in found:
        found[window_id] = after(found[window_id], message)


def after(window: Window, message: object) -> Window:
    """The window after one sentence about it; the first word on a point counts."""
    match message:
        case WindowExpected():
            return replace(window, expected_at=window.expected_at or message.at)
        case WindowOpened():
            return replace(window, opened_at=message.at)
        case WindowClosing():
            return replace(window, warned_at=window.warned_at or message.at)
        case WindowClosed():
            return replace(window, closed_at=message.at, crossed_at=message.crossed_at, closed_because=message.reason)
        case NodeReady():
            return replace(window, ready_at=window.ready_at or message.at)
        case NodeFailed():
            return replace(window, failed_because=message.reason)
        case NodeProfiled():
            return replace(window, advice=message.recommendation.because)
        case TrainingStarted():
            return replace(window, training_from=window.training_from or message.at)
        case SiteDrained():
            return replace(window, drained_at=message.at)
        case NodeReleased():
            return replace(window, released_at=message.at, released_because=message.reason)
        case ContributionAccepted():
            return replace(
                window,
                contributions=window.contributions + 1,
                tokens=window.tokens + message.tokens,
                steps=window.steps + message.steps,
                bytes_up=window.bytes_up + message.bytes_up,
                last_contribution_at=max(message.at, window.last_contribution_at or message.at),
            )
        case ContributionRefused():
            return replace(window, refused=window.refused + 1)
        case _:
            return window
