"""Spans really leave by OTLP when an endpoint is set, and an unreachable collector stops nothing."""

import asyncio
import os
import sys
from functools import partial
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as rpc

from windfall.servicekit.natsserver import free_port
from windfall.servicekit.rpc import serve

SPEAKER = """
from windfall.servicekit import telemetry
telemetry.set_up("energy-watcher", "site-a", None)
with telemetry.span("window", root=True, attributes={"windfall.site": "site-a"}):
    pass
telemetry.tear_down()
"""


class Sink(rpc.TraceServiceServicer):
    """An OTLP collector that keeps what it gets."""

    def __init__(self) -> None:
        self.got: asyncio.Queue[pb.ExportTraceServiceRequest] = asyncio.Queue()

    async def Export(  # noqa: N802
        self, request: pb.ExportTraceServiceRequest, context: Any
    ) -> pb.ExportTraceServiceResponse:
        self.got.put_nowait(request)
        return pb.ExportTraceServiceResponse()


async def speak(endpoint: str) -> int:
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SPEAKER, env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    return await process.wait()


async def test_spans_reach_a_collector() -> None:
    sink = Sink()
    server = await serve("127.0.0.1:0", [partial(rpc.add_TraceServiceServicer_to_server, sink)])
    try:
        assert await speak(f"http://127.0.0.1:{server.port}") == 0
        async with asyncio.timeout(10):
            request = await sink.got.get()
    finally:
        await server.stop()
    (resource,) = request.resource_spans
    named = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
    assert (named["service.name"], named["windfall.whom"]) == ("energy-watcher", "site-a")
    (span,) = resource.scope_spans[0].spans
    assert span.name == "window"


@pytest.mark.timeout(30)
async def test_a_collector_that_is_away_stops_nothing() -> None:
    assert await speak(f"http://127.0.0.1:{free_port()}") == 0
