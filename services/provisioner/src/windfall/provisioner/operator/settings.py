"""What the operator is told."""

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field

from windfall.servicekit.kube import Connection
from windfall.servicekit.settings import Settings


class OperatorSettings(Settings):
    """One namespace's operator. Run two: one works, the other takes over."""

    kubeconfig: Path | None = None
    """Unset: what a pod is given, else ``KUBECONFIG``, else ``~/.kube/config``."""
    kube_context: str | None = None
    kube_namespace: str = Field(default="default", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    """Whose sites and federations it keeps."""
    windows: Literal["bus", "objects"] = "bus"
    """Who tells of windows, leases and rounds: the hub's bus (``WINDFALL_NATS_URL``), or whoever writes the status."""
    operator_lease: timedelta = Field(default=timedelta(seconds=5), ge=timedelta(seconds=1))
    """Wall time after which an operator that is not heard of is taken over from."""
    resync: timedelta = Field(default=timedelta(minutes=30), ge=timedelta(seconds=10))
    """How often everything is compared anew, whatever has been seen; wall time."""

    @property
    def connection(self) -> Connection:
        return Connection(self.kubeconfig, self.kube_context)
