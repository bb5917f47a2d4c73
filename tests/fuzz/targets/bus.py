"""Letters as they come from NATS, and the trace that they carry."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import get_tracer_provider, set_tracer_provider

from tests.fuzz.target import Target, of_file, text
from windfall.cli.recording import read_file
from windfall.contracts.envelope import BAGGAGE, TRACEPARENT, TRACESTATE, Letter, Unreadable, parse, unseal
from windfall.contracts.subjects import KINDS
from windfall.servicekit.errors import Mistake
from windfall.servicekit.telemetry import outgoing_trace, span

_GOLDEN: Final = Path(__file__).parents[3] / "libs/contracts/tests/golden"
_END: Final = b"\r\n\r\n"


def _golden() -> list[dict[str, object]]:
    return [json.loads(path.read_text()) for path in sorted(_GOLDEN.glob("*.json"))]


def _letters() -> Sequence[bytes]:
    """As NATS writes them on the wire: a subject, headers, an empty line, a body."""
    found = []
    for one in _golden():
        headers, body = one["headers"], one["body"]
        assert isinstance(headers, dict)
        lines = [str(one["subject"]), *(f"{name}: {value}" for name, value in headers.items())]
        found.append("\r\n".join(lines).encode() + _END + json.dumps(body).encode())
    structured = {"specversion": "1.0", "type": "x", "id": "y", "time": "2026-01-01T00:00:00Z", "data": {}}
    found.append(b"\r\ncontent-type: application/cloudevents+json" + _END + json.dumps(structured).encode())
    return found


def _letter(data: bytes) -> Letter:
    head, _, body = data.partition(_END)
    subject, *lines = text(head).split("\r\n")
    return Letter(subject, {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}, body)


def _bodies() -> Sequence[bytes]:
    return [f"{one['topic']}\n{json.dumps(one['body'])}".encode() for one in _golden_with_topics()]


def _golden_with_topics() -> list[dict[str, object]]:
    topics = [path.stem for path in sorted(_GOLDEN.glob("*.json"))]
    return [one | {"topic": topic} for topic, one in zip(topics, _golden(), strict=True) if topic in KINDS]


def _body(data: bytes) -> object:
    topic, _, body = data.partition(b"\n")
    return parse(text(topic), body)


def _lines() -> Sequence[bytes]:
    found = []
    for one in _golden():
        headers, body = one["headers"], one["body"]
        assert isinstance(headers, dict)
        line = {key.removeprefix("ce-"): value for key, value in headers.items() if key.startswith("ce-")}
        found.append(json.dumps(line | {"data": body}).encode() + b"\n")
    return found


def _trace(data: bytes) -> object:
    """With spans that are really made; whatever comes, the letter is heard."""
    if not isinstance(get_tracer_provider(), TracerProvider):
        set_tracer_provider(TracerProvider(shutdown_on_exit=False))
    parent, state, baggage = (*data.split(b"\n", 2), b"", b"")[:3]
    headers = {TRACEPARENT: text(parent), TRACESTATE: text(state), BAGGAGE: text(baggage)}
    with span("hear", parent=headers, links=(headers,)):
        return outgoing_trace()


TARGETS: Final = (
    Target("letter", _letters, lambda data: unseal(_letter(data)), (Unreadable,)),
    Target("letter body", _bodies, _body, (Unreadable,)),
    of_file("recording", _lines, lambda path: list(read_file(path)), (Mistake,)),
    Target(
        "traceparent and baggage",
        lambda: [
            b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\nwindfall=1\nwindfall.site=site-a,windfall.round=7"
        ],
        _trace,
    ),
)
