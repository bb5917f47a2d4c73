"""A collector that keeps what it gets: OTLP over gRPC in, spans and Prometheus series out.

It ships because whoever changes a dashboard or an alert wants to know, without a stack of containers, whether its
queries have data. Series are named as OpenTelemetry's Prometheus compatibility specification says.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_rpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_rpc

from windfall.servicekit.instruments import ALL
from windfall.servicekit.rpc import serve

_DECLARED: Final = {one.name: one for one in ALL}


@dataclass(frozen=True)
class Span:
    """One span, as far as tests and people ask."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str]
    links: tuple[str, ...]
    """Trace ids of what it follows."""


@dataclass(frozen=True)
class Series:
    """One Prometheus series and its newest value."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float
    exemplars: tuple[str, ...] = ()
    """Trace ids."""


@dataclass
class Collector:
    """What has arrived so far.

    Attributes:
        endpoint: for ``OTEL_EXPORTER_OTLP_ENDPOINT``.
        spans: in the order of arrival.
        undeclared: metrics that :mod:`windfall.servicekit.instruments` does not know.
    """

    endpoint: str = ""
    spans: list[Span] = field(default_factory=list)
    undeclared: set[str] = field(default_factory=set)
    _series: dict[tuple[str, tuple[tuple[str, str], ...]], Series] = field(default_factory=dict)

    def series(self, name: str | None = None) -> list[Series]:
        """All series, or those of one name, ordered."""
        return sorted(
            (one for one in self._series.values() if name is None or one.name == name),
            key=lambda one: (one.name, one.labels),
        )

    def exposition(self) -> str:
        """Everything in Prometheus's text format, for a real one to scrape."""
        return "".join(f"{one.name}{{{_labelled(one)}}} {one.value!r}\n" for one in self.series())

    def take_spans(self, request: trace_pb.ExportTraceServiceRequest) -> None:
        """Keep what one export brought."""
        for group in request.resource_spans:
            service = _attributes(group.resource.attributes).get("service.name", "")
            for scope in group.scope_spans:
                for span in scope.spans:
                    self.spans.append(
                        Span(
                            service,
                            span.name,
                            span.trace_id.hex(),
                            span.span_id.hex(),
                            span.parent_span_id.hex(),
                            _attributes(span.attributes),
                            tuple(link.trace_id.hex() for link in span.links),
                        )
                    )

    def take_metrics(self, request: metrics_pb.ExportMetricsServiceRequest) -> None:
        """Keep the newest value of every series."""
        for group in request.resource_metrics:
            resource = _attributes(group.resource.attributes)
            origin = {
                "job": f"{resource.get('service.namespace')}/{resource.get('service.name')}",
                "instance": resource.get("service.instance.id", ""),
            }
            for scope in group.scope_metrics:
                for metric in scope.metrics:
                    for one in self._of(metric, origin):
                        self._series[one.name, one.labels] = one

    def _of(self, metric: Any, origin: dict[str, str]) -> Iterator[Series]:
        declared = _DECLARED.get(metric.name)
        if declared is None:
            self.undeclared.add(metric.name)
            return
        name = declared.prometheus
        kind = metric.WhichOneof("data")
        for point in getattr(metric, kind).data_points:
            labels = {**origin, **{k.replace(".", "_"): v for k, v in _attributes(point.attributes).items()}}
            exemplars = tuple(exemplar.trace_id.hex() for exemplar in point.exemplars)
            if kind == "histogram":
                yield Series(f"{name}_count", _key(labels), float(point.count), exemplars)
                yield Series(f"{name}_sum", _key(labels), point.sum, exemplars)
                total = 0
                for bound, count in zip([*point.explicit_bounds, float("inf")], point.bucket_counts, strict=True):
                    total += count
                    le = "+Inf" if bound == float("inf") else f"{bound:g}"
                    yield Series(f"{name}_bucket", _key({**labels, "le": le}), float(total), exemplars)
            else:
                value = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
                yield Series(name, _key(labels), float(value), exemplars)


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector on a free port of loopback, for the time of the block."""
    collector = Collector()
    registrations = [
        partial(trace_rpc.add_TraceServiceServicer_to_server, _Traces(collector)),
        partial(metrics_rpc.add_MetricsServiceServicer_to_server, _Metrics(collector)),
    ]
    server = await serve("127.0.0.1:0", registrations)
    collector.endpoint = f"http://127.0.0.1:{server.port}"
    try:
        yield collector
    finally:
        await server.stop()


class _Traces(trace_rpc.TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def Export(  # noqa: N802 - gRPC's name
        self, request: trace_pb.ExportTraceServiceRequest, context: Any
    ) -> trace_pb.ExportTraceServiceResponse:
        self._collector.take_spans(request)
        return trace_pb.ExportTraceServiceResponse()


class _Metrics(metrics_rpc.MetricsServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def Export(  # noqa: N802 - gRPC's name
        self, request: metrics_pb.ExportMetricsServiceRequest, context: Any
    ) -> metrics_pb.ExportMetricsServiceResponse:
        self._collector.take_metrics(request)
        return metrics_pb.ExportMetricsServiceResponse()


def _attributes(pairs: Any) -> dict[str, str]:
    found = {}
    for pair in pairs:
        kind = pair.value.WhichOneof("value")
        found[pair.key] = str(getattr(pair.value, kind)) if kind else ""
    return found


def _key(labels: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def _labelled(one: Series) -> str:
    return ",".join(f'{key}="{value}"' for key, value in one.labels)
