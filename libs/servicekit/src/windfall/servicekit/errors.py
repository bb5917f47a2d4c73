"""The errors that cross an edge: two for handlers, one for people."""

from datetime import timedelta
from enum import IntEnum


class Transient(Exception):
    """Try again later: the cause is outside and may pass.

    Args:
        reason: one line, for the log.
        retry_after: how long to wait (wall time); none leaves it to the bus's back-off.
    """

    def __init__(self, reason: str, retry_after: timedelta | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Poison(Exception):
    """Never try again: this message cannot be handled. It goes to the dead letters with the reason."""


class ExitCode(IntEnum):
    """How a process ends. The same numbers for the command and for every service."""

    OK = 0
    FAILED = 1
    """Something broke that is not listed below."""
    USAGE = 2
    """A wrong argument, setting or input file."""
    RESOURCE = 3
    """A port in use, a folder missing or not writable, a program not found."""
    SERVER = 4
    """A server that cannot be reached, refuses us, or is too old."""
    DISK_FULL = 5
    DIFFERENT = 6
    """A dry run found that something would change; or what was compared is not as it was."""
    INTERRUPTED = 130


class Mistake(Exception):
    """Something that a person can mend: the cause and the cure in one line, and no stack trace.

    Args:
        cause: what is wrong, with the name and value that is.
        cure: what to do about it.
        exit_code: how the process ends.
    """

    def __init__(self, cause: str, cure: str, exit_code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(f"{cause.rstrip('.')}. {cure}")
        self.cause = cause
        self.cure = cure
        self.exit_code = exit_code


def deposed() -> Mistake:
    """What ends a leader that is none any more."""
    return Mistake(
        "another process has taken over and this one may not go on; nothing that was acknowledged is lost",
        "Start it again: it stands by",
        ExitCode.FAILED,
    )
