"""One trace per window, by the conventions, and never in the way of training."""

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, format_span_id, format_trace_id

from windfall.contracts.events import NodeReady, WindowOpened
from windfall.contracts.message import Message, derived_id
from windfall.contracts.subjects import site_streams
from windfall.servicekit.bus import Bus
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.counted_export import Counted
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.journal import Journal
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.service import Stand
from windfall.servicekit.span_processors import Carried
from windfall.servicekit.telemetry import JsonLines, outgoing_trace, span
from windfall.servicekit.testing.fixtures import started_server
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain

SITE = "site-a"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def traced(path: Path) -> tuple[TracerProvider, JsonLines]:
    provider = TracerProvider(
        resource=Resource({"service.name": "test", "windfall.whom": SITE}), shutdown_on_exit=False
    )
    lines = JsonLines(path)
    provider.add_span_processor(SimpleSpanProcessor(lines))
    return provider, lines


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def test_spans_are_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "traces.jsonl"
    provider, _ = traced(path)
    tracer = provider.get_tracer("test")
    with (
        tracer.start_as_current_span("outer", kind=SpanKind.SERVER) as outer,
        tracer.start_as_current_span("inner", attributes={"windfall.site": SITE, "n": 3}) as inner,
    ):
        pass
    provider.shutdown()
    first, second = read(path)
    assert first["name"] == "inner"
    assert first["trace_id"] == second["trace_id"] == format_trace_id(outer.get_span_context().trace_id)
    assert first["parent_id"] == second["span_id"] == format_span_id(outer.get_span_context().span_id)
    assert first["span_id"] == format_span_id(inner.get_span_context().span_id)
    assert second["parent_id"] is None
    assert second["kind"] == "server"
    assert first["attributes"] == {"windfall.site": SITE, "n": 3}
    assert first["resource"] == {"service.name": "test", "windfall.whom": SITE}
    assert second["start_unix_ns"] <= first["start_unix_ns"] <= first["end_unix_ns"] <= second["end_unix_ns"]


