"""What the tests of this package share."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from windfall.servicekit.testing.kube_examples import WIDGET, WIDGET_SPEC, Space, defined, typed, until


class Spans(SpanProcessor):
    """What has ended since the test began."""

    def __init__(self) -> None:
        self._ended: list[ReadableSpan] | None = []

    def on_end(self, span: ReadableSpan) -> None:
        if self._ended is not None:
            self._ended.append(span)

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._ended or () if span.name == name]

    def close(self) -> None:
        self._ended = None


@pytest.fixture
def spans() -> Iterator[Spans]:
    """Spans of this test. A process has one tracer provider for good, so it is made once and listened to here."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    found = Spans()
    provider.add_span_processor(found)
    yield found
    found.close()


@pytest.fixture
async def widgets(space: Space) -> Space:
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    await defined(space.cluster, WIDGET, WIDGET_SPEC, {"status": {}, "scale": scale})
    await until(lambda: typed(space))
    return space
