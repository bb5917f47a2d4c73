"""Metrics: what :mod:`windfall.servicekit.instruments` declares, recorded, and shown to a collector.

They are sent over OTLP where ``OTEL_EXPORTER_OTLP_ENDPOINT`` is set; ``OTEL_METRICS_EXPORTER`` may say otherwise. Where
neither is, nothing is collected and recording costs a function call. A value recorded within a sampled span carries its
trace as an exemplar.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from opentelemetry import metrics
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader

from windfall.servicekit import otlp
from windfall.servicekit.errors import Mistake
from windfall.servicekit.instruments import Instrument, Shape
from windfall.servicekit.resource import resource_of

_EXPORTERS: Final = frozenset({"otlp", "prometheus", "none"})

Attributes = Mapping[str, str]
Read = Callable[[], Iterable[tuple[float, Attributes]]]
"""Each value with its attributes, as it stands when it is asked for."""

_CLOSING: Final[list[Callable[[], None]]] = []
"""What :func:`tear_down` ends."""


def provider(service: str, whom: str, readers: Sequence[MetricReader]) -> MeterProvider:
    """Names this process, as its spans do."""
    return MeterProvider(readers, resource_of(service, whom), shutdown_on_exit=False)


def exporters(environ: Mapping[str, str]) -> frozenset[str]:
    """Where metrics go: what ``OTEL_METRICS_EXPORTER`` lists of ``otlp``, ``prometheus`` and ``none``; else ``otlp``
    where there is an endpoint.

    Raises:
        Mistake: it lists something else.
    """
    named = {word for part in environ.get("OTEL_METRICS_EXPORTER", "").split(",") if (word := part.strip())}
    if unknown := sorted(named - _EXPORTERS):
        raise Mistake(
            f"OTEL_METRICS_EXPORTER: {', '.join(unknown)} is not known",
            f"List some of {', '.join(sorted(_EXPORTERS))}, separated by commas",
        )
    if not named:
        named = {"otlp"} if environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") else set()
    return frozenset(named - {"none"})


def set_up(service: str, whom: str, environ: Mapping[str, str] = os.environ, folder: Path | None = None) -> None:
    """Send what is measured where the environment says, and let it be asked for. Called once, by the composition root.

    Args:
        service: the one name of the service.
        whom: the site or federation that it serves.
        environ: the environment.
        folder: where a port of the system's choice is written down.

    Raises:
        Mistake: the environment says what cannot be done.
    """
    readers: list[MetricReader] = []
    # Imported here: it costs memory that most processes of a demo do not need.
    for exporter in sorted(exporters(environ)):
        if exporter == "otlp":
            from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

            readers.append(PeriodicExportingMetricReader(otlp.metric_exporter()))
        else:
            from windfall.servicekit.scrape import Scraped, door

            served = Scraped(door(environ), folder)
            _CLOSING.append(served.close)
            readers.append(served.reader)
    if readers:
        metrics.set_meter_provider(provider(service, whom, readers))


def tear_down() -> None:
    """Send what has not been sent, and be asked no more."""
    while _CLOSING:
        _CLOSING.pop()()
    found = metrics.get_meter_provider()
    if isinstance(found, MeterProvider):
        found.shutdown()


def record(
    instrument: Instrument,
    value: float,
    attributes: Attributes | None = None,
    *,
    within: Context | None = None,
    source: metrics.MeterProvider | None = None,
) -> None:
    """Add to a counter, put into a histogram, or set a gauge.

    Args:
        instrument: which.
        value: in its unit; what a counter grows by.
        attributes: the declared ones alone.
        within: whose span is the exemplar; none takes the current one.
        source: where it is kept; none takes what :func:`set_up` made.
    """
    found = _made(instrument, source)
    if instrument.shape is Shape.COUNTER:
        found.add(value, attributes, context=within)
    elif instrument.shape is Shape.HISTOGRAM:
        found.record(value, attributes, context=within)
    else:
        found.set(value, attributes, context=within)


@contextmanager
def timed(instrument: Instrument, attributes: Attributes) -> Iterator[None]:
    """How long the block takes, with whether it raised as ``windfall.outcome``: ``ok`` or ``error``."""
    begun = time.perf_counter()
    outcome = "error"
    try:
        yield
        outcome = "ok"
    finally:
        record(instrument, time.perf_counter() - begun, {**attributes, "windfall.outcome": outcome})


def observe(instrument: Instrument, read: Read, source: metrics.MeterProvider | None = None) -> None:
    """A counter or gauge whose value somebody keeps already: it is read when metrics are collected, in the exporter's
    thread."""

    def observed(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, attributes) for value, attributes in read()]

    meter = metrics.get_meter("windfall", meter_provider=source)
    make = meter.create_observable_counter if instrument.shape is Shape.COUNTER else meter.create_observable_gauge
    make(instrument.name, [observed], instrument.unit, instrument.sentence)


@cache
def _made(instrument: Instrument, source: metrics.MeterProvider | None) -> Any:
    meter = metrics.get_meter("windfall", meter_provider=source)
    if instrument.shape is Shape.COUNTER:
        return meter.create_counter(instrument.name, instrument.unit, instrument.sentence)
    if instrument.shape is Shape.GAUGE:
        return meter.create_gauge(instrument.name, instrument.unit, instrument.sentence)
    return meter.create_histogram(
        instrument.name,
        instrument.unit,
        instrument.sentence,
        explicit_bucket_boundaries_advisory=list(instrument.bounds),
    )