def test_a_span_that_breaks_says_so(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    provider, _ = traced(path)
    with pytest.raises(ZeroDivisionError), provider.get_tracer("test").start_as_current_span("work"):
        raise ZeroDivisionError
    provider.shutdown()
    assert read(path)[0]["status"] == "error"


def test_a_span_says_that_it_broke_and_not_with_which_words(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    with pytest.raises(FileNotFoundError), span("work"):
        raise FileNotFoundError(2, "no such file", "/home/bob/secret.txt")
    (said,) = kept.get_finished_spans()
    assert (said.status.status_code, said.status.description) == (StatusCode.ERROR, None)
    assert (dict(said.attributes or {}), said.events) == ({"error.type": "FileNotFoundError"}, ())
    assert "secret" not in said.to_json()


def test_two_processes_may_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    writers = [traced(path)[0] for _ in range(2)]
    for number in range(100):
        with writers[number % 2].get_tracer("test").start_as_current_span(f"span {number}"):
            pass
    for writer in writers:
        writer.shutdown()
    assert [line["name"] for line in read(path)] == [f"span {number}" for number in range(100)]


def test_a_file_that_cannot_be_opened_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for path in (tmp_path / "file" / "traces.jsonl", tmp_path):
        with pytest.raises(Mistake, match="WINDFALL_TRACES_FILE") as mistake:
            JsonLines(path)
        assert mistake.value.exit_code is ExitCode.RESOURCE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no disk that is always full")
def test_a_full_disk_neither_raises_nor_is_logged_as_a_crash(caplog: pytest.LogCaptureFixture) -> None:
    provider, lines = traced(Path("/dev/full"))
    counted = Counted(lines, "the file /dev/full")
    provider.add_span_processor(SimpleSpanProcessor(counted))
    for _ in range(2):
        with caplog.at_level(logging.DEBUG), provider.get_tracer("test").start_as_current_span("work"):
            pass
    assert lines.export([]) is SpanExportResult.FAILURE
    provider.shutdown()
    assert counted.dropped == 2
    assert caplog.text.count("takes no spans") == 1
    assert "Traceback" not in caplog.text
    assert "xception" not in caplog.text


class OneByte:
    """A file on a disk that has room for one more byte."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.room = 1

    def write(self, data: bytes) -> int:
        return int(self._real.write(data[: self.room]))

    def close(self) -> None:
        self._real.close()


def test_a_line_that_was_cut_costs_no_other_line(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    provider, lines = traced(path)
    tracer = provider.get_tracer("test")
    disk = OneByte(lines._file)
    lines._file = disk  # type: ignore[assignment]
    with tracer.start_as_current_span("cut"):
        pass
    disk.room = 1_000_000
    with tracer.start_as_current_span("whole"):
        pass
    provider.shutdown()
    cut, whole = path.read_text().splitlines()
    assert cut == "{"
    assert json.loads(whole)["name"] == "whole"


def test_a_span_has_the_parent_it_is_given(spans: Any) -> None:
    with span("first"):
        headers = outgoing_trace()
    with span("elsewhere"):
        with span("second", parent=headers, attributes={"kept": 1, "left-out": None}):
            pass
        with span("alone", root=True):
            pass
        with span("orphan", parent={}):
            pass
    (first,), (second,) = spans.named("first"), spans.named("second")
    (elsewhere,), (alone,), (orphan,) = spans.named("elsewhere"), spans.named("alone"), spans.named("orphan")
    assert second.parent.span_id == first.context.span_id
    assert second.context.trace_id == first.context.trace_id
    assert dict(second.attributes) == {"kept": 1}
    assert alone.parent is None
    assert orphan.parent is None
    assert len({each.context.trace_id for each in (first, elsewhere, alone, orphan)}) == 4


def test_fan_in_is_linked(spans: Any) -> None:
    headers = []
    for name in ("a", "b"):
        with span(name, root=True):
            headers.append(outgoing_trace())
    with span("merge", root=True, links=[*headers, {}, {"traceparent": "nonsense"}]):
        pass
    (merge,) = spans.named("merge")
    assert [link.context.trace_id for link in merge.links] == [
        spans.named(name)[0].context.trace_id for name in ("a", "b")
    ]


def test_without_a_span_there_is_nothing_to_pass_on() -> None:
    assert outgoing_trace() == {}


@pytest.fixture(params=["memory", "nats"])
async def make_bus(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    streams = site_streams(SITE)
    if request.param == "memory":
        domain = MemoryDomain(SITE)
        yield lambda service: MemoryBus(domain, service, streams)
        return
    async with started_server(tmp_path) as server:
        yield lambda service: NatsBus(server.url, service, streams, lambda mistake: None)


def stand_of(service: str, bus: Bus) -> Stand:
    journal = Journal(None, f"/windfall/{service}/{SITE}")
    return Stand(service, SITE, SystemClock(), journal, bus, Outbox(journal, bus))


async def test_one_trace_from_the_first_word_to_the_last(make_bus: Any, spans: Any) -> None:
    watcher, provisioner, profiler = (
        stand_of(service, make_bus(service)) for service in ("energy-watcher", "provisioner", "profiler")
    )
    done = asyncio.Event()

    async def provision(window: WindowOpened) -> None:
        answer = NodeReady(
            id=derived_id(window.id, NodeReady.topic, SITE),
            at=NOON,
            site=SITE,
            window_id=window.window_id,
            lease_id=uuid4(),
            lease_token=1,
            node="node-1",
            backend="process",
        )
        provisioner.journal.commit(say=[answer], heard=window.id)
        provisioner.outbox.wake()

    async def profile(ready: Message) -> None:
        done.set()

    provisioner.bus.hears(WindowOpened, SITE, provision)
    profiler.bus.hears(NodeReady, SITE, profile)
    stands = (profiler, provisioner, watcher)
    for stand in stands:
        await stand.rise()
    opened = WindowOpened(
        id=uuid4(), at=NOON, site=SITE, window_id=uuid4(), intensity_g_per_kwh=20, expected_close_at=None
    )
    with span("window", root=True):
        watcher.journal.commit(say=[opened])
    watcher.outbox.wake()
    await asyncio.wait_for(done.wait(), 60)
    for stand in stands:
        await stand.lie_down()
    chain = [
        ("window", SpanKind.INTERNAL),
        ("send windfall.v1.window.opened", SpanKind.PRODUCER),
        ("process windfall.v1.window.opened", SpanKind.CONSUMER),
        ("send windfall.v1.node.ready", SpanKind.PRODUCER),
        ("process windfall.v1.node.ready", SpanKind.CONSUMER),
    ]
    links = [spans.named(name)[0] for name, _ in chain]
    assert [each.kind for each in links] == [kind for _, kind in chain]
    assert len({each.context.trace_id for each in links}) == 1
    # Each follows from the one before: causality, not a fan from the first word.
    assert [each.parent and each.parent.span_id for each in links] == [
        None,
        *(each.context.span_id for each in links[:-1]),
    ]
    process = links[2].attributes
    assert process == {
        "messaging.system": "nats",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": f"windfall.v1.window.opened.{SITE}",
        "messaging.consumer.group.name": "provisioner",
        "messaging.message.id": str(opened.id),
        "messaging.message.body.size": len(opened.model_dump_json()),
    }
    send = links[1].attributes
    assert (send["messaging.operation.name"], send["messaging.operation.type"]) == ("send", "send")
    assert "messaging.consumer.group.name" not in send


PROCESS = """
import sys
from pathlib import Path
from windfall.servicekit import telemetry

telemetry.set_up("energy-watcher", "site-a", Path(sys.argv[1]), {})
with telemetry.span("work"):
    pass
telemetry.tear_down()
"""


def test_a_process_is_named_in_its_spans(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl"
    subprocess.run([sys.executable, "-W", "error", "-c", PROCESS, str(path)], check=True, env=dict(os.environ))
    (line,) = read(path)
    assert line["resource"].pop("service.instance.id").startswith("site-a.")
    assert line["resource"] == {
        "service.name": "energy-watcher",
        "service.namespace": "windfall",
        "windfall.whom": "site-a",
    }


NEVER_SET_UP = """
from windfall.servicekit import telemetry

with telemetry.span("hear", parent={"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}) as made:
    assert not made.is_recording() and telemetry.outgoing_trace() == {}
with telemetry.span("window", root=True, carried={"windfall.site": "site-a"}):
    assert telemetry.outgoing_trace() == {}
"""


def test_where_nobody_said_where_spans_go_none_is_made_and_nothing_travels() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", NEVER_SET_UP], check=True, env=dict(os.environ))


@pytest.mark.usefixtures("spans")
@pytest.mark.parametrize("name", ["traceparent", "tracestate", "baggage"])
def test_a_strangers_headers_that_are_no_ascii_are_passed_over(name: str) -> None:
    with span("hear", parent={name: "windfall.site=\udcff"}, links=({name: "\udcff"},)):
        assert "baggage" not in outgoing_trace()


def test_federation_round_site_and_window_travel_along_and_stand_on_every_span() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Carried())
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace_provider = trace._TRACER_PROVIDER
    trace._TRACER_PROVIDER = provider
    try:
        with span("window", root=True, carried={"windfall.site": SITE, "windfall.round": 7}):
            sent = outgoing_trace()
        with span("elsewhere", parent=sent), span("within", attributes={"windfall.site": "its own"}):
            assert outgoing_trace()["baggage"] == sent["baggage"]
        with span("another", root=True):
            assert "baggage" not in outgoing_trace()
    finally:
        trace._TRACER_PROVIDER = trace_provider
    found = {one.name: dict(one.attributes or {}) for one in exporter.get_finished_spans()}
    assert found["window"] == found["elsewhere"] == {"windfall.site": SITE, "windfall.round": "7"}
    assert found["within"] == {"windfall.site": "its own", "windfall.round": "7"}
    assert found["another"] == {}
