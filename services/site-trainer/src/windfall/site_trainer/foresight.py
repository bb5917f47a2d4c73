"""What a trainer knows before it is admitted: what the coordinator said to the site's last one.

A trainer that waits for its window has not joined, so nobody has told it what is trained. It makes its engine for what
was trained last, and the federation has seldom changed since.
"""

from typing import Final

from google.protobuf.json_format import Parse, ParseError
from pydantic import BaseModel, ConfigDict

from windfall.contracts.v1 import training_pb2 as pb
from windfall.servicekit.journal import Journal
from windfall.site_trainer.coordinator import Membership, membership_of

_LAST: Final = "last-admission"


class LastAdmission(BaseModel):
    """The newest reply to a join."""

    model_config = ConfigDict(frozen=True)

    federation: str
    reply_json: str


def remember(journal: Journal, federation: str, membership: Membership) -> None:
    """Keep it for the site's next trainer, on disk when this returns."""
    journal.commit(state={_LAST: LastAdmission(federation=federation, reply_json=membership.reply_json)})


def foreseen(journal: Journal, federation: str) -> Membership | None:
    """The membership that is to be expected; none when nothing is known, or another version wrote it."""
    last = journal.load(_LAST, LastAdmission)
    if last is None or last.federation != federation:
        return None
    try:
        return membership_of(Parse(last.reply_json, pb.JoinReply()))
    except (ParseError, ValueError):
        return None


def fits(expected: Membership, membership: Membership) -> bool:
    """Whether what was loaded for the one serves the other."""
    return _trained(expected) == _trained(membership)


def _trained(membership: Membership) -> tuple[object, ...]:
    return membership.task, membership.task_settings, membership.layout, membership.rule.settings, membership.corpus
