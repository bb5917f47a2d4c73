"""A site: whose law it lies under, what its power is watched by, what it can lend, and what is going on there."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from windfall.contracts.jurisdiction import Jurisdiction
from windfall.contracts.message import Instant
from windfall.contracts.resources.conditions import Condition
from windfall.contracts.resources.fields import (
    Duration,
    Entries,
    Label,
    Metadata,
    Open,
    Part,
    Quantity,
    Said,
    list_map,
)
from windfall.contracts.resources.machines import SshMachine, repeated

Setting = Annotated[str, StringConstraints(pattern=r"^WINDFALL_[A-Z0-9_]+$")]
"""A variable of a service's settings table (docs/operations.md)."""


class CapacityPool(Part):
    """Nodes of one kind that the site lends."""

    name: Label
    gpu_vendor: Literal["nvidia", "amd", "none"] = "none"
    gpu_model: str = ""
    memory: Quantity | None = None
    """Of one device, or of the node where it has none."""
    count: int | None = Field(default=None, ge=0, le=100_000)
    """Devices that are lent at most, or nodes where they have none. Without it all that there are."""
    node_selector: Entries = Field(default_factory=dict)
    machines: tuple[SshMachine, ...] = Field(default=(), max_length=256, json_schema_extra=list_map("name"))
    """Of which nodes are made while a window is open, where they are no nodes of a cluster all the time; of the backend
    ``cluster-api``."""


class Signal(Part):
    """What the site calls surplus; the energy-watcher's settings."""

    signals: dict[str, Open] = Field(default_factory=dict)
    """Name → section with its ``provider``. Credentials stay out of it: a section names the variable that has them."""
    rule: str = Field(default="", max_length=2000)
    check: str = ""
    dwell: Duration | None = None
    grace: Duration | None = None
    ride_through: Duration | None = None
    minimum_window: Duration | None = None
    minimum_on: Duration | None = None
    minimum_off: Duration | None = None
    start_up: Duration | None = None
    drain: Duration | None = None
    stale_after: Duration | None = None
    poll_interval: Duration | None = None
    publish_forecast: bool | None = None
    plan_limit: float | None = Field(default=None, ge=0)
    """gCO2/kWh that a federation's plan may use beyond the rule."""
    settings: dict[Setting, str] = Field(default_factory=dict)
    """Any other of the energy-watcher's variables."""


class NodeNeed(Part):
    """What a worker needs of the node that it is placed on; what is left out does not matter. Nodes are those of the
    site's pools, where it has any."""

    gpus: int | None = Field(default=None, ge=0, le=64)
    """Of each worker, all on one node."""
    models: tuple[str, ...] = Field(default=(), max_length=64)
    """Of GPUs: any of these, by any name of theirs."""
    gpu_memory: Quantity | None = None
    """Of each GPU, at least, as its driver says it: one of 80 GB has 79Gi."""
    interconnects: tuple[Literal["pcie", "nvlink", "xgmi"], ...] = Field(default=(), max_length=3)
    """How the GPUs of one node reach each other: one of these."""
    interconnect_gb_per_s: float | None = Field(default=None, ge=0)
    """As the profiler measured it, at least."""
    samples_per_s: float | None = Field(default=None, ge=0)
    """Of one node, as the profiler measured it, at least."""
    jurisdictions: tuple[Jurisdiction, ...] = Field(default=(), max_length=256)
    """Laws under which the data may be used: a site under none of them gets no node."""
    arrangement: Literal["pack", "spread"] | None = None
    """On as few nodes as possible, or on as many."""


class Backend(Part):
    """What nodes are made of; the provisioner's settings."""

    name: str = Field(default="process", pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")
    parameters: Entries = Field(default_factory=dict)
    """The backend's own: ``kubeNamespace: a`` is its ``WINDFALL_KUBE_NAMESPACE=a``. Never a secret."""
    need: NodeNeed | None = None
    """Of the backend ``kubernetes``: its pods are placed by what is free on each node. Unset: the cluster's scheduler
    chooses."""
    grace: Duration | None = None
    """From being asked to go until being killed."""
    attempts: int | None = Field(default=None, ge=1, le=100)
    ready_timeout: Duration | None = None
    patience: Duration | None = None
    settings: dict[Setting, str] = Field(default_factory=dict)
    """Any other of the provisioner's variables; ``WINDFALL_TRAINER_X`` is ``WINDFALL_X`` of its nodes."""


class DataSet(Part):
    """Data that the site holds. It never leaves, and neither does its path."""

    name: Label
    labels: Entries = Field(default_factory=dict)
    path: str = Field(min_length=1)
    """Folder as a trainer at the site sees it."""


class SiteSpec(Part):
    """What a person says of a site."""

    jurisdiction: Jurisdiction
    region: str = Field(default="", max_length=100)
    """Of the grid, as the signal's provider calls it."""
    pools: tuple[CapacityPool, ...] = Field(default=(), max_length=64, json_schema_extra=list_map("name"))
    signal: Signal = Field(default_factory=Signal)
    backend: Backend = Field(default_factory=Backend)
    data_sets: tuple[DataSet, ...] = Field(default=(), max_length=256, json_schema_extra=list_map("name"))
    nats_url: str = Field(default="", max_length=2000)
    """NATS server of the site's own domain, as its services reach it; no credentials."""
    suspend: bool = False
    """No window counts: pools that follow this site go to 0, and no federation counts on it."""

    @model_validator(mode="after")
    def _once(self) -> Self:
        for what, names in (
            ("pools", [pool.name for pool in self.pools]),
            ("dataSets", [data.name for data in self.data_sets]),
        ):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"{what}: {', '.join(twice)} is there twice")
        if fault := repeated(self.machines):
            raise ValueError(f"pools: {fault}")
        return self

    @property
    def machines(self) -> tuple[SshMachine, ...]:
        """Of all pools."""
        return tuple(machine for pool in self.pools for machine in pool.machines)


class Window(Said):
    """The site's newest window, as the bus has told it: the truth that pools follow, a restart included."""

    id: str
    state: Literal["expected", "open", "closing", "closed", "withdrawn"]
    at: Instant
    """When that state began, by the watcher's clock."""
    opened_at: Instant | None = None
    closes_at: Instant | None = None
    """When the forecast sees its end."""
    because: str = ""


class Capacity(Said):
    """The site's newest lease, as the bus has told it."""

    lease_token: int = 0
    node: str = ""
    backend: str = ""
    state: Literal["hindered", "starting", "ready", "failed", "drained", "released"]
    at: Instant
    because: str = ""


class SiteStatus(Said):
    """What is going on at a site."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = Field(default=(), json_schema_extra=list_map("type"))
    window: Window | None = None
    capacity: Capacity | None = None
    devices: int = 0
    """In all pools that say how many they lend."""


class Site(Part):
    """One sovereign place with its own power, nodes, data, bus and services."""

    api_version: Literal["windfall.dev/v1alpha1"]
    kind: Literal["Site"]
    metadata: Metadata
    spec: SiteSpec
    status: SiteStatus = Field(default_factory=SiteStatus)
