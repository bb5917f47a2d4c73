"""What was said, as lines of a file: one CloudEvent in JSON (structured mode, with the tracing extension) per line."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from windfall.contracts.envelope import (
    CONTENT_TYPE,
    STRUCTURED,
    TRACEPARENT,
    TRACESTATE,
    Letter,
    Unreadable,
    seal,
    unseal,
)
from windfall.contracts.message import Message
from windfall.contracts.subjects import type_of
from windfall.servicekit.errors import Mistake


@dataclass(frozen=True)
class Said:
    """A sentence with who said it and the trace that it belongs to."""

    message: Message
    source: str
    """CloudEvents source, like ``/windfall/energy-watcher/site-a``."""
    trace: Mapping[str, str] = field(default_factory=dict)
    """W3C trace context headers; empty when it was said outside a trace."""

    @property
    def trace_id(self) -> str | None:
        """32 hexadecimal digits; none outside a trace."""
        parts = self.trace.get(TRACEPARENT, "").split("-")
        return parts[1] if len(parts) == 4 else None

    def letter(self) -> Letter:
        """The same sentence, ready to be said again under its own id."""
        return seal(self.message, self.source, self.trace)


def heard(letter: Letter) -> Said:
    """Read a letter as it came from a stream.

    Raises:
        Unreadable: it is not a sentence of the contracts.
    """
    message = unseal(letter)
    lowered = {key.lower(): value for key, value in letter.headers.items()}
    trace: dict[str, str] = {name: lowered[name] for name in (TRACEPARENT, TRACESTATE) if name in lowered}
    return Said(message, unquote(lowered.get("ce-source", "")), trace)


def line(said: Said) -> str:
    """One line of a recording, without its newline."""
    attributes = {
        "specversion": "1.0",
        "id": str(said.message.id),
        "source": said.source,
        "type": type_of(type(said.message)),
        "subject": said.message.whom,
        "time": said.message.at.isoformat(),
        "datacontenttype": "application/json",
        **said.trace,
        "data": said.message.model_dump(mode="json"),
    }
    return json.dumps(attributes, ensure_ascii=False)


def read(text: str) -> Said:
    """Read one line of a recording.

    Raises:
        Unreadable: it is not a CloudEvent of the contracts.
    """
    message = unseal(Letter("", {CONTENT_TYPE: STRUCTURED}, text.encode()))
    document = json.loads(text)
    trace: dict[str, str] = {name: str(document[name]) for name in (TRACEPARENT, TRACESTATE) if document.get(name)}
    return Said(message, str(document.get("source", "")), trace)


def read_file(path: Path) -> Iterator[Said]:
    """Every sentence of a recording, in order.

    Raises:
        Mistake: the file cannot be read, or a line is not a sentence; it names the line and the reason.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Mistake(f"cannot read {path} ({error})", "Give a recording that `windfall demo` wrote") from error
    for number, row in enumerate(text.splitlines(), start=1):
        if not row.strip():
            continue
        try:
            yield read(row)
        except Unreadable as error:
            raise Mistake(f"{path}, line {number}: {error}", "Mend or remove the line") from error
