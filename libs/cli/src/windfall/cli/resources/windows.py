"""Windows: the stretches of time in which a site's power is, was or will be surplus."""

from dataclasses import dataclass, replace
from datetime import datetime

from windfall.cli.resources.resource import Resource, Rows
from windfall.contracts.events import (
    SiteEvent,
    WindowClosed,
    WindowClosing,
    WindowExpected,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import Message


@dataclass(frozen=True)
class Window:
    """From its first word to its last."""

    name: str
    """Its id."""
    site: str
    state: str = "expected"
    """expected, withdrawn, open, closing or closed."""
    opened_at: datetime | None = None
    """When it did, or is expected to."""
    closes_at: datetime | None = None
    """When it did, or is expected to; none where no end is seen."""
    confidence: float | None = None
    intensity_g_per_kwh: float | None = None
    reason: str = ""
    because: str = ""


def fold(rows: Rows, message: Message) -> None:
    """Take one event in."""
    window_id = getattr(message, "window_id", None)
    if isinstance(message, SiteEvent) and window_id is not None:
        row = rows.get(str(window_id)) or Window(str(window_id), message.site)
        rows[row.name] = _after(row, message)


def _after(row: Window, message: Message) -> Window:
    match message:
        case WindowExpected():
            told = replace(row, opened_at=message.opens_at, closes_at=message.expected_close_at)
            return replace(told, state="expected", confidence=message.confidence, because=message.because)
        case WindowWithdrawn():
            return replace(row, state="withdrawn", closes_at=message.at, because=message.because)
        case WindowOpened():
            told = replace(row, opened_at=message.at, closes_at=message.expected_close_at)
            told = replace(told, intensity_g_per_kwh=message.intensity_g_per_kwh, confidence=message.confidence)
            return replace(told, state="open", because=message.because)
        case WindowClosing():
            return replace(row, state="closing", closes_at=message.closes_at)
        case WindowClosed():
            return replace(row, state="closed", closes_at=message.at, reason=message.reason, because=message.because)
        case _:
            return row


WINDOWS = Resource(
    "windows",
    "Window",
    ("window",),
    Window,
    (
        ("window", "name"),
        ("site", "site"),
        ("state", "state"),
        ("opens", "opened_at"),
        ("closes", "closes_at"),
        ("ended by", "reason"),
    ),
    (("g/kWh", "intensity_g_per_kwh"), ("confidence", "confidence"), ("because", "because")),
    (WindowExpected, WindowWithdrawn, WindowOpened, WindowClosing, WindowClosed),
    fold,
    newest=False,
    empty="no window was foreseen or has opened yet. `windfall explain SITE` says what a site waits for",
)
