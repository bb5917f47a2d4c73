"""Traces: one per window, from the signal to the aggregated model, over NATS headers and gRPC metadata.

Federation, round, site and window travel along as W3C baggage and stand on every span that follows, so that all spans
of a round can be found, whoever made them.

Spans are OpenTelemetry's. They go as JSON lines to a file when one is set (the demo, a rehearsal) and by OTLP when
``OTEL_EXPORTER_OTLP_ENDPOINT`` is. Without either, spans cost almost nothing; in a process that never called
:func:`set_up` none is made and nothing travels. Names and attributes follow the
messaging and RPC semantic conventions (1.4x, ``messaging.operation.name``); our own start with ``windfall.``.
"""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from opentelemetry import baggage, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach, get_current
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import INVALID_SPAN, Link, Span, SpanKind, StatusCode, format_span_id, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from windfall.servicekit import metrics, otlp
from windfall.servicekit.counted_export import Bounded, Counted
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.resource import resource_of
from windfall.servicekit.span_processors import Carried, Durations

log = logging.getLogger(__name__)

_W3C = CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
_LIMITS = SpanLimits(max_span_attribute_length=256)
"""What a stranger says of itself is an attribute too."""
Attribute = str | int | float | bool


class JsonLines(SpanExporter):
    """Spans as one JSON object a line, each batch in one write, so that a cut file loses at most its last line.

    Raises:
        Mistake: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._torn = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: what a full disk did not take is dropped here, not raised again when the file is closed.
            self._file = path.open("ab", buffering=0)
        except OSError as error:
            raise Mistake(
                f"cannot write spans to {path} ({error.strerror})",
                "Set WINDFALL_TRACES_FILE to a file that this user may write, or unset it",
                ExitCode.RESOURCE,
            ) from error

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        lines = "".join(json.dumps(_line(span)) + "\n" for span in spans).encode()
        if self._torn:
            lines = b"\n" + lines
        try:
            written = self._file.write(lines)
        except OSError:
            # A full disk must not stop training; :class:`Counted` counts what it did not take.
            return SpanExportResult.FAILURE
        self._torn = written != len(lines)
        return SpanExportResult.FAILURE if self._torn else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._file.close()


def _line(span: ReadableSpan) -> dict[str, object]:
    identity = span.get_span_context()
    assert identity is not None
    return {
        "name": span.name,
        "kind": span.kind.name.lower(),
        "trace_id": format_trace_id(identity.trace_id),
        "span_id": format_span_id(identity.span_id),
        "parent_id": format_span_id(span.parent.span_id) if span.parent else None,
        "start_unix_ns": span.start_time,
        "end_unix_ns": span.end_time,
        "status": span.status.status_code.name.lower(),
        "attributes": dict(span.attributes or {}),
        "links": [
            {"trace_id": format_trace_id(link.context.trace_id), "span_id": format_span_id(link.context.span_id)}
            for link in span.links
        ],
        "resource": {key: value for key, value in span.resource.attributes.items() if not key.startswith("telemetry.")},
    }


def set_up(service: str, whom: str, traces_file: Path | None, environ: Mapping[str, str] = os.environ) -> None:
    """Name this process and send its spans where the settings say. Called once, by the composition root.

    Raises:
        Mistake: the file cannot be opened, or a variable of the exporter's says what cannot be.
    """
    provider = TracerProvider(resource=resource_of(service, whom), shutdown_on_exit=False, span_limits=_LIMITS)
    provider.add_span_processor(Carried())
    if traces_file is not None:
        provider.add_span_processor(SimpleSpanProcessor(Counted(JsonLines(traces_file), f"the file {traces_file}")))
    if metrics.exporters(environ):
        provider.add_span_processor(Durations())
    if endpoint := environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        for missing in otlp.unreadable_files(environ):
            log.warning("%s: what is to be seen here may not arrive until it can be, at the next start", missing)
        provider.add_span_processor(Bounded(Counted(otlp.span_exporter(), f"the collector at {endpoint}")))
    trace.set_tracer_provider(provider)


def tear_down() -> None:
    """Flush what has not been exported."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.shutdown()


@contextmanager
def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: Mapping[str, str] | None = None,
    links: Sequence[Mapping[str, str]] = (),
    root: bool = False,
    attributes: Mapping[str, Attribute | None] | None = None,
    carried: Mapping[str, Attribute] | None = None,
) -> Iterator[Span]:
    """One span, current within the block. When the block raises, it says so and names the error's type (``error.type``
    of the semantic conventions); the error's text and stack stay in this process: spans travel further than logs.

    Args:
        name: low-cardinality name.
        kind: OpenTelemetry span kind.
        parent: W3C headers of the parent; none takes the current span.
        links: W3C headers of the spans that this one follows without being their child (fan-in).
        root: start a trace of its own whatever is current.
        attributes: by their dotted names; those that are none are left out.
        carried: what of :data:`~windfall.servicekit.span_processors.CARRIED` goes along from here on.
    """
    if not _made():
        yield INVALID_SPAN
        return
    context = Context() if root else _extracted(parent) if parent is not None else get_current()
    for key, value in (carried or {}).items():
        context = baggage.set_baggage(key, str(value), context)
    found = (trace.get_current_span(_extracted(link)).get_span_context() for link in links)
    # The tracer makes only its span current: what travels along has to be made so as well.
    before = attach(context)
    try:
        with trace.get_tracer("windfall").start_as_current_span(
            name,
            kind=kind,
            links=[Link(linked) for linked in found if linked.is_valid],
            attributes={key: value for key, value in (attributes or {}).items() if value is not None},
            record_exception=False,
            set_status_on_exception=False,
        ) as current:
            try:
                yield current
            except Exception as error:
                current.set_status(StatusCode.ERROR)
                current.set_attribute("error.type", type(error).__qualname__)
                raise
    finally:
        detach(before)


def past(name: str, began_unix_ns: int, attributes: Mapping[str, Attribute]) -> None:
    """A span of something that is over: from then until now, a child of the current one."""
    trace.get_tracer("windfall").start_span(name, start_time=began_unix_ns, attributes=attributes).end()


def outgoing_trace() -> dict[str, str]:
    """W3C headers of the current span and its baggage; empty without either."""
    headers: dict[str, str] = {}
    if _made():
        _W3C.inject(headers)
    return headers


def _extracted(headers: Mapping[str, str]) -> Context:
    """What W3C headers say. They are ASCII; of anything else, which a stranger may send, nothing is believed."""
    return _W3C.extract({name: value for name, value in headers.items() if value.isascii()})


def _made() -> bool:
    """Whether anybody has said where spans go."""
    return isinstance(trace.get_tracer_provider(), TracerProvider)
