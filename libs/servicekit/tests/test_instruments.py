"""What Windfall measures: declared once, named as the conventions ask, and recorded from what is said."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from windfall.contracts import events
from windfall.contracts.message import Message
from windfall.servicekit import instruments as m
from windfall.servicekit import metrics
from windfall.servicekit.instruments import ALL, Shape
from windfall.servicekit.told import measurements
from windfall.servicekit.transferred import IN_FULL, Transferred

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
DIGEST = "0" * 64


def test_every_metric_has_a_name_of_its_own_a_unit_and_one_sentence() -> None:
    assert len({one.name for one in ALL}) == len(ALL) > 40
    assert len({one.prometheus for one in ALL}) == len(ALL)
    for one in ALL:
        assert re.fullmatch(r"[a-z][a-z0-9_.]*", one.name), one
        assert one.name.startswith(("windfall.", "messaging.", "rpc.", "hw.")), one
        assert one.unit and one.sentence.endswith(".") and one.sentence.count(". ") == 0, one
        assert bool(one.bounds) == (one.shape is Shape.HISTOGRAM), one
        assert re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", one.prometheus), one


@pytest.mark.parametrize(
    ("instrument", "name"),
    [
        (m.ENERGY, "windfall_energy_kW_h_total"),
        (m.ROUND_DURATION, "windfall_round_duration_seconds"),
        (m.TRANSFERRED, "windfall_transferred_bytes_total"),
        (m.TOKENS, "windfall_tokens_total"),
        (m.STORE_USE, "windfall_bus_store_use_ratio"),
        (m.LINK_RTT, "windfall_link_rtt_seconds"),
        (m.LINK_BANDWIDTH, "windfall_link_bandwidth_bytes_per_second"),
        (m.LOSS, "windfall_loss_nats"),
        (m.UNSAID, "windfall_outbox_unsaid"),
    ],
)
def test_prometheus_names_follow_the_compatibility_specification(instrument: m.Instrument, name: str) -> None:
    assert instrument.prometheus == name


def completed() -> events.RoundCompleted:
    return events.RoundCompleted(
        id=uuid4(),
        at=NOON,
        federation="fed",
        round=7,
        base_digest=DIGEST,
        model_digest=DIGEST,
        contributors=("site-a", "site-b"),
        tokens=1000,
        tokens_total=9000,
        steps=20,
        loss_nats=1.5,
        bytes_up=300,
        bytes_down=600,
    )


SENTENCES: list[Message] = [
    completed(),
    events.SignalStale(id=uuid4(), at=NOON, site="site-a", last_point_time=None, limit_s=60.0),
    events.WindowOpened(
        id=uuid4(), at=NOON, site="site-a", window_id=UUID(int=1), intensity_g_per_kwh=80.0, expected_close_at=None
    ),
    events.SiteLeft(id=uuid4(), at=NOON, site="site-a", federation="fed", attempt=1, reason="silent"),
]


@pytest.mark.parametrize("sentence", SENTENCES, ids=lambda one: type(one).__name__)
def test_a_sentence_measures_with_declared_attributes_alone(sentence: Message) -> None:
    found = list(measurements(sentence))
    assert found
    for one in found:
        assert one.instrument in ALL
        assert set(one.attributes) <= set(one.instrument.attributes), one


def test_a_round_says_all_its_numbers() -> None:
    found = {one.instrument.name: one.value for one in measurements(completed())}
    assert found["windfall.round"] == 7
    assert found["windfall.members"] == 2
    assert found["windfall.tokens"] == 1000
    assert found["windfall.loss"] == 1.5


@pytest.fixture
def collected() -> Iterator[tuple[MeterProvider, InMemoryMetricReader]]:
    reader = InMemoryMetricReader()
    source = metrics.provider("test", "site-a", [reader])
    yield source, reader
    source.shutdown()


def points(reader: InMemoryMetricReader) -> dict[str, Any]:
    data = reader.get_metrics_data()
    assert data is not None
    found = [
        metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics
    ]
    return {metric.name: list(metric.data.data_points) for metric in found}


def test_a_value_has_the_span_that_it_was_recorded_in_as_exemplar(
    collected: tuple[MeterProvider, InMemoryMetricReader],
) -> None:
    source, reader = collected
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with tracer.start_as_current_span("round") as span:
        metrics.record(m.ROUND_DURATION, 3.0, {"windfall.federation": "fed"}, source=source)
        within = trace.set_span_in_context(span)
    metrics.record(m.ROUND_PART, 0.5, {"windfall.part": "pull"}, within=within, source=source)
    trace_id = span.get_span_context().trace_id
    found = points(reader)
    for name in ("windfall.round.duration", "windfall.round.part.duration"):
        (point,) = found[name]
        (exemplar,) = point.exemplars
        assert exemplar.trace_id == trace_id, name
        assert list(point.explicit_bounds) == list(m.SECONDS)


def test_each_shape_is_recorded_as_what_it_is(collected: tuple[MeterProvider, InMemoryMetricReader]) -> None:
    source, reader = collected
    for _ in range(2):
        metrics.record(m.TOKENS, 5, {"windfall.federation": "fed"}, source=source)
        metrics.record(m.LOSS, 2.5, {"windfall.federation": "fed"}, source=source)
    metrics.record(m.LOSS, 2.0, {"windfall.federation": "fed"}, source=source)
    found = points(reader)
    assert found["windfall.tokens"][0].value == 10
    assert found["windfall.loss"][0].value == 2.0


def test_bytes_are_told_by_direction_and_codec(collected: tuple[MeterProvider, InMemoryMetricReader]) -> None:
    source, reader = collected
    crossed = Transferred("fed")
    crossed.show(source)
    for nbytes in (3, 4):
        crossed.add("up", "topk-ef", nbytes)
    crossed.add("down", IN_FULL, 100)
    (up, down) = points(reader)[m.TRANSFERRED.name]
    names = m.TRANSFERRED.attributes
    assert [up.attributes[name] for name in names] == ["fed", "up", "topk-ef"]
    assert [down.attributes[name] for name in names] == ["fed", "down", "fp32"]
    assert (up.value, down.value) == (7, 100)


def test_the_documents_table_is_this_files() -> None:
    page = (Path(__file__).parents[3] / "docs" / "telemetry.md").read_text()
    shown = page.split("<!-- instruments -->\n")[1].split("\n<!-- /instruments -->")[0]
    assert shown == m.table(), "run `python -m windfall.servicekit.instruments` and put what it prints there"
