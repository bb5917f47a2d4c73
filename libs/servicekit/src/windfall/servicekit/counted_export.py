"""A collector that is away never stops training: spans wait in a bounded buffer, then they are dropped and counted.

The exporter's own log repeats itself with every attempt. Here it is said once that the collector is away, and once that
it is back.
"""

import logging
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from windfall.servicekit import metrics
from windfall.servicekit.instruments import SPANS_DROPPED

log = logging.getLogger(__name__)


class Counted(SpanExporter):
    """Counts what an exporter could not deliver.

    Args:
        exporter: the one that does the work.
        to: where it delivers, for the log.
    """

    def __init__(self, exporter: SpanExporter, to: str) -> None:
        self._exporter = exporter
        self._to = to
        self._away = False
        self.dropped = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            if self._away:
                log.info("the collector at %s is back; %d spans were dropped", self._to, self.dropped)
            self._away = False
            return result
        self.dropped += len(spans)
        metrics.record(SPANS_DROPPED, len(spans))
        if not self._away:
            log.warning("the collector at %s takes no spans: they are dropped and counted until it does", self._to)
        self._away = True
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)
