"""A federation: what is trained, by whom, and how far it has come."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from windfall.contracts.jurisdiction import Jurisdiction
from windfall.contracts.message import Instant, Name
from windfall.contracts.resources.conditions import Condition
from windfall.contracts.resources.fields import Duration, Metadata, Open, Part, Quantity, Said, list_map
from windfall.contracts.resources.flower import Flower
from windfall.contracts.resources.pods import Env, Resources
from windfall.contracts.resources.selectors import Selector
from windfall.contracts.resources.site import Setting

MOST_SITES_TOLD = 256
"""Of the sites that a status names; how many there are is counted beside."""


class Rounds(Part):
    """When a round ends and who is in it; unset is what the coordinator's settings say."""

    length: Duration | None = None
    steps: int | None = Field(default=None, ge=1)
    tokens: int | None = Field(default=None, ge=1)
    alone: Duration | None = None
    alone_codec: str = ""
    minimum_sites: int | None = Field(default=None, ge=1)
    maximum_sites: int | None = Field(default=None, ge=1)
    straggler_grace: Duration | None = None
    straggler_limit: Duration | None = None
    rounds_late: int | None = Field(default=None, ge=0)
    overlap: bool = False


class Objective(Part):
    """What is planned for."""

    kind: Literal["fast", "carbon", "budget", "cost"] = "fast"
    work_tokens: int | None = Field(default=None, ge=1)
    deadline: Instant | None = None
    budget_kg: float | None = Field(default=None, gt=0)


class Stop(Part):
    """What a federation has enough at."""

    tokens: int | None = Field(default=None, ge=1)
    loss: float | None = None
    at: Instant | None = None
    kg: float | None = Field(default=None, gt=0)


class CoordinatorPod(Part):
    """The federation-coordinator's pod."""

    image: str = Field(default="windfall/federation-coordinator", min_length=1)
    port: int = Field(default=7443, ge=1, le=65535)
    nats_url: str = Field(default="nats://nats:4222", max_length=2000)
    """NATS server of the hub. At ``tls://`` the coordinator shows it the certificate of ``tlsSecretName``."""
    nats_tls_first: bool = False
    """That server begins with TLS (``handshake_first``), as the hub chart's does."""
    nats_replicas: int = Field(default=1, ge=1, le=5)
    """Servers of the hub that keep a copy of each stream."""
    nkey_secret_name: str = ""
    """A Secret whose ``federation-coordinator.nk`` is the seed of the nkey by which that server knows it."""
    tls_secret_name: str = ""
    """A Secret with ``tls.crt``, ``tls.key`` and ``ca.crt``."""
    insecure: bool = False
    """No TLS. Say so only on a network that you own."""
    storage: Quantity = "20Gi"
    storage_class_name: str | None = None
    when_deleted: Literal["Delete", "Retain"] = "Delete"
    """What happens to its models and its journal when the federation is deleted."""
    resources: Resources = Field(default_factory=Resources)
    env: Env = ()
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    address: str = ""
    """``host:port`` at which sites reach it; unset: its Service within the cluster."""
    pod_template: Open = Field(default_factory=dict)
    drain: Duration | None = None
    """Wall time in which it may end in order; unset: a minute."""

    @model_validator(mode="after")
    def _secure(self) -> Self:
        if not self.insecure and not self.tls_secret_name:
            raise ValueError("tlsSecretName is missing; name a Secret, or say insecure: true on a network that you own")
        if self.insecure and self.tls_secret_name:
            raise ValueError("insecure and tlsSecretName exclude each other")
        return self


class FederationSpec(Part):
    """What a person says of a federation."""

    engine: Literal["windfall", "flower"] = "windfall"
    task: str = Field(default="gpt-neox", max_length=100)
    task_settings: Open = Field(default_factory=dict)
    data_selector: Selector = Field(default_factory=Selector)
    """Which of a site's data sets it trains on; a site that holds none is not used."""
    site_selector: Selector = Field(default_factory=Selector)
    allowed_jurisdictions: tuple[Jurisdiction, ...] = Field(default=(), max_length=256)
    """Only sites under these laws are used; ``CA`` admits ``CA-QC``. None: any."""
    jurisdiction: Jurisdiction | None = None
    """Under whose law its coordinator lies."""
    rounds: Rounds = Field(default_factory=Rounds)
    codec: str = ""
    outer: str = ""
    merge: str = ""
    clip: bool = False
    seed: int = 0
    objective: Objective = Field(default_factory=Objective)
    stop: Stop = Field(default_factory=Stop)
    coordinator: CoordinatorPod | None = None
    """With ``engine: windfall``."""
    settings: dict[Setting, str] = Field(default_factory=dict)
    """Any other of the coordinator's variables."""
    trainer_settings: dict[Setting, str] = Field(default_factory=dict)
    """Variables of the trainers, at every site."""
    flower: Flower | None = None
    """With ``engine: flower``."""
    suspend: bool = False
    """Everything goes to 0, in order, and stays as it is on disk."""
    drain_grace: Duration | None = None
    """How long the deletion of this federation may wait for what is under way; unset: as long as its pools' drain."""

    @model_validator(mode="after")
    def _engined(self) -> Self:
        if self.engine == "flower" and self.flower is None:
            raise ValueError("flower is missing with engine: flower")
        if self.engine == "windfall" and self.coordinator is None:
            raise ValueError("coordinator is missing with engine: windfall")
        if self.engine == "windfall" and self.flower is not None:
            raise ValueError("flower goes with engine: flower")
        if self.engine == "flower" and self.coordinator is not None:
            raise ValueError("coordinator goes with engine: windfall")
        return self


class SiteUse(Said):
    """Whether a federation uses a site, and why not."""

    name: Name
    used: bool
    reason: str = ""


class PoolStatus(Said):
    """How a pool stands."""

    name: str
    kind: Literal["DaemonSet", "StatefulSet"]
    desired: int
    ready: int
    site: str = ""
    because: str = ""
    """Why it is at 0."""


class Endpoints(Said):
    superlink_service: str = ""
    coordinator: str = ""


class Progress(Said):
    """How far the training has come, as the bus has told it."""

    round: int
    tokens: int
    loss_nats: float | None = None
    sites: int = 0
    """That contributed to that round."""
    at: Instant
    finished: bool = False
    because: str = ""


class FederationStatus(Said):
    """How a federation stands."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = Field(default=(), json_schema_extra=list_map("type"))
    selected_sites: int = 0
    refused_sites: int = 0
    sites: Annotated[tuple[SiteUse, ...], Field(max_length=MOST_SITES_TOLD, json_schema_extra=list_map("name"))] = ()
    supernodes: str = ""
    """Ready of desired, like ``3/4``."""
    ready_supernodes: int = 0
    desired_supernodes: int = 0
    endpoints: Endpoints = Field(default_factory=Endpoints)
    pools: tuple[PoolStatus, ...] = Field(default=(), json_schema_extra=list_map("name"))
    progress: Progress | None = None


class Federation(Part):
    """Sites that train one model together."""

    api_version: Literal["windfall.dev/v1alpha1"]
    kind: Literal["Federation"]
    metadata: Metadata
    spec: FederationSpec
    status: FederationStatus = Field(default_factory=FederationStatus)
