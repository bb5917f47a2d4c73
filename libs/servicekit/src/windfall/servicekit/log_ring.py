"""The last lines of a process's log, kept in memory for whoever asks at its own server."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import format_span_id, format_trace_id

from windfall.contracts.logs import LogLine, LogWish
from windfall.servicekit.scrubbing import scrubbed

MOST_BYTES: Final = 1024 * 1024
"""Of text that a process keeps: some 8,000 lines."""
LONGEST: Final = 16 * 1024
"""Characters of a message, and of a stack trace. What is longer is cut."""

_OVERHEAD_BYTES: Final = 64
_STACKS: Final = logging.Formatter()


class LogRing(logging.Handler):
    """Keeps what is logged, scrubbed, until newer lines need its room. Any thread may log.

    Args:
        most_bytes: how much text is kept.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        super().__init__()
        self._most = most_bytes
        self._lines_lock = threading.Lock()
        self._lines: deque[LogLine] = deque()
        self._bytes = 0
        self._number = 0
        self.on_line: Callable[[], None] | None = None
        """Called with each line, by the thread that logged it."""

    def emit(self, record: logging.LogRecord) -> None:
        with self._lines_lock:
            self._number += 1
            line = as_line(record, self._number)
            self._lines.append(line)
            self._bytes += _size(line)
            while self._bytes > self._most and len(self._lines) > 1:
                self._bytes -= _size(self._lines.popleft())
        if (told := self.on_line) is not None:
            told()

    def kept(self) -> Sequence[LogLine]:
        """What is kept, oldest first."""
        with self._lines_lock:
            return tuple(self._lines)

    def after(self, number: int, most: int) -> tuple[Sequence[LogLine], int, int]:
        """Lines behind a place, at most so many of the oldest.

        Returns:
            The lines, how many behind the place are kept no more, and the number of the newest line that there is.
        """
        with self._lines_lock:
            newest = self._number
            oldest = newest - len(self._lines) + 1
            begin = max(0, number + 1 - oldest)
            return (
                tuple(self._lines[place] for place in range(begin, min(begin + most, len(self._lines)))),
                max(0, oldest - number - 1),
                newest,
            )


def as_line(record: logging.LogRecord, number: int) -> LogLine:
    """What is kept of a record, in the span in which it was logged."""
    found = trace.get_current_span().get_span_context()
    try:
        message = record.getMessage()
    except (TypeError, ValueError, KeyError):
        # Its words and its values do not go together, which whoever writes to standard error says.
        message = str(record.msg)
    return LogLine(
        number=number,
        at=datetime.fromtimestamp(record.created, UTC),
        severity=record.levelname,
        severity_number=record.levelno,
        logger=record.name,
        message=_cut(scrubbed(message)),
        trace_id=format_trace_id(found.trace_id) if found.is_valid else "",
        span_id=format_span_id(found.span_id) if found.is_valid else "",
        stack=_cut(scrubbed(_STACKS.formatException(record.exc_info))) if record.exc_info else "",
    )


def matches(line: LogLine, wish: LogWish) -> bool:
    """Whether a line is wished for."""
    return (
        line.severity_number >= wish.severity
        and (wish.since is None or line.at >= wish.since)
        and line.trace_id.startswith(wish.trace)
    )


def before_the_last(lines: Sequence[LogLine], wish: LogWish, tail: int | None) -> int:
    """Number of the line before the first that is to be told, when the newest ``tail`` that are wished for are."""
    if not lines:
        return 0
    wished = [line.number for line in lines if matches(line, wish)]
    if tail is not None:
        wished = wished[len(wished) - min(tail, len(wished)) :]
    return wished[0] - 1 if wished else lines[-1].number


def fitting(lines: Sequence[LogLine], wish: LogWish, most_bytes: int) -> tuple[tuple[LogLine, ...], int]:
    """Of lines in order those that are wished for, as far as they fit; at least one.

    Returns:
        The lines, and the number of the last line that was looked at; 0 when there is none.
    """
    taken: list[LogLine] = []
    room, until = most_bytes, 0
    for line in lines:
        if matches(line, wish):
            room -= _size(line)
            if room < 0 and taken:
                break
            taken.append(line)
        until = line.number
    return tuple(taken), until


def _size(line: LogLine) -> int:
    return len(line.message.encode()) + len(line.stack.encode()) + _OVERHEAD_BYTES


def _cut(text: str) -> str:
    # Half a character of a file's name cannot be told.
    text = text.encode(errors="replace").decode()
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
