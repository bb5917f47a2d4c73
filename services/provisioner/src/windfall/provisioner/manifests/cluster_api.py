"""A site's cluster for Cluster API: a control plane that k0smotron hosts, and remote machines that join and leave it.

Everything here belongs to the site and outlives its leases; a lease is counted on the MachineDeployment
(:mod:`windfall.provisioner.roster`). Templates keep their names: what changes in them holds for the next machine, and
with the strategy ``OnDelete`` nothing that trains is replaced for it.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from windfall.provisioner.manifests.cluster_parameters import ClusterApiParameters
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
from windfall.provisioner.manifests.pooled_machines import NOWHERE, Place, pooled, remote_template
from windfall.provisioner.manifests.spoken_object import made, reference

CLUSTER_NAME: Final = "cluster.x-k8s.io/cluster-name"
DEPLOYMENT_NAME: Final = "cluster.x-k8s.io/deployment-name"


def cluster(site: str, namespace: str, said: ClusterApiParameters, spoken: Contract) -> Manifest:
    """The Cluster, which owns all the rest."""
    name = str(said.cluster)
    spec = {
        "clusterNetwork": {
            "pods": {"cidrBlocks": list(said.network.pods)},
            "services": {"cidrBlocks": list(said.network.services)},
            "serviceDomain": said.network.service_domain,
        },
        "controlPlaneRef": reference(spoken, CLUSTER, CONTROL_PLANE, name),
        "infrastructureRef": reference(spoken, CLUSTER, REMOTE_CLUSTER, name),
    }
    return made(spoken, CLUSTER, site, namespace, name, spec)


def parts(
    site: str,
    namespace: str,
    said: ClusterApiParameters,
    spoken: Contract,
    drain: timedelta,
    places: Mapping[str, Place] = NOWHERE,
) -> tuple[tuple[Resource, Manifest], ...]:
    """What belongs to the Cluster, in the order in which it is written; the MachineDeployment is last.

    Args:
        site: whose cluster it is.
        namespace: where its objects are.
        said: with every name, see :meth:`ClusterApiParameters.named`.
        spoken: the versions that the server is spoken to in.
        drain: wall time that a machine which leaves may take to be drained; at least a second, because Cluster API
            reads none as for ever.
        places: where in the pool each of its machines is to stand, by the name of its object; in the pool itself where
            nothing is said.
    """
    return (
        (REMOTE_CLUSTER, made(spoken, REMOTE_CLUSTER, site, namespace, str(said.cluster), {})),
        (CONTROL_PLANE, _control_plane(site, namespace, said, spoken)),
        *((POOLED_MACHINE, pooled(site, namespace, said, spoken, machine, places)) for machine in said.machines),
        (REMOTE_TEMPLATE, remote_template(site, namespace, said, spoken)),
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
        "bootstrap": {"configRef": reference(spoken, MACHINE_DEPLOYMENT, WORKER_CONFIG, name)},
        "infrastructureRef": reference(spoken, MACHINE_DEPLOYMENT, REMOTE_TEMPLATE, name),
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
    return made(spoken, MACHINE_DEPLOYMENT, site, namespace, name, spec)


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
    return made(spoken, CONTROL_PLANE, site, namespace, str(said.cluster), spec)


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
    return made(spoken, WORKER_CONFIG, site, namespace, name, {"template": {"spec": spec}})
