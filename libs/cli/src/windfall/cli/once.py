"""A run that is asked for twice under one token is one run: the second command waits for it and says what it came to.

What is known of a token stands in a file of the person's own state folder, which the command that runs holds locked.
"""

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TextIO

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from windfall.cli.counting import counted
from windfall.servicekit.errors import ExitCode, Mistake

_TOKEN: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,62}[A-Za-z0-9])?")


class Outcome(BaseModel):
    """How a run ended."""

    model_config = ConfigDict(frozen=True)

    lines: tuple[str, ...]
    """That its command printed."""
    failed: str = ""
    """Why it came to less than was asked for, and what to do; empty where it came to all of it."""


class _Known(BaseModel):
    model_config = ConfigDict(frozen=True)

    asked: dict[str, str] = Field(default_factory=dict)
    outcome: Outcome | None = None


def folder(environ: Mapping[str, str]) -> Path:
    """Where tokens stand, as the XDG Base Directory Specification has it."""
    told = environ.get("XDG_STATE_HOME", "")
    home = Path(environ.get("HOME") or "~").expanduser()
    # A relative path is to be ignored, says the specification.
    return (Path(told) if Path(told).is_absolute() else home / ".local" / "state") / "windfall" / "runs"


def once(
    environ: Mapping[str, str],
    token: str,
    asked: Mapping[str, str],
    work: Callable[[], Outcome],
    say: Callable[[str], None],
) -> Outcome:
    """Do the work, or wait for whoever does it under this token, or give what it came to before.

    A run that was broken off came to nothing, and is done anew.

    Args:
        asked: what is to be run; a token stands for that alone.
        say: tells why nothing is started.

    Raises:
        Mistake: the token cannot be one, or was given to another run.
    """
    if not _TOKEN.fullmatch(token):
        raise Mistake(f"{token[:70]!r} cannot be a token", "Use up to 64 letters, digits, dots, dashes and underscores")
    with _locked(
        folder(environ) / f"{token}.json", lambda: say(f"the run {token} is under way: waiting for it")
    ) as file:
        known = _read(file)
        if known is not None and known.outcome is not None:
            if known.asked != asked:
                raise Mistake(
                    f"the token {token} was given to another run ({_different(known.asked, asked)})",
                    "Choose another token for this one",
                )
            say(f"the run {token} has ended before: nothing is started")
            return known.outcome
        if known is not None:
            say(f"the run {token} was broken off: it begins anew")
        _write(file, _Known(asked=dict(asked)))
        outcome = work()
        _write(file, _Known(asked=dict(asked), outcome=outcome))
        return outcome


@contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[TextIO]:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise Mistake(
            f"cannot keep the token in {path} ({error.strerror})", "Set XDG_STATE_HOME", ExitCode.RESOURCE
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _read(file: TextIO) -> _Known | None:
    file.seek(0)
    if not (text := file.read()):
        return None
    try:
        return _Known.model_validate_json(text)
    except ValidationError as error:
        raise Mistake(
            f"{file.name} cannot be read ({counted(error.error_count(), 'faults')})",
            "Remove it, or choose another token",
        ) from error


def _write(file: TextIO, known: _Known) -> None:
    file.seek(0)
    file.truncate()
    file.write(known.model_dump_json())
    file.flush()
    os.fsync(file.fileno())


def _different(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    name = next(key for key in sorted({*before, *now}) if before.get(key) != now.get(key))
    return f"{name} was {json.dumps(before.get(name, ''))} and is {json.dumps(now.get(name, ''))}"
