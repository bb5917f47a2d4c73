"""Where the coordinators that the operator makes push what they measure: where the operator itself does."""

from collections.abc import Mapping
from typing import Final

_PREFIX: Final = "OTEL_"
_OF_ONE_PROCESS: Final = ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPORTER_PROMETHEUS_")
_HEADERS: Final = "HEADERS"
_FILES: Final = ("CERTIFICATE", "KEY")


def passed_on(environment: Mapping[str, str], authority: str) -> dict[str, str]:
    """OpenTelemetry's variables of the operator's environment that say the same to another pod.

    What would be a secret in a ConfigMap stays behind, and so does the name of a file, except that of the fleet's
    authority where every pod has it.

    Args:
        authority: that name.
    """
    return {
        name: value
        for name, value in sorted(environment.items())
        if name.startswith(_PREFIX)
        and not name.startswith(_OF_ONE_PROCESS)
        and _HEADERS not in name
        and (not name.endswith(_FILES) or value == authority)
    }
