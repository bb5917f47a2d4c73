"""Which version of a kind is spoken with an API server that serves several, or has served others before.

Cluster API and k0smotron are on their way from the contract v1beta1 to v1beta2, group by group. The version in which
the server stores a kind is spoken, because no conversion stands between what was written and what is kept; a version
that is not served any more is never spoken, although its objects may still be there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.kube import Kind

V1BETA1: Final = "v1beta1"
V1BETA2: Final = "v1beta2"


@dataclass(frozen=True)
class Resource:
    """One kind, whatever its version."""

    group: str
    kind: str
    plural: str
    versions: tuple[str, ...] = (V1BETA2, V1BETA1)
    """What Windfall can write, the newest first."""
    namespaced: bool = True

    @property
    def definition(self) -> str:
        """The name of its CustomResourceDefinition."""
        return f"{self.plural}.{self.group}"

    def at(self, version: str) -> Kind:
        return Kind(self.group, version, self.kind, self.plural, self.namespaced)


CLUSTER: Final = Resource("cluster.x-k8s.io", "Cluster", "clusters")
MACHINE: Final = Resource("cluster.x-k8s.io", "Machine", "machines")
MACHINE_DEPLOYMENT: Final = Resource("cluster.x-k8s.io", "MachineDeployment", "machinedeployments")
CONTROL_PLANE: Final = Resource("controlplane.cluster.x-k8s.io", "K0smotronControlPlane", "k0smotroncontrolplanes")
WORKER_CONFIG: Final = Resource("bootstrap.cluster.x-k8s.io", "K0sWorkerConfigTemplate", "k0sworkerconfigtemplates")
REMOTE_CLUSTER: Final = Resource("infrastructure.cluster.x-k8s.io", "RemoteCluster", "remoteclusters")
REMOTE_TEMPLATE: Final = Resource("infrastructure.cluster.x-k8s.io", "RemoteMachineTemplate", "remotemachinetemplates")
REMOTE_MACHINE: Final = Resource("infrastructure.cluster.x-k8s.io", "RemoteMachine", "remotemachines")
POOLED_MACHINE: Final = Resource("infrastructure.cluster.x-k8s.io", "PooledRemoteMachine", "pooledremotemachines")
CLUSTER_API: Final = (
    CLUSTER,
    MACHINE,
    MACHINE_DEPLOYMENT,
    CONTROL_PLANE,
    WORKER_CONFIG,
    REMOTE_CLUSTER,
    REMOTE_TEMPLATE,
    REMOTE_MACHINE,
    POOLED_MACHINE,
)
"""What the ``cluster-api`` backend writes or reads."""

K0RDENT: Final = "k0rdent.mirantis.com"
CLUSTER_DEPLOYMENT: Final = Resource(K0RDENT, "ClusterDeployment", "clusterdeployments", (V1BETA1,))
CREDENTIAL: Final = Resource(K0RDENT, "Credential", "credentials", (V1BETA1,))
CLUSTER_TEMPLATE: Final = Resource(K0RDENT, "ClusterTemplate", "clustertemplates", (V1BETA1,))
CLUSTER_TEMPLATE_CHAIN: Final = Resource(K0RDENT, "ClusterTemplateChain", "clustertemplatechains", (V1BETA1,))
SERVICE_TEMPLATE: Final = Resource(K0RDENT, "ServiceTemplate", "servicetemplates", (V1BETA1,))
SERVICE_SET: Final = Resource(K0RDENT, "ServiceSet", "servicesets", (V1BETA1,))
MULTI_CLUSTER_SERVICE: Final = Resource(
    K0RDENT, "MultiClusterService", "multiclusterservices", (V1BETA1,), namespaced=False
)

Contract = Mapping[Resource, Kind]
"""The version of every kind that is spoken with one API server."""

NEWEST: Final[Contract] = {resource: resource.at(resource.versions[0]) for resource in CLUSTER_API}
OLDEST: Final[Contract] = {resource: resource.at(resource.versions[-1]) for resource in CLUSTER_API}


def offered(definition: Mapping[str, Any]) -> list[tuple[str, bool]]:
    """The versions that a CustomResourceDefinition serves, and whether objects are stored in it."""
    return [(version["name"], version["storage"]) for version in definition["spec"]["versions"] if version["served"]]


def chosen(resource: Resource, offers: Iterable[tuple[str, bool]]) -> Kind:
    """The version to speak.

    Args:
        resource: what is to be written or read.
        offers: served versions, and whether objects are stored in them.

    Raises:
        Mistake: the server serves none that Windfall can write.
    """
    stored = dict(offers)
    fit = [version for version in resource.versions if version in stored]
    if not fit:
        there = ", ".join(stored) or "no version"
        raise Mistake(
            f"the API server serves {there} of {resource.definition}, and Windfall writes "
            f"{' and '.join(resource.versions)}",
            "Install or upgrade the provider that brings this kind",
            ExitCode.SERVER,
        )
    return resource.at(next((version for version in fit if stored[version]), fit[0]))
