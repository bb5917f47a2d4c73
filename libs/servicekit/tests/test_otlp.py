"""Spans really leave by OTLP when an endpoint is set, and an unreachable collector stops nothing."""

import asyncio
import os
import sys
from collections.abc import Sequence
from threading import Event

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from windfall.servicekit.counted_export import Bounded, Counted
from windfall.servicekit.natsserver import free_port
from windfall.servicekit.testing.collector import collecting

SPEAKER = """
import logging
from windfall.servicekit import metrics, telemetry
logging.basicConfig()
logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
metrics.set_up("energy-watcher", "site-a")
telemetry.set_up("energy-watcher", "site-a", None)
with telemetry.span("pull", root=True, attributes={"windfall.site": "site-a"}):
    pass
telemetry.tear_down()
metrics.tear_down()
"""


async def speak(endpoint: str) -> tuple[int, str]:
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SPEAKER, env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_spans_and_what_they_lasted_reach_a_collector() -> None:
    async with collecting() as collector:
        assert await speak(collector.endpoint) == (0, "")
    (span,) = collector.spans
    assert (span.service, span.name, span.attributes) == ("energy-watcher", "pull", {"windfall.site": "site-a"})
    (count,) = collector.series("windfall_round_part_duration_seconds_count")
    assert dict(count.labels)["job"] == "windfall/energy-watcher"
    assert (count.value, count.exemplars) == (1, (span.trace_id,))
    assert not collector.undeclared
    assert 'windfall_part="pull"' in collector.exposition()


@pytest.mark.timeout(30)
async def test_a_collector_that_is_away_stops_nothing_and_is_said_once() -> None:
    code, said = await speak(f"http://127.0.0.1:{free_port()}")
    assert code == 0
    (line,) = said.splitlines()
    assert "takes no spans: they are dropped and counted until it does" in line


class Slow(SpanExporter):
    """A collector that takes nothing until it is let."""

    def __init__(self) -> None:
        self.begun, self.let = Event(), Event()
        self.took = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.begun.set()
        self.let.wait()
        self.took += len(spans)
        return SpanExportResult.SUCCESS


def test_a_span_without_room_is_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    collector = Slow()
    exporter = Counted(collector, "nowhere")
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Bounded(exporter, room=4))
    tracer = provider.get_tracer("test")
    for _ in range(4):
        tracer.start_span("first").end()
    assert collector.begun.wait(10), "a full batch is exported at once"
    for _ in range(7):
        tracer.start_span("then").end()
    assert exporter.dropped == 3
    collector.let.set()
    provider.shutdown()
    assert (collector.took, exporter.dropped) == (8, 3)
    assert [record.getMessage() for record in caplog.records if "takes no spans" in record.getMessage()] == [
        "the collector at nowhere takes no spans: they are dropped and counted until it does"
    ]
