"""A collector that is away, or a disk that is full, never stops training: spans wait in a bounded buffer, then they are
dropped and counted.

The exporter's own log repeats itself with every attempt. Here it is said once that spans are not taken, and once that
they are again.
"""

import logging
from collections.abc import Sequence
from threading import Lock
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from windfall.servicekit import metrics
from windfall.servicekit.instruments import SPANS_DROPPED

log = logging.getLogger(__name__)

ROOM: Final = 2048
"""Spans that may wait for a collector."""


class Counted(SpanExporter):
    """Counts what an exporter could not deliver.

    Args:
        exporter: the one that does the work.
        to: where it delivers, as the log calls it.
    """

    def __init__(self, exporter: SpanExporter, to: str) -> None:
        self._exporter = exporter
        self._to = to
        self._away = False
        self.dropped = 0
        self.taken = 0
        """Spans that were handed over to be delivered, whatever became of them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.taken += len(spans)
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._away:
                log.info("%s takes spans again; %d were dropped", self._to, self.dropped)
            self._away = False
            return result
        self.drop(len(spans))
        return result

    def drop(self, count: int) -> None:
        """So many spans are lost."""
        self.dropped += count
        metrics.record(SPANS_DROPPED, count)
        if not self._away:
            log.warning("%s takes no spans: they are dropped and counted until it does", self._to)
        self._away = True

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)


class Bounded(SpanProcessor):
    """OpenTelemetry's batches, with a count of the spans for which there was no room: the SDK drops those in silence.

    Args:
        room: spans that may wait.
    """

    def __init__(self, exporter: Counted, room: int = ROOM) -> None:
        self._exporter = exporter
        self._room = room
        self._batches = BatchSpanProcessor(exporter, max_queue_size=room, max_export_batch_size=min(512, room))
        self._handed = 0
        self._lock = Lock()

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        self._batches.on_start(span, parent_context)

    def on_end(self, span: ReadableSpan) -> None:
        identity = span.get_span_context()
        if identity is None or not identity.trace_flags.sampled:
            return
        with self._lock:
            full = self._handed - self._exporter.taken >= self._room
            self._handed += not full
        if full:
            self._exporter.drop(1)
        else:
            self._batches.on_end(span)

    def shutdown(self) -> None:
        self._batches.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._batches.force_flush(timeout_millis)
