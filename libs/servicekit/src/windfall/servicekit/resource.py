"""Who speaks: the same for spans and for metrics, so that one leads to the other."""

import os

from opentelemetry.sdk.resources import OTELResourceDetector, Resource


def resource_of(service: str, whom: str) -> Resource:
    """This process, in the words of OpenTelemetry's semantic conventions for services, with what
    ``OTEL_RESOURCE_ATTRIBUTES`` adds."""
    ours = Resource(
        {
            "service.name": service,
            "service.namespace": "windfall",
            "service.instance.id": f"{whom}.{os.getpid()}",
            "windfall.whom": whom,
        }
    )
    return OTELResourceDetector().detect().merge(ours)
