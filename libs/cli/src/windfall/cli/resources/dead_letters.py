"""Dead letters: what could not be handled, by whom, and why. `windfall dlq` replays and drops them."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from windfall.cli.resources.resource import Resource, Rows
from windfall.contracts.message import Message
from windfall.contracts.subjects import DEAD_STREAM

if TYPE_CHECKING:
    from windfall.cli.server import Stored


@dataclass(frozen=True)
class DeadLetterRow:
    """One of them."""

    name: str
    """Its number, as `windfall dlq` takes it."""
    consumer: str
    """Who could not handle it."""
    subject: str
    reason: str
    event_id: str
    said_at: datetime | None
    """When it was true, if it says so."""


def take(rows: Rows, stored: "Stored") -> None:
    """Take one letter in, whatever is in it."""
    from windfall.cli.dead_letters import exhumed
    from windfall.contracts.message import instant

    dead = exhumed(stored)
    at = dead.letter.headers.get("ce-time", "")
    try:
        said_at = instant(at)
    except ValueError:
        # It may be no event at all: that can be why nobody could handle it.
        said_at = None
    key = str(dead.sequence)
    rows[key] = DeadLetterRow(
        key, dead.consumer, dead.letter.subject, dead.reason, dead.letter.headers.get("ce-id", ""), said_at
    )


def _unread(_: Rows, __: Message) -> None:
    """A dead letter may be no sentence: it is taken as it lies."""


DEAD_LETTERS: Final = Resource(
    "dead-letters",
    "DeadLetter",
    ("dead-letter", "deadletters", "dlq"),
    DeadLetterRow,
    (("number", "name"), ("not handled by", "consumer"), ("subject", "subject"), ("reason", "reason")),
    (("id", "event_id"), ("said", "said_at")),
    (),
    _unread,
    newest=False,
    empty="no dead letter: every service could handle what it heard",
    stream=DEAD_STREAM,
    take=take,
)
