"""The form that every sentence on the bus shares."""

import re
from datetime import UTC, datetime
from typing import Annotated, ClassVar, Final
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?$")]
"""A site, federation or node: one NATS subject token of 1 to 48 lower-case letters, digits and inner dashes."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""A SHA-256 in lower-case hexadecimal."""


def _in_utc(at: datetime) -> datetime:
    try:
        return at.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("an instant before the first year or after the last") from error


Instant = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A timezone-aware instant, kept in UTC. A naive one is refused."""

LONGEST_SENTENCE: Final = 500
"""Characters. What is longer is cut."""

_PLACES: Final = (
    re.compile(r"""(['"])(?:file:|~)?(?:[A-Za-z]:)?[/\\](?![/\\]?\s).*?\1"""),
    re.compile(r"""\b[A-Za-z][A-Za-z0-9+.-]*://[^\s'"]+"""),
    re.compile(
        r"""(?:(?<=[\s'"(\[{<=:,;|])|^)(?:~[\w.-]*|\.{1,2}|[A-Za-z]:)?[/\\](?![/\\]?(?:\s|$))[^\s'",;:)\]}>]*"""
        # A folder's name may have blanks: words go with it as long as they hold separators.
        r"""(?:\s[^\s/\\'"]+[/\\][^\s'",;:)\]}>]*)*"""
    ),
    re.compile(
        r"""\b(?:ipv[46]:)?\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b|\bipv6:[^\s'",;)]+|\[[0-9a-fA-F:]*::?[0-9a-fA-F:]*\](?::\d+)?"""
    ),
)
"""Quoted paths, URLs, bare paths, addresses."""


def sentence(text: str) -> str:
    """A line for a person in which nothing says where something lies: paths, URLs and addresses become ``…``, control
    characters become spaces, and what is longer than ``LONGEST_SENTENCE`` is cut."""
    # Cut first: nobody's megabyte is searched.
    line = "".join(character if character.isprintable() else " " for character in text[: 4 * LONGEST_SENTENCE])
    while (cleaned := _cleaned(line)) != line:
        line = cleaned
    return line


def _cleaned(line: str) -> str:
    for place in _PLACES:
        line = place.sub("…", line)
    return line if len(line) <= LONGEST_SENTENCE else line[: LONGEST_SENTENCE - 1] + "…"


Sentence = Annotated[str, AfterValidator(sentence)]
"""A line for a person that may leave a site: whatever is put into it, ``sentence`` is what travels."""

_ORIGIN = uuid5(NAMESPACE_URL, "https://windfall.dev/ids")


class Message(BaseModel):
    """A frozen sentence. Readers tolerate fields that they do not know, so that versions can mix."""

    model_config = ConfigDict(frozen=True, defer_build=True, extra="ignore", allow_inf_nan=False)

    topic: ClassVar[str] = ""
    """What is said: ``noun.verb`` for an event, ``service.verb`` for a command."""

    id: UUID
    """Derived from the cause, so that a retried handler says the same sentence and the stream keeps one."""
    at: Instant
    """When it became true, by the speaker's clock."""

    @property
    def whom(self) -> str:
        """The site or federation that the sentence concerns: the last token of its subject."""
        raise NotImplementedError(type(self).__name__)


def derived_id(cause: UUID | str, topic: str, whom: str) -> UUID:
    """The id of what follows from a cause: the same three give the same id (UUID version 5, RFC 9562)."""
    return uuid5(_ORIGIN, f"{cause}/{topic}/{whom}")


def instant(text: str) -> datetime:
    """Read an ISO 8601 instant; a naive one is refused with ``ValueError``."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone; write it like 2026-01-01T00:00:00+00:00")
    return _in_utc(at)
