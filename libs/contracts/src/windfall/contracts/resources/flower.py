"""What a federation that runs Flower itself is told: everything that exalsius' flower-operator takes, under the same
names, and what that lacks: windows, drain, TLS, a database that lasts.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from windfall.contracts.message import Name
from windfall.contracts.resources.fields import Duration, Entries, Label, Open, Part, Quantity, list_map
from windfall.contracts.resources.pods import Claims, Env, Mounts, Resources, Volumes

MOST_POOLS: Final = 64
Arguments = Annotated[tuple[str, ...], Field(max_length=64)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Ports(Part):
    """Which ports of the SuperLink the Service has. Flower 1.40 and newer serves everything on ``grpc``'s."""

    grpc: Port = 9092
    """Fleet API: where SuperNodes dial."""
    server_app_io: Port = 9091
    """ServerAppIO: stays within the pod."""
    extra: Port = 9093
    """Control API: where ``flwr run`` dials."""


class LinkService(Part):
    """The SuperLink's Service."""

    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    ports: Ports = Field(default_factory=Ports)
    labels: Entries = Field(default_factory=dict)
    annotations: Entries = Field(default_factory=dict)


class Database(Part):
    """Where the SuperLink keeps its runs, so that they outlive its pod."""

    size: Quantity = "1Gi"
    storage_class_name: str | None = None
    when_deleted: Literal["Delete", "Retain"] = "Delete"
    """What happens to it when the federation is deleted."""


class Tls(Part):
    """A Secret of type ``kubernetes.io/tls`` whose certificate names the SuperLink's Service."""

    secret_name: str = Field(min_length=1, max_length=253)
    certificate_key: str = "tls.crt"
    private_key: str = "tls.key"
    authority_key: str = "ca.crt"


class SuperLink(Part):
    """Flower's server."""

    image: str = Field(min_length=1)
    superexec_image: str = ""
    """With ``isolationMode: process``, and only then."""
    resources: Resources = Field(default_factory=Resources)
    superexec_resources: Resources = Field(default_factory=Resources)
    env: Env = ()
    """Of the SuperExec beside it as well."""
    extra_args: Arguments = ()
    pod_template: Open = Field(default_factory=dict)
    """Of Kubernetes: merged under what is made here, lists by name."""
    service: LinkService = Field(default_factory=LinkService)
    volumes: Volumes = ()
    volume_mounts: Mounts = ()
    superexec_volume_mounts: Mounts | None = None
    """Unset: as ``volumeMounts``."""
    volume_claim_templates: Claims = ()
    database: Database | None = Field(default_factory=Database)


