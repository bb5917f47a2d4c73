"""A service is asked for its log, and tells it: to whoever stands at its own server, and to nobody further.

Neither is a sentence: no stream keeps them, no leaf connection lets them through (``subjects.LOGS``), and no field of
them may leave a site. An asker names itself by a token, asks again before its lease ends for as long as it follows, and
says each time up to which line it was told; so what was lost on the way is told again.
"""

from datetime import timedelta
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from windfall.contracts.message import Instant

LEASE: Final = timedelta(seconds=20)
"""How long after it last asked an asker is told new lines."""

Token = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""Names one asker; one token of a NATS subject."""


class _Frozen(BaseModel):
    # Readers tolerate what they do not know, so that versions can mix.
    model_config = ConfigDict(frozen=True, extra="ignore")


class LogWish(_Frozen):
    """Which lines."""

    since: Instant | None = None
    severity: int = 0
    """The least, as ``logging`` numbers them; 30 is a warning."""
    trace: str = ""
    """How the trace id begins, in lower-case hexadecimal."""


class LogAsk(_Frozen):
    """What an asker says, again and again for as long as it follows."""

    token: Token
    wish: LogWish = LogWish()
    whom: str = ""
    """The site or federation of the service that is meant; empty for any."""
    tail: Annotated[int, Field(ge=0)] | None = None
    """How many of the newest lines of each process; all that it keeps when there is none."""
    follow: bool = False
    seen: dict[str, int] | None = None
    """By process the last line that was told; none when this is asked for the first time."""


class LogLine(_Frozen):
    """One line as it was written."""

    number: int
    """From 1 on, in the order in which its process wrote."""
    at: Instant
    severity: str
    severity_number: int
    logger: str
    message: str
    trace_id: str = ""
    span_id: str = ""
    stack: str = ""


class LogTold(_Frozen):
    """Some lines of one process, in order."""

    process: str
    """A name that it has from start to end."""
    service: str
    whom: str
    until: int
    """Number of the last line that was looked at; 0 before the first."""
    lines: tuple[LogLine, ...] = ()
    dropped: int = 0
    """Lines that went before they could be told: they came faster, or the asker was away too long."""
    whole: bool = False
    """Whether this is all that there was when it was asked for."""
    refused: str = ""
    """Why nothing is told."""
