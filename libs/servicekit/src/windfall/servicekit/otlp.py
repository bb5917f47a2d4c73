"""OpenTelemetry's exporters over OTLP, as its own variables say, with their mistakes in one line.

By itself an exporter passes over a certificate's file that is not there, and ends the process with a traceback for a
value that it cannot read. To be seen is worth less than to train: what is missing is said, and the service goes on.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from windfall.servicekit.errors import Mistake

if TYPE_CHECKING:
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

T = TypeVar("T")

_FILES: Final = tuple(
    f"OTEL_EXPORTER_OTLP_{of}{file}"
    for of in ("", "TRACES_", "METRICS_")
    for file in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
)


def span_exporter() -> "OTLPSpanExporter":
    """Raises:
    Mistake: a variable says what cannot be.
    """
    # Imported here: it costs 10 MiB that most processes of a demo do not need.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    return _made(OTLPSpanExporter)


def metric_exporter() -> "OTLPMetricExporter":
    """Raises:
    Mistake: a variable says what cannot be.
    """
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    return _made(OTLPMetricExporter)


def unreadable_files(environ: Mapping[str, str]) -> Iterator[str]:
    """Each file of TLS that the variables name and this process cannot read, as a sentence."""
    for name in _FILES:
        if path := environ.get(name):
            try:
                with Path(path).open("rb"):
                    pass
            except OSError as error:
                yield f"{name} is {path}, which cannot be read ({error.strerror})"


def _made(exporter: Callable[[], T]) -> T:
    from opentelemetry.exporter.otlp.proto.grpc.exporter import InvalidCompressionValueException

    try:
        return exporter()
    except (ValueError, InvalidCompressionValueException) as error:
        raise Mistake(
            f"a variable OTEL_EXPORTER_OTLP_… is wrong: {error}",
            "Set it to what OpenTelemetry's specification of OTLP exporters allows, or unset it",
        ) from error
