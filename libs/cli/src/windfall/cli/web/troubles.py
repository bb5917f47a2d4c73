"""What is wrong now: each trouble stands from the event that brought it until the one that ends it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from windfall.cli.web.table import Table
from windfall.contracts.events import (
    CheckpointDamaged,
    ContributionAccepted,
    ContributionRefused,
    LinkDegraded,
    LinkRecovered,
    NodeFailed,
    NodeHindered,
    NodeReady,
    NodeReleased,
    RoundCompleted,
    RoundDiscarded,
    SignalRecovered,
    SignalRefused,
    SignalStale,
    SiteJoined,
    SiteRefused,
    SiteWithheld,
    WindowOpened,
)
from windfall.contracts.message import Message

KEPT: Final = 2000


@dataclass(frozen=True)
class Trouble:
    """One thing that a person may want to look at."""

    name: str
    kind: str
    """signal, node, link, contribution, site, model or dead letter."""
    whom: str
    """Site, federation, or who could not handle a letter."""
    since: datetime | None
    text: str


def fold(troubles: Table, message: Message) -> None:
    """Take one event in."""

    def put(kind: str, text: str, what: str = "") -> None:
        name = f"{kind}/{message.whom}/{what}"
        troubles[name] = Trouble(name, kind, message.whom, message.at, text)

    def over(*kinds: str) -> None:
        for kind in kinds:
            troubles.drop(f"{kind}/{message.whom}/")

    match message:
        case SignalStale():
            put("signal", f"nothing fresh for more than {message.limit_s / 60:g} min; the site is closed to be safe")
        case SignalRefused():
            put("reading", f"a value of {message.signal} was not believed ({message.reason}): {message.detail}")
        case SignalRecovered():
            over("signal", "reading")
        case WindowOpened():
            over("signal", "reading")
        case NodeHindered() if message.because:
            put("node", message.because)
        case NodeFailed():
            put("node", f"no node for this window: {message.reason}")
        case NodeHindered() | NodeReady() | NodeReleased():
            over("node")
        case LinkDegraded():
            put("link", f"to {message.target}: {message.because}", f"{message.target}-{message.part}")
        case LinkRecovered():
            troubles.drop(f"link/{message.site}/{message.target}-{message.part}")
        case ContributionRefused():
            put("contribution", f"to round {message.round} refused ({message.reason}): {message.detail}")
        case ContributionAccepted():
            over("contribution")
        case SiteRefused():
            put("site", f"may not join {message.federation} ({message.reason}): {message.detail}")
        case SiteWithheld():
            put("site", f"its own policy forbids to {message.before}: {message.because}")
        case SiteJoined():
            over("site")
        case CheckpointDamaged():
            put("model", message.detail)
        case RoundDiscarded():
            put("model", f"round {message.round} is not kept: {message.because}")
        case RoundCompleted():
            over("model")
        case _:
            pass
