"""What a backend on Kubernetes is told beside its site's settings."""

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator

from windfall.contracts.jurisdiction import Jurisdiction
from windfall.provisioner.holdings import MOST_ACCELERATORS, MOST_WORKERS
from windfall.provisioner.node_need import NodeNeed, node_need
from windfall.servicekit.kube import Connection

Vendor = Literal["nvidia", "amd", "none"]
DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
DnsSubdomain = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")]


def _names(given: object) -> object:
    """Names, separated by commas."""
    return [part.strip() for part in given.split(",") if part.strip()] if isinstance(given, str) else given


def _pairs(given: object) -> object:
    """``a=b,c=d``."""
    if not isinstance(given, str):
        return given
    pairs = [part.partition("=") for part in _names(given)]  # type: ignore[attr-defined]
    if any(not sign or not name for name, sign, _ in pairs):
        raise ValueError(f"{given!r} is not like 'name=value,name=value'")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _json(given: object) -> object:
    try:
        return json.loads(given) if isinstance(given, str) else given
    except ValueError as error:
        raise ValueError(f"{given!r} is not JSON") from error


Names = Annotated[tuple[DnsSubdomain, ...], BeforeValidator(_names)]
Pairs = Annotated[dict[str, str], BeforeValidator(_pairs)]
Tolerations = Annotated[tuple[dict[str, Any], ...], BeforeValidator(_json)]


class KubeSettings(BaseModel):
    """Which API server, and where in it a site's objects stand."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kubeconfig: Path | None = None
    """Unset: what a pod is given, else ``KUBECONFIG``, else ``~/.kube/config``."""
    kube_context: str | None = None
    """Of the kubeconfig; its current one when unset."""
    kube_namespace: DnsLabel = "default"
    kube_owner: DnsSubdomain | None = None
    """Name of the ``Site`` whose objects these are; they go when it goes. Unset: a ConfigMap ``windfall-<site>``."""

    @property
    def connection(self) -> Connection:
        return Connection(self.kubeconfig, self.kube_context)


RUNTIME_CLASSES: Final[dict[Vendor, str | None]] = {"nvidia": "nvidia", "amd": None, "none": None}
"""What each vendor's operator installs and a pod must name; AMD's device plugin needs none."""
RESOURCES: Final[dict[Vendor, str]] = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}
"""The extended resource of each vendor's device plugin, which is also the key of its usual taint."""
_DEVICE_GROUPS: Final[dict[Vendor, tuple[int, ...]]] = {"nvidia": (), "amd": (44, 109), "none": ()}
"""Debian's ``video`` and ``render``: without them nobody but root opens ``/dev/kfd``."""


class TrainerSettings(KubeSettings):
    """What a node is made of, where it is pods of a cluster."""

    kube_image: str = Field(min_length=1)
    """Image of the site-trainer."""
    kube_pull_secrets: Names = ()
    kube_workers: int = Field(default=1, ge=1, le=MOST_WORKERS)
    """Pods that train as one site, unless whoever asks for a lease says otherwise."""
    kube_accelerators: int = Field(default=0, ge=0, le=MOST_ACCELERATORS)
    """GPUs of each pod, unless whoever asks for a lease says otherwise."""
    kube_vendor: Vendor = "none"
    """Of the GPUs."""
    kube_runtime_class: str | None = None
    """Unset: the vendor's (``nvidia`` for NVIDIA); ``none`` for the cluster's default."""
    kube_groups: Annotated[tuple[int, ...], BeforeValidator(_names)] | None = None
    """Supplemental groups that may open the devices; unset: the vendor's."""
    kube_node_selector: Pairs = Field(default_factory=dict)
    """``name=value,…``: on which nodes of the cluster."""
    kube_tolerations: Tolerations = ()
    """JSON, as in a pod, beside those for the vendor's taint."""
    kube_need: Annotated[NodeNeed | None, BeforeValidator(node_need)] = None
    """JSON: which nodes do for a worker, see ``docs/placement.md``. Unset: the cluster's scheduler chooses."""
    jurisdiction: Jurisdiction | None = None
    """Under whose law the site lies; compared with the jurisdictions of the need."""
    kube_dedicated: bool = False
    """The nodes that the selector names are this site's alone: they are cordoned while it holds no lease."""
    kube_cpu: Quantity | None = None
    kube_memory: Quantity | None = None
    kube_shared_memory: Quantity = "1Gi"
    """Of ``/dev/shm``, which data loaders and collectives use."""
    kube_storage: Quantity = "20Gi"
    """For the trainer's state, which outlives its leases."""
    kube_storage_class: DnsSubdomain | None = None
    kube_data_claim: DnsSubdomain | None = None
    """Claim of the site's own data, mounted read-only."""
    kube_data_dir: str = Field(default="/data", pattern=r"^/.+")
    """Where the claim is mounted."""
    kube_secrets: Names = ()
    """Secrets whose keys become variables of the trainer, like ``WINDFALL_NATS_URL``; they win over what is plain."""
    kube_tls_secret: DnsSubdomain | None = None
    """Secret with ``tls.crt``, ``tls.key`` and ``ca.crt`` for the link to the coordinator."""
    kube_nats_tls_secret: DnsSubdomain | None = None
    """Such a Secret for the link to the site's NATS server; it may be the same one."""
    kube_nkey_secret: DnsSubdomain | None = None
    """Secret whose ``site-trainer.nk`` is the seed of the nkey by which that server knows the trainer."""
    kube_metrics_port: int | None = Field(default=None, ge=1, le=65535)
    """Where each pod answers Prometheus if ``OTEL_METRICS_EXPORTER`` says so, and a port ``metrics`` of it; unset: on
    its loopback alone."""
    kube_user: int = Field(default=65532, ge=1)
    """Under which the trainer runs, and its group."""
    kube_service_account: DnsSubdomain | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        asked = self.kube_need.gpus if self.kube_need else None
        if None not in (asked, self.kube_accelerators or None) and asked != self.kube_accelerators:
            raise ValueError(
                f"WINDFALL_KUBE_ACCELERATORS says {self.kube_accelerators} GPUs and WINDFALL_KUBE_NEED {asked}"
            )
        if self.kube_need and self.kube_need.of_gpus and not self.accelerators:
            raise ValueError("WINDFALL_KUBE_NEED says what GPUs must be, and nobody asks for any; add gpus to it")
        if self.accelerators and self.kube_vendor == "none":
            raise ValueError("WINDFALL_KUBE_ACCELERATORS needs WINDFALL_KUBE_VENDOR, nvidia or amd")
        if self.kube_dedicated and not self.kube_node_selector:
            raise ValueError("WINDFALL_KUBE_DEDICATED needs WINDFALL_KUBE_NODE_SELECTOR, which says which nodes")
        return self

    @property
    def accelerators(self) -> int:
        """GPUs of each pod, unless whoever asks for a lease says otherwise."""
        asked = self.kube_need.gpus if self.kube_need else None
        return self.kube_accelerators if asked is None else asked

    @property
    def runtime_class(self) -> str | None:
        if self.kube_runtime_class is None:
            return RUNTIME_CLASSES[self.kube_vendor]
        return None if self.kube_runtime_class == "none" else self.kube_runtime_class

    @property
    def groups(self) -> tuple[int, ...]:
        return _DEVICE_GROUPS[self.kube_vendor] if self.kube_groups is None else self.kube_groups
