"""Logs go to stderr, a line each, and name the trace that they belong to.

``WINDFALL_LOG_FORMAT=json`` makes each line a JSON object with OpenTelemetry's names (``trace_id``, ``span_id``), for
collectors that read the output of containers; otherwise a line is for people and ends with the trace if there is one.
Neither holds what looks like a secret (:mod:`windfall.servicekit.scrubbing`).
"""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from opentelemetry import trace
from opentelemetry.trace import format_span_id, format_trace_id

from windfall.servicekit.errors import Mistake
from windfall.servicekit.scrubbing import scrubbed

FORMATS: Final = ("text", "json")

_SAY_IT_THEMSELVES: Final = ("nats", "opentelemetry")
"""Libraries whose trouble we say in our own words, once."""


def to_stderr(service: str, environ: Mapping[str, str]) -> None:
    """Log as ``WINDFALL_LOG_LEVEL`` and ``WINDFALL_LOG_FORMAT`` say.

    Raises:
        Mistake: one of them is none that there is.
    """
    level = (environ.get("WINDFALL_LOG_LEVEL") or "INFO").upper()
    if level not in logging.getLevelNamesMapping():
        raise Mistake(f"WINDFALL_LOG_LEVEL is {level!r}", "Set it to DEBUG, INFO, WARNING or ERROR")
    form = environ.get("WINDFALL_LOG_FORMAT") or "text"
    if form not in FORMATS:
        raise Mistake(f"WINDFALL_LOG_FORMAT is {form!r}", f"Set it to {' or '.join(FORMATS)}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLine(service) if form == "json" else TextLine(service))
    logging.basicConfig(level=level, handlers=[handler])
    for library in _SAY_IT_THEMSELVES:
        logging.getLogger(library).setLevel(logging.CRITICAL)


class TextLine(logging.Formatter):
    """Time, level, service, message, and the trace."""

    def __init__(self, service: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)-7s {service} %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return scrubbed(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        line = super().formatMessage(record)
        found = trace.get_current_span().get_span_context()
        return f"{line} trace={format_trace_id(found.trace_id)}" if found.is_valid else line


class JsonLine(logging.Formatter):
    """The same as one JSON object; a stack trace is a field of it."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "severity": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": scrubbed(record.getMessage()),
        }
        found = trace.get_current_span().get_span_context()
        if found.is_valid:
            line |= {"trace_id": format_trace_id(found.trace_id), "span_id": format_span_id(found.span_id)}
        if record.exc_info:
            line["stack"] = scrubbed(self.formatException(record.exc_info))
        return json.dumps(line)
