"""What the provisioner is told."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from windfall.provisioner.backends import BACKENDS
from windfall.provisioner.holdings import Policy
from windfall.provisioner.process import TRAINER
from windfall.servicekit.clock import parse_clock
from windfall.servicekit.settings import PREFIX, SiteSettings

TRAINER_PREFIX: Final = "WINDFALL_TRAINER_"
"""``WINDFALL_TRAINER_X`` of the provisioner becomes ``WINDFALL_X`` of its nodes."""

END_WITHIN: Final = timedelta(seconds=3)
"""From the order to kill until a node is given back whether or not anybody saw it end, in wall time."""

_OURS_ALONE: Final = frozenset(
    {
        "OTEL_SERVICE_NAME",
        "OTEL_RESOURCE_ATTRIBUTES",
        "OTEL_EXPORTER_PROMETHEUS_HOST",
        "OTEL_EXPORTER_PROMETHEUS_PORT",
        "TRACEPARENT",
        "TRACESTATE",
    }
)


_SHARED: Final = (
    "WINDFALL_LOG_LEVEL",
    "WINDFALL_LOG_FORMAT",
    "WINDFALL_METRICS_INSECURE",
    "WINDFALL_NATS_REPLICAS",
    "WINDFALL_NATS_TLS_FIRST",
)


def _known(backend: str) -> str:
    if backend not in BACKENDS:
        raise ValueError(f"{backend!r} is not one of {', '.join(sorted(BACKENDS))}")
    return backend


class ProvisionerSettings(SiteSettings):
    """One site's provisioner."""

    backend: Annotated[str, AfterValidator(_known)] = "process"
    """What nodes are made of."""
    node_module: str = Field(default=TRAINER, pattern=r"^[a-zA-Z_][\w.]*$")
    """The Python module that a node of the process backend runs: a site-trainer, or
    ``windfall.flower_adapter.site``."""
    grace: timedelta = Field(default=timedelta(minutes=10), gt=timedelta(0))
    """From being asked to go until being killed, in business time."""
    attempts: int = Field(default=3, ge=1, le=100)
    """Starts of a lease in a row before it fails; a node that was ready for ``steady`` begins a new row."""
    steady: timedelta = Field(default=timedelta(minutes=10), gt=timedelta(0))
    """How long a node must have been ready, in wall time, for deaths before it to be forgotten."""
    ready_timeout: timedelta = Field(default=timedelta(minutes=2), gt=timedelta(0))
    """From the order to start until ready, in wall time."""
    patience: timedelta = Field(default=timedelta(minutes=15), ge=timedelta(0))
    """How long an expected window may be overdue before its node is given back, in business time."""
    on_stop: Literal["leave", "release"] = "leave"
    """When the provisioner stops, nodes go on and the next one adopts them, or all are drained and then killed."""
    capacity_listen: str = "127.0.0.1:0"
    """Where the Capacity API listens; port 0 takes a free one, which is written to ``capacity.json``."""

    @property
    def policy(self) -> Policy:
        """What the decisions need to know."""
        # How fast machines start and end does not depend on the pace of a replay.
        pace = timedelta(seconds=1) / parse_clock(self.clock).wall(timedelta(seconds=1))
        return Policy(
            grace=self.grace,
            attempts=self.attempts,
            patience=self.patience,
            steady=self.steady * pace,
            ready_within=self.ready_timeout * pace,
            end_within=END_WITHIN * pace,
        )

    def node_environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """What every node of the site is born with: our own environment, our settings where it shares them, its own."""
        plain = {key: value for key, value in environ.items() if not key.startswith(PREFIX) and key not in _OURS_ALONE}
        shared = {
            "WINDFALL_SITE": self.site,
            "WINDFALL_NATS_URL": self.nats_url,
            "WINDFALL_CLOCK": self.clock,
            # Successive leases share it, so that the trainer's own checkpoint survives them.
            "WINDFALL_STATE_DIR": str(self.state_dir.resolve() / "trainer"),
        }
        access = {
            "AUTHORITY": self.nats_authority,
            "CERTIFICATE": self.nats_certificate,
            "KEY": self.nats_key,
            "NKEY_FILE": self.nats_nkey_file,
        }
        shared |= {f"WINDFALL_NATS_{name}": str(path.resolve()) for name, path in access.items() if path is not None}
        if self.traces_file is not None:
            shared["WINDFALL_TRACES_FILE"] = str(self.traces_file.resolve())
        shared |= {key: value for key in _SHARED if (value := environ.get(key))}
        own = {
            PREFIX + key.removeprefix(TRAINER_PREFIX): value
            for key, value in environ.items()
            if key.startswith(TRAINER_PREFIX)
        }
        return {**plain, **shared, **own}
