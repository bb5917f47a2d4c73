"""Spans really leave by OTLP when an endpoint is set; a collector that is away, or what is missing, stops nothing."""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from windfall.servicekit import otlp
from windfall.servicekit.counted_export import Bounded, Counted
from windfall.servicekit.errors import Mistake
from windfall.servicekit.natsserver import free_port
from windfall.servicekit.testing.collector import collecting

SPEAKER = """
import logging, sys
from pathlib import Path
from windfall.servicekit import metrics, telemetry
logging.basicConfig()
logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
metrics.set_up("energy-watcher", "site-a")
telemetry.set_up("energy-watcher", "site-a", Path(sys.argv[1]) if sys.argv[1:] else None)
with telemetry.span("pull", root=True, attributes={"windfall.site": "site-a"}):
    pass
telemetry.tear_down()
metrics.tear_down()
"""


async def speak(endpoint: str, *arguments: str, within_s: int = 1, **told: str) -> tuple[int, str]:
    limit = {"OTEL_EXPORTER_OTLP_TIMEOUT": str(within_s)}
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **limit, **told}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SPEAKER, *arguments), env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_spans_and_what_they_lasted_reach_a_collector() -> None:
    async with collecting() as collector:
        assert await speak(collector.endpoint, within_s=60) == (0, "")
    (span,) = collector.spans
    assert (span.service, span.name, span.attributes) == ("energy-watcher", "pull", {"windfall.site": "site-a"})
    (count,) = collector.series("windfall_round_part_duration_seconds_count")
    assert dict(count.labels)["job"] == "windfall/energy-watcher"
    assert (count.value, count.exemplars) == (1, (span.trace_id,))
    assert not collector.undeclared
    assert 'windfall_part="pull"' in collector.exposition()


async def test_a_collector_that_is_away_stops_nothing_and_is_said_once() -> None:
    code, said = await speak(f"http://127.0.0.1:{free_port()}")
    assert code == 0
    (line,) = said.splitlines()
    assert "takes no spans: they are dropped and counted until it does" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
async def test_a_certificate_that_is_missing_and_a_disk_that_is_full_stop_nothing_and_are_named() -> None:
    missing = {"OTEL_EXPORTER_OTLP_CERTIFICATE": "/nowhere/ca.crt"}
    code, said = await speak(f"https://127.0.0.1:{free_port()}", "/dev/full", **missing)
    assert code == 0
    certificate, *others = said.splitlines()
    assert "OTEL_EXPORTER_OTLP_CERTIFICATE is /nowhere/ca.crt, which cannot be read (No such file" in certificate
    # Each by a thread of its own.
    (file,) = (line for line in others if "the file /dev/full takes no spans" in line)
    assert "they are dropped and counted until it does" in file
    (collector,) = (line for line in others if line is not file)
    assert "takes no spans" in collector


def test_a_variable_that_says_what_cannot_be_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    for exporter in (otlp.span_exporter, otlp.metric_exporter):
        with pytest.raises(Mistake, match="OTEL_EXPORTER_OTLP_… is wrong: could not convert string to float: 'soon'"):
            exporter()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd")
    with pytest.raises(Mistake, match='Invalid value "zstd"'):
        otlp.span_exporter()


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
    exporter = Counted(collector, "the collector at nowhere")
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Bounded(exporter, room=4))
    tracer = provider.get_tracer("test")
    for _ in range(4):
        tracer.start_span("first").end()
    assert collector.begun.wait(60), "a full batch is exported at once"
    for _ in range(7):
        tracer.start_span("then").end()
    assert exporter.dropped == 3
    collector.let.set()
    provider.shutdown()
    assert (collector.took, exporter.dropped) == (8, 3)
    assert [record.getMessage() for record in caplog.records if "takes no spans" in record.getMessage()] == [
        "the collector at nowhere takes no spans: they are dropped and counted until it does"
    ]
