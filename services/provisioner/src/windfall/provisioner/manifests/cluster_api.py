"""A site's cluster for Cluster API: a control plane that k0smotron hosts, and remote machines that join and leave it.

Everything here belongs to the site and outlives its leases; a lease is counted on the MachineDeployment
(:mod:`windfall.provisioner.roster`). Templates keep their names: what changes in them holds for the next machine, and
with the strategy ``OnDelete`` nothing that trains is replaced for it.
"""

from datetime import timedelta
from typing import Any, Final, Literal

from pydantic import Field, model_validator

from windfall.provisioner.manifests.contracts import (
    CLUSTER,
    CONTROL_PLANE,
    MACHINE_DEPLOYMENT,
    POOLED_MACHINE,
    REMOTE_CLUSTER,
    REMOTE_TEMPLATE,
    V1BETA1,
    WORKER_CONFIG,
    Contract,
    Resource,
)
from windfall.provisioner.manifests.labels import Manifest, site_labels
from windfall.provisioner.manifests.parameters import ClusterName, K0sVersion, ObjectName, Parameters

CLUSTER_NAME: Final = "cluster.x-k8s.io/cluster-name"
DEPLOYMENT_NAME: Final = "cluster.x-k8s.io/deployment-name"
_CIDR: Final = r"^[0-9a-fA-F.:]+/\d{1,3}$"


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


class RemoteMachine(Parameters):
    """A machine that is reached by SSH, waiting in the pool."""

    name: ClusterName
    address: str = Field(pattern=r"^[^\s@/]+$")
    """Name or address, without user and port."""
    port: int = Field(default=22, ge=1, le=65535)
    user: str = Field(default="root", min_length=1)
    use_sudo: bool = False
    ssh_key_secret: ObjectName
    """Secret that holds the private key under ``value``; it is named, never read."""
    clean_up: tuple[str, ...] = ()
    """Commands that clean the machine when it has left."""


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
    machines: tuple[RemoteMachine, ...] = ()
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
        for what, values in (
            ("name", [machine.name for machine in self.machines]),
            ("address", [f"{machine.address}:{machine.port}" for machine in self.machines]),
        ):
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise ValueError(f"two machines have the {what} {', '.join(twice)}")
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


def cluster(site: str, namespace: str, said: ClusterApiParameters, spoken: Contract) -> Manifest:
    """The Cluster, which owns all the rest."""
    name = str(said.cluster)
    spec = {
        "clusterNetwork": {
            "pods": {"cidrBlocks": list(said.network.pods)},
            "services": {"cidrBlocks": list(said.network.services)},
            "serviceDomain": said.network.service_domain,
        },
        "controlPlaneRef": _reference(spoken, CLUSTER, CONTROL_PLANE, name),
        "infrastructureRef": _reference(spoken, CLUSTER, REMOTE_CLUSTER, name),
    }
    return _object(spoken, CLUSTER, site, namespace, name, spec)


def parts(
    site: str, namespace: str, said: ClusterApiParameters, spoken: Contract, drain: timedelta
) -> tuple[tuple[Resource, Manifest], ...]:
    """What belongs to the Cluster, in the order in which it is written; the MachineDeployment is last.

    Args:
        site: whose cluster it is.
        namespace: where its objects are.
        said: with every name, see :meth:`ClusterApiParameters.named`.
        spoken: the versions that the server is spoken to in.
        drain: wall time that a machine which leaves may take to be drained; at least a second, because Cluster API
            reads none as for ever.
    """
    return (
        (REMOTE_CLUSTER, _object(spoken, REMOTE_CLUSTER, site, namespace, str(said.cluster), {})),
        (CONTROL_PLANE, _control_plane(site, namespace, said, spoken)),
        *((POOLED_MACHINE, _pooled(site, namespace, said, spoken, machine)) for machine in said.machines),
        (REMOTE_TEMPLATE, _remote_template(site, namespace, said, spoken)),
        (WORKER_CONFIG, _worker_config(site, namespace, said, spoken)),
        (MACHINE_DEPLOYMENT, machine_deployment(site, namespace, said, spoken, drain)),
    )


