"""Sites: whether their power is surplus, and how far that has brought them."""

from dataclasses import dataclass, replace
from datetime import datetime

from windfall.cli.resources.resource import Resource, Rows
from windfall.contracts.events import (
    ContributionAccepted,
    NodeFailed,
    NodeHindered,
    NodeReady,
    NodeReleased,
    SignalRecovered,
    SignalStale,
    SiteDrained,
    SiteEvent,
    SiteJoined,
    SiteLeft,
    SiteRefused,
    SiteWithheld,
    TrainingStarted,
    WindowClosed,
    WindowExpected,
    WindowJudged,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import Message


@dataclass(frozen=True)
class Site:
    """As the last words about it have it."""

    name: str
    window: str = "unknown"
    """off, expected, on or stale."""
    since: datetime | None = None
    node: str = ""
    """ready, hindered, failed or released."""
    node_name: str = ""
    lease_token: int | None = None
    training: str = ""
    """joined, training, drained, left, refused or withheld."""
    federation: str = ""
    round: int | None = None
    loss_nats: float | None = None
    because: str = ""
    """Of the window."""
    trouble: str = ""
    """What keeps the node, or the trainer, from coming."""
    heard_at: datetime | None = None


def fold(rows: Rows, message: Message) -> None:
    """Take one event in; what is older than what is known of the same matter changes nothing."""
    if isinstance(message, SiteEvent):
        row = rows.get(message.site) or Site(message.site)
        heard = message.at if row.heard_at is None else max(row.heard_at, message.at)
        rows[message.site] = replace(_after(row, message), heard_at=heard)


def _after(row: Site, message: Message) -> Site:
    match message:
        case WindowJudged():
            moved = message.state != row.window
            return replace(row, window=message.state, because=message.because, since=message.at if moved else row.since)
        case WindowOpened():
            return replace(row, window="on", since=message.at, because=message.because)
        case WindowExpected():
            return replace(row, window="expected", since=message.at, because=message.because)
        case WindowClosed() | WindowWithdrawn():
            return replace(row, window="off", since=message.at, because=message.because)
        case SignalStale():
            return replace(row, window="stale", since=message.at, because="its signal is silent")
        case NodeReady():
            return replace(row, node="ready", node_name=message.node, lease_token=message.lease_token, trouble="")
        case NodeHindered():
            state = "hindered" if message.because else row.node
            return replace(row, node=state, lease_token=message.lease_token, trouble=message.because)
        case NodeFailed():
            return replace(row, node="failed", lease_token=message.lease_token, trouble=message.reason)
        case NodeReleased():
            return replace(row, node="released", node_name=message.node, lease_token=message.lease_token, trouble="")
        case SiteJoined():
            told = replace(row, federation=message.federation, round=message.round)
            return replace(told, training="joined", trouble="")
        case TrainingStarted():
            return replace(row, training="training", federation=message.federation, round=message.round)
        case ContributionAccepted():
            return replace(row, federation=message.federation, round=message.round, loss_nats=message.loss_nats)
        case SiteDrained():
            return replace(row, training="drained", federation=message.federation)
        case SiteLeft():
            return replace(row, training="left", federation=message.federation)
        case SiteRefused():
            return replace(row, training="refused", federation=message.federation, trouble=message.detail)
        case SiteWithheld():
            return replace(row, training="withheld", federation=message.federation, trouble=message.because)
        case _:
            return row


SITES = Resource(
    "sites",
    "Site",
    ("site",),
    Site,
    (
        ("site", "name"),
        ("window", "window"),
        ("since", "since"),
        ("node", "node"),
        ("training", "training"),
        ("round", "round"),
        ("loss", "loss_nats"),
    ),
    (
        ("node name", "node_name"),
        ("lease", "lease_token"),
        ("federation", "federation"),
        ("because", "because"),
        ("trouble", "trouble"),
    ),
    (
        WindowJudged,
        WindowOpened,
        WindowExpected,
        WindowClosed,
        WindowWithdrawn,
        SignalStale,
        SignalRecovered,
        NodeReady,
        NodeHindered,
        NodeFailed,
        NodeReleased,
        SiteJoined,
        TrainingStarted,
        ContributionAccepted,
        SiteDrained,
        SiteLeft,
        SiteRefused,
        SiteWithheld,
    ),
    fold,
    newest=True,
    empty="no site has said anything yet. Start its energy-watcher, or a whole fleet with `windfall demo`",
)
