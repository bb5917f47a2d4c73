"""Sums that a service keeps, as a collector sees them."""

import asyncio
import os
import sys
from functools import partial
from typing import Any

from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as rpc
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader, Sum

from windfall.servicekit import metrics
from windfall.servicekit.rpc import serve

SPEAKER = """
from windfall.servicekit import metrics
metrics.set_up("energy-watcher", "site-a")
metrics.sums("windfall.energy", "kW.h", "Energy.", lambda: [(1.5, {"windfall.state": "training"})])
metrics.tear_down()
"""


def test_a_sum_is_read_when_it_is_collected() -> None:
    reader = InMemoryMetricReader()
    source = metrics.provider("energy-watcher", "site-a", [reader])
    kept = {"training": 1.5}
    metrics.sums(
        "windfall.energy", "kW.h", "Energy.", lambda: [(v, {"windfall.state": k}) for k, v in kept.items()], source
    )
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
    metrics.sums("windfall.energy", "kW.h", "Energy.", lambda: [(1 / 0, {})])
    metrics.tear_down()


class Sink(rpc.MetricsServiceServicer):
    """An OTLP collector that keeps what it gets."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[pb.ExportMetricsServiceRequest] = asyncio.Queue()

    async def Export(  # noqa: N802
        self, request: pb.ExportMetricsServiceRequest, context: Any
    ) -> pb.ExportMetricsServiceResponse:
        self.got.put_nowait(request)
        return pb.ExportMetricsServiceResponse()


async def test_sums_reach_a_collector() -> None:
    sink = Sink()
    server = await serve("127.0.0.1:0", [partial(rpc.add_MetricsServiceServicer_to_server, sink)])
    try:
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{server.port}"}
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", SPEAKER, env=environment)
        assert await process.wait() == 0
        async with asyncio.timeout(10):
            request = await sink.got.get()
    finally:
        await server.stop()
    ((metric,),) = [scope.metrics for resource in request.resource_metrics for scope in resource.scope_metrics]
    (point,) = metric.sum.data_points
    assert (metric.name, metric.unit, point.as_double) == ("windfall.energy", "kW.h", 1.5)