class Gpu(Part):
    """What a pool's pods get of their node's devices."""

    enabled: bool = False
    vendor: Literal["nvidia", "amd"] | None = None
    resource_name: str | None = Field(default=None, pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")
    """Unset: ``nvidia.com/gpu`` or ``amd.com/gpu``."""
    count: int = Field(default=1, ge=1, le=64)
    mount_all: bool = False
    """See all devices of the node, without asking the scheduler for any."""
    allow_privileged: bool = False
    """AMD's devices without its device plugin need a privileged container; say that you mean it."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.mount_all and self.vendor is None:
            raise ValueError("mountAll needs a vendor")
        if self.enabled and self.vendor is None and self.resource_name is None:
            raise ValueError("enabled needs a vendor or a resourceName")
        if self.enabled and self.mount_all and self.vendor == "amd" and not self.allow_privileged:
            raise ValueError(
                "mountAll of amd runs a privileged container; say allowPrivileged: true, or leave mountAll out and use "
                "the device plugin"
            )
        return self


class Images(Part):
    supernode: str = ""
    """Unset: as ``supernodes.image``."""
    super_exec_client_app: str = ""
    """With ``isolationMode: process``."""


class Drain(Part):
    """How a SuperNode goes when it is told to."""

    grace: Duration | None = None
    """Until it is killed, in wall time; unset: 10 minutes."""
    settle: Duration | None = None
    """Without a ClientApp at work for so long it is done, and what it sent has left; unset: 10 seconds."""


class Pool(Part):
    """SuperNodes that are alike."""

    name: Label
    replicas: int | None = Field(default=None, ge=1, le=1000)
    """With ``mode: StatefulSet``, and only then."""
    site: Name | None = None
    """The Site that its nodes stand at: the pool runs while that site's window is open, and is at 0 otherwise."""
    follow_window: bool = True
    """``false``: run whether or not the site's window is open."""
    images: Images = Field(default_factory=Images)
    gpu: Gpu = Field(default_factory=Gpu)
    supernode_resources: Resources = Field(default_factory=Resources)
    superexec_resources: Resources = Field(default_factory=Resources)
    pod_template: Open = Field(default_factory=dict)
    extra_args: Arguments = ()
    env: Env = ()
    """Wins over ``supernodes.env``."""
    volumes: Volumes = ()
    volume_mounts: Mounts = ()
    superexec_volume_mounts: Mounts | None = None
    volume_claim_templates: Claims = ()
    """With ``mode: StatefulSet`` only."""
    claims_when_deleted: Literal["Delete", "Retain"] = "Delete"
    """What happens to their volumes when the federation, or the pool, is deleted."""
    node_config: Entries = Field(default_factory=dict)
    """``{index}``, ``{replicas}``, ``{pool}`` and ``{node}`` stand for what they say."""
    drain: Drain = Field(default_factory=Drain)


class SuperNodes(Part):
    image: str = Field(min_length=1)
    env: Env = ()
    pools: tuple[Pool, ...] = Field(min_length=1, max_length=MOST_POOLS, json_schema_extra=list_map("name"))

    @model_validator(mode="after")
    def _once(self) -> Self:
        names = [pool.name for pool in self.pools]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"pools: {', '.join(twice)} is there twice")
        return self


class Flower(Part):
    """A real Flower SuperLink and its SuperNodes."""

    mode: Literal["DaemonSet", "StatefulSet"]
    """One SuperNode on each node that the pool's node selector takes, or ``replicas`` of them."""
    isolation_mode: Literal["process", "subprocess"]
    """Apps in containers of their own beside SuperLink and SuperNode, or started by them."""
    version: str = Field(default="1.41.0", pattern=r"^1\.\d{1,3}(\.\d{1,3})?$")
    """Of Flower in the images: its command line differs by version."""
    insecure: bool = False
    """No TLS between SuperNodes and SuperLink. Say so only on a network that you own."""
    tls: Tls | None = None
    superlink: SuperLink
    supernodes: SuperNodes

    @model_validator(mode="after")
    def _fits(self) -> Self:
        wrong = list(self._misfits())
        if wrong:
            raise ValueError("; ".join(wrong))
        return self

    def _misfits(self) -> list[str]:
        process = self.isolation_mode == "process"
        wrong = []
        if not self.insecure and self.tls is None:
            wrong.append("tls is missing; name a Secret, or say insecure: true on a network that you own")
        if self.insecure and self.tls is not None:
            wrong.append("insecure and tls exclude each other")
        if process != bool(self.superlink.superexec_image):
            wrong.append(f"superlink.superexecImage goes with isolationMode process{' and is missing' * process}")
        for pool in self.supernodes.pools:
            where = f"supernodes.pools[{pool.name}]"
            if process and not pool.images.super_exec_client_app:
                wrong.append(f"{where}.images.superExecClientApp is missing with isolationMode process")
            if not process and pool.images.super_exec_client_app:
                wrong.append(f"{where}.images.superExecClientApp goes with isolationMode process")
            if self.mode == "StatefulSet" and pool.replicas is None:
                wrong.append(f"{where}.replicas is missing with mode StatefulSet")
            if self.mode == "DaemonSet":
                for name, given in (("replicas", pool.replicas), ("volumeClaimTemplates", pool.volume_claim_templates)):
                    if given:
                        wrong.append(f"{where}.{name} goes with mode StatefulSet")
        return wrong
