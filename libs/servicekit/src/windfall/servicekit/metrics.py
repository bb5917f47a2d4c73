"""Metrics: sums that a service already keeps, shown to a collector when ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set.

Without one nothing is collected and an instrument costs nothing. Names are dotted and start with ``windfall.``, units
are UCUM's (``kW.h``, ``kg``), as OpenTelemetry's semantic conventions ask.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource

Sums = Callable[[], Iterable[tuple[float, Mapping[str, str]]]]
"""Each sum with its attributes, as it stands when it is asked for. It only ever grows."""


def provider(service: str, whom: str, readers: Sequence[MetricReader]) -> MeterProvider:
    """Names this process, as its spans do."""
    resource = Resource({"service.name": service, "service.namespace": "windfall", "windfall.whom": whom})
    return MeterProvider(readers, resource, shutdown_on_exit=False)


def set_up(service: str, whom: str, environ: Mapping[str, str] = os.environ) -> None:
    """Send what is measured where the environment says. Called once, by the composition root."""
    if not environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        return
    # Imported here: it costs memory that most processes of a demo do not need.
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    metrics.set_meter_provider(provider(service, whom, [PeriodicExportingMetricReader(OTLPMetricExporter())]))


def tear_down() -> None:
    """Send what has not been sent."""
    found = metrics.get_meter_provider()
    if isinstance(found, MeterProvider):
        found.shutdown()


def sums(name: str, unit: str, description: str, read: Sums, source: metrics.MeterProvider | None = None) -> None:
    """An observable counter.

    Args:
        name: dotted, like ``windfall.energy``.
        unit: in UCUM.
        description: one sentence.
        read: called when the sums are collected, in the exporter's thread.
        source: where the counter belongs; none takes what :func:`set_up` made.
    """

    def observed(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, attributes) for value, attributes in read()]

    meter = metrics.get_meter("windfall", meter_provider=source)
    meter.create_observable_counter(name, [observed], unit, description)
