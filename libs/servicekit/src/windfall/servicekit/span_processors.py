"""What becomes of a span besides being exported: it says what it belongs to, and what it lasted is measured."""

from typing import Final

from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from windfall.servicekit import metrics
from windfall.servicekit.instruments import ROUND_PART

CARRIED: Final = ("windfall.federation", "windfall.round", "windfall.site", "windfall.window_id")
"""What travels as baggage: identifiers that every service may know."""

PARTS: Final = {
    "join": "join",
    "pull": "pull",
    "train": "train",
    "contribution": "upload",
    "check": "check",
    "verify": "verify",
    "aggregate": "aggregate",
    "outer step": "outer-step",
    "commit": "commit",
    "evaluate": "evaluate",
}
"""Spans whose time is a part of a round's, and what the part is called."""


class Carried(SpanProcessor):
    """Writes the baggage on every span; what the span says of itself goes first."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        for key in CARRIED:
            value = baggage.get_baggage(key, parent_context)
            if isinstance(value, str) and key not in (span.attributes or {}):
                span.set_attribute(key, value[:64])


class Durations(SpanProcessor):
    """Measures the parts of a round; each value has its span as exemplar."""

    def on_end(self, span: ReadableSpan) -> None:
        part = PARTS.get(span.name)
        identity = span.get_span_context()
        if part is None or identity is None or span.start_time is None or span.end_time is None:
            return
        within = trace.set_span_in_context(trace.NonRecordingSpan(identity))
        metrics.record(ROUND_PART, (span.end_time - span.start_time) / 1e9, {"windfall.part": part}, within=within)
