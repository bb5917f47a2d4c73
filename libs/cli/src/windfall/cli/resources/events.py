"""Events themselves: what was said last, by whom, and about whom. `windfall events tail` follows all of them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from windfall.cli.resources.resource import Resource, Rows
from windfall.contracts.events import EVENTS
from windfall.contracts.message import Message

MOST: Final = 200
"""So many of the newest are read."""


@dataclass(frozen=True)
class Event:
    """One sentence."""

    name: str
    """Its id."""
    at: datetime
    topic: str
    whom: str
    """The site or the federation that it is about."""
    says: str
    """Its other fields, in one line."""


def fold(rows: Rows, message: Message) -> None:
    """Take one event in."""
    key = str(message.id)
    rows[key] = Event(key, message.at, message.topic, message.whom, says(message))


def says(message: Message) -> str:
    """Every plain field but those that stand in a column."""
    told = message.model_dump(mode="json", exclude={"id", "at", "site", "federation"})
    return " ".join(f"{name}={value}" for name, value in told.items() if not isinstance(value, dict))


RECENT: Final = Resource(
    "events",
    "Event",
    ("event",),
    Event,
    (("at", "at"), ("event", "topic"), ("whom", "whom"), ("id", "name")),
    (("says", "says"),),
    EVENTS,
    fold,
    newest=False,
    empty="nothing was said yet. Start services, or say something with `windfall events publish`",
    most=MOST,
)
