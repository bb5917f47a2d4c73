"""Sums that a service keeps, as a collector sees them."""

import asyncio
import os
import sys

import pytest
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, Sum

from windfall.servicekit import instruments, metrics
from windfall.servicekit.testing.collector import collecting

SPEAKER = """
from windfall.servicekit import instruments, metrics
metrics.set_up("energy-watcher", "site-a")
metrics.observe(instruments.ENERGY, lambda: [(1.5, {"windfall.state": "training"})])
metrics.tear_down()
"""


def test_a_sum_is_read_when_it_is_collected() -> None:
    reader = InMemoryMetricReader()
    source = metrics.provider("energy-watcher", "site-a", [reader])
    kept = {"training": 1.5}
    metrics.observe(instruments.ENERGY, lambda: [(v, {"windfall.state": k}) for k, v in kept.items()], source)
    for expected in ({"training": 1.5}, {"training": 2.5, "idle": 0.25}):
        kept.update(expected)
        data = reader.get_metrics_data()
        assert data is not None
        (resource,) = data.resource_metrics
        assert resource.resource.attributes["service.name"] == "energy-watcher"
        assert resource.resource.attributes["windfall.whom"] == "site-a"
        ((metric,),) = [scope.metrics for scope in resource.scope_metrics]
        assert (metric.name, metric.unit) == ("windfall.energy", "kW.h")
        assert isinstance(metric.data, Sum) and metric.data.is_monotonic
        assert metric.data.aggregation_temporality is AggregationTemporality.CUMULATIVE
        found = {str((p.attributes or {})["windfall.state"]): p.value for p in metric.data.data_points}
        assert found == expected
    source.shutdown()


def test_without_a_collector_nothing_is_read() -> None:
    metrics.set_up("energy-watcher", "site-a", {})
    metrics.observe(instruments.ENERGY, lambda: [(1 / 0, {})])
    metrics.tear_down()


def test_what_the_environment_tells_of_the_process_stands_on_its_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=one-profiler-0,service.name=mine")
    reader = InMemoryMetricReader()
    source = metrics.provider("profiler", "site-a", [reader])
    metrics.record(instruments.LAG, 1, source=source)
    data = reader.get_metrics_data()
    source.shutdown()
    assert data is not None
    attributes = data.resource_metrics[0].resource.attributes
    assert (attributes["k8s.pod.name"], attributes["service.name"]) == ("one-profiler-0", "profiler")


async def test_sums_reach_a_collector() -> None:
    async with collecting() as collector:
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", SPEAKER, env=environment)
        assert await process.wait() == 0
    (series,) = collector.series()
    assert (series.name, series.value) == ("windfall_energy_kW_h_total", 1.5)
    assert dict(series.labels)["windfall_state"] == "training"
