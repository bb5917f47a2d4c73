"""What a person types of the lines that they wish for. Pure."""

import logging
import re
from datetime import datetime, timedelta
from typing import Final

from windfall.contracts.logs import LogWish
from windfall.contracts.message import instant
from windfall.servicekit.errors import Mistake

LEVELS: Final = ("debug", "info", "warning", "error", "critical")

_UNITS: Final = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_SPAN: Final = re.compile(r"(?:\d+d)?(?:\d+h)?(?:\d+m)?(?:\d+s)?")
_TRACE: Final = re.compile(r"[0-9a-f]{4,32}")


def wish(since: str | None, level: str, trace: str | None, now: datetime) -> LogWish:
    """Of which lines there is talk.

    Args:
        since: like ``10m`` or ``1h30m`` before now, or an instant in ISO 8601.
        level: one of ``LEVELS``.
        trace: the id of a trace, or how it begins.

    Raises:
        Mistake: one of them cannot be understood.
    """
    asked = (trace or "").strip().lower()
    if asked and not _TRACE.fullmatch(asked):
        raise Mistake(f"{trace!r} is no trace id", "Write 4 to 32 hexadecimal digits, as a line's trace= has them")
    return LogWish(
        since=_since(since, now) if since else None,
        severity=logging.getLevelNamesMapping()[level.upper()],
        trace=asked,
    )


def _since(text: str, now: datetime) -> datetime:
    if _SPAN.fullmatch(text):
        parts = {_UNITS[unit]: int(number) for number, unit in re.findall(r"(\d+)([dhms])", text)}
        try:
            return now - timedelta(**parts)
        except OverflowError as error:
            raise Mistake(f"--since {text} is before all time", "Write a span like 10m or 1h30m") from error
    try:
        return instant(text)
    except ValueError as error:
        raise Mistake(
            f"--since {text!r} is neither a span nor an instant ({error})",
            "Write it like 10m or 1h30m, or like 2026-01-01T00:00:00+00:00",
        ) from error