def machine_deployment(
    site: str, namespace: str, said: ClusterApiParameters, spoken: Contract, drain: timedelta
) -> Manifest:
    """The MachineDeployment, without its count. Of machines that nobody has marked the newest goes first: what somebody
    has added by hand, and not what trains."""
    name = str(said.machine_deployment)
    kind = spoken[MACHINE_DEPLOYMENT]
    marks = {CLUSTER_NAME: str(said.cluster), DEPLOYMENT_NAME: name}
    seconds = max(1, round(drain.total_seconds()))
    detach = max(1, round(said.volume_detach.total_seconds()))
    machine: dict[str, Any] = {
        "clusterName": said.cluster,
        "bootstrap": {"configRef": _reference(spoken, MACHINE_DEPLOYMENT, WORKER_CONFIG, name)},
        "infrastructureRef": _reference(spoken, MACHINE_DEPLOYMENT, REMOTE_TEMPLATE, name),
    }
    spec: dict[str, Any] = {
        "clusterName": said.cluster,
        "selector": {"matchLabels": marks},
        "template": {"metadata": {"labels": {**marks, **site_labels(site)}}, "spec": machine},
    }
    if kind.version == V1BETA1:
        machine["nodeDrainTimeout"] = f"{seconds}s"
        machine["nodeVolumeDetachTimeout"] = f"{detach}s"
        spec["strategy"] = {"type": "OnDelete", "rollingUpdate": {"deletePolicy": "Newest"}}
    else:
        machine["deletion"] = {"nodeDrainTimeoutSeconds": seconds, "nodeVolumeDetachTimeoutSeconds": detach}
        spec["rollout"] = {"strategy": {"type": "OnDelete"}}
        spec["deletion"] = {"order": "Newest"}
    return _object(spoken, MACHINE_DEPLOYMENT, site, namespace, name, spec)


def machines_of(said: ClusterApiParameters) -> dict[str, str]:
    """The labels that Cluster API gives to the machines of the MachineDeployment."""
    return {CLUSTER_NAME: str(said.cluster), DEPLOYMENT_NAME: str(said.machine_deployment)}


def kubeconfig_secret(cluster: str) -> str:
    """The Secret in which Cluster API keeps a cluster's kubeconfig, under ``value``."""
    return f"{cluster}-kubeconfig"


def _control_plane(site: str, namespace: str, said: ClusterApiParameters, spoken: Contract) -> Manifest:
    hosted = said.control_plane
    spec: dict[str, Any] = {
        "replicas": hosted.replicas,
        # A tag of an image cannot hold a plus.
        "version": str(said.version).replace("+", "-"),
        "service": {
            "type": hosted.service,
            "apiPort": hosted.api_port,
            "konnectivityPort": hosted.konnectivity_port,
        },
        "kubeconfigSecretMetadata": {"labels": site_labels(site)},
    }
    if hosted.external_address:
        spec["externalAddress"] = hosted.external_address
    if hosted.k0s_config:
        spec["k0sConfig"] = hosted.k0s_config
    return _object(spoken, CONTROL_PLANE, site, namespace, str(said.cluster), spec)


def _pooled(
    site: str, namespace: str, said: ClusterApiParameters, spoken: Contract, machine: RemoteMachine
) -> Manifest:
    spec: dict[str, Any] = {
        "address": machine.address,
        "port": machine.port,
        "user": machine.user,
        "useSudo": machine.use_sudo,
        "sshKeyRef": {"name": machine.ssh_key_secret},
    }
    if machine.clean_up:
        old = spoken[POOLED_MACHINE].version == V1BETA1
        spec["customCleanUpCommands" if old else "cleanUpCommands"] = list(machine.clean_up)
    name = f"{said.cluster}-{machine.name}"
    return _object(spoken, POOLED_MACHINE, site, namespace, name, {"pool": said.pool, "machine": spec})


def _remote_template(site: str, namespace: str, said: ClusterApiParameters, spoken: Contract) -> Manifest:
    spec = {"template": {"spec": {"pool": said.pool}}}
    return _object(spoken, REMOTE_TEMPLATE, site, namespace, str(said.machine_deployment), spec)


def _worker_config(site: str, namespace: str, said: ClusterApiParameters, spoken: Contract) -> Manifest:
    workers = said.workers
    old = spoken[WORKER_CONFIG].version == V1BETA1
    spec: dict[str, Any] = {"version": said.version}
    if workers.args:
        spec["args"] = list(workers.args)
    if workers.before:
        spec["preStartCommands" if old else "preK0sCommands"] = list(workers.before)
    if workers.after:
        spec["postStartCommands" if old else "postK0sCommands"] = list(workers.after)
    if workers.pre_installed:
        spec["preInstalledK0s"] = True
    name = str(said.machine_deployment)
    return _object(spoken, WORKER_CONFIG, site, namespace, name, {"template": {"spec": spec}})


def _object(
    spoken: Contract, resource: Resource, site: str, namespace: str, name: str, spec: dict[str, Any]
) -> Manifest:
    return {
        "apiVersion": spoken[resource].api_version,
        "kind": resource.kind,
        "metadata": {"name": name, "namespace": namespace, "labels": site_labels(site)},
        "spec": spec,
    }


def _reference(spoken: Contract, from_: Resource, to: Resource, name: str) -> dict[str, str]:
    """How an object names another one: the contract v1beta2 leaves the version to the server."""
    if spoken[from_].version == V1BETA1:
        return {"apiVersion": spoken[to].api_version, "kind": to.kind, "name": name}
    return {"apiGroup": to.group, "kind": to.kind, "name": name}
