"""What a person says of the backend ``cluster-api``."""

from datetime import timedelta
from typing import Any, Literal

from pydantic import Field, model_validator

from windfall.contracts.resources.machines import SshMachine, repeated
from windfall.provisioner.manifests.parameters import ClusterName, K0sVersion, Parameters


class ControlPlane(Parameters):
    """What k0smotron hosts."""

    replicas: int = Field(default=1, ge=1, le=7)
    service: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "LoadBalancer"
    """How the remote machines reach it."""
    external_address: str = Field(default="", pattern=r"^\S*$")
    """Name or address that they reach it by, when it is not the service's own."""
    api_port: int = Field(default=30443, ge=1, le=65535)
    konnectivity_port: int = Field(default=30132, ge=1, le=65535)
    k0s_config: dict[str, Any] = Field(default_factory=dict, alias="k0sConfig")
    """A ClusterConfig of k0s, as it is: the network provider and its settings, extensions."""


class Network(Parameters):
    """The addresses inside the cluster."""

    pods: tuple[str, ...] = ("10.244.0.0/16",)
    services: tuple[str, ...] = ("10.96.0.0/12",)
    service_domain: str = "cluster.local"


class Workers(Parameters):
    """How a machine becomes a worker."""

    args: tuple[str, ...] = ()
    """Of ``k0s worker``."""
    before: tuple[str, ...] = ()
    """Commands before k0s starts."""
    after: tuple[str, ...] = ()
    """Commands after it has started."""
    pre_installed: bool = False
    """k0s is on the machines already."""


class ClusterApiParameters(Parameters):
    """The parameters of the ``cluster-api`` backend."""

    cluster: ClusterName | None = None
    """The site's name when none is said."""
    manage: bool = True
    """Whether the cluster is made and kept by Windfall. Otherwise it is there, by GitOps or by hand, and only the
    count of its MachineDeployment is ours."""
    machine_deployment: ClusterName | None = None
    """The cluster's name with ``-workers`` when none is said."""
    version: K0sVersion | None = None
    """Of k0s, like ``v1.33.4+k0s.0``; needed when the cluster is managed."""
    control_plane: ControlPlane = ControlPlane()
    network: Network = Network()
    pool: ClusterName | None = None
    """The machines that wait under this name; the cluster's name when none is said."""
    machines: tuple[SshMachine, ...] = ()
    """What the pool holds. Empty: somebody else fills it."""
    workers: Workers = Workers()
    trainer: Literal["apply", "given"] = "given"
    """Whether a lease's site-trainer is applied into the cluster by the ``kubernetes`` backend, or is there already,
    by GitOps, and starts wherever a machine joins."""
    volume_detach: timedelta = Field(default=timedelta(minutes=2), gt=timedelta(0))
    """How long a machine that leaves may take to let go of its volumes."""

    @model_validator(mode="after")
    def _whole(self) -> "ClusterApiParameters":
        if self.manage and self.version is None:
            raise ValueError("version is needed to make a cluster, like v1.33.4+k0s.0; or say manage: false")
        if not self.manage and self.machines:
            raise ValueError("machines belong to a managed cluster: take them out, or say manage: true")
        if twice := repeated(self.machines):
            raise ValueError(twice)
        return self

    def named(self, site: str) -> "ClusterApiParameters":
        """With every name that was left to the site's."""
        cluster = self.cluster or site
        return self.model_copy(
            update={
                "cluster": cluster,
                "machine_deployment": self.machine_deployment or f"{cluster}-workers",
                "pool": self.pool or cluster,
            }
        )
