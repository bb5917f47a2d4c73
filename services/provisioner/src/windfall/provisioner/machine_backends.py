"""How the backends of machines are put together from settings."""

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from windfall.provisioner.applied_trainer import AppliedTrainer
from windfall.provisioner.backend import Backend
from windfall.provisioner.cluster_api import MachineDeployments
from windfall.provisioner.counted import Counted
from windfall.provisioner.k0rdent import ClusterDeployments
from windfall.provisioner.kube_settings import KubeSettings, TrainerSettings
from windfall.provisioner.kubernetes import KubernetesBackend
from windfall.provisioner.leased_machines import LeasedMachines
from windfall.provisioner.machine_settings import ClusterApiSettings, K0rdentSettings
from windfall.provisioner.ownership import site_owner
from windfall.provisioner.settings import ProvisionerSettings
from windfall.servicekit.clock import parse_clock
from windfall.servicekit.kube import Cluster, Object
from windfall.servicekit.settings import load


def cluster_api(settings: ProvisionerSettings, environ: Mapping[str, str]) -> Backend:
    """
    Raises:
        Mistake: a setting of the backend, or of the trainer that it applies, is wrong or missing.
    """
    said = load(ClusterApiSettings, environ)
    drain = parse_clock(settings.clock).wall(settings.grace)
    counted = MachineDeployments(settings.site, said.kube_namespace, said.cluster_api, drain)
    return _machines(settings, said, counted, environ, applied=said.cluster_api.trainer == "apply")


def k0rdent(settings: ProvisionerSettings, environ: Mapping[str, str]) -> Backend:
    """
    Raises:
        Mistake: as :func:`cluster_api`.
    """
    said = load(K0rdentSettings, environ)
    counted = ClusterDeployments(settings.site, said.kube_namespace, said.k0rdent)
    return _machines(settings, said, counted, environ, applied=said.k0rdent.trainer == "apply")


def _machines(
    settings: ProvisionerSettings, said: KubeSettings, counted: Counted, environ: Mapping[str, str], *, applied: bool
) -> Backend:
    trainer = None
    if applied:
        trainer = AppliedTrainer(settings.site, said.kube_namespace, counted.cluster_name, _workload(settings, environ))
    owner = _owner(settings.site, said)
    cluster = Cluster.connect(said.connection)
    return LeasedMachines(settings.site, said.kube_namespace, cluster, counted, owner, trainer)


def _workload(
    settings: ProvisionerSettings, environ: Mapping[str, str]
) -> Callable[[Path, Mapping[str, str]], Backend]:
    """The ``kubernetes`` backend, in the cluster that the machines join."""
    # The same settings as in a cluster of the site's own, but for where the cluster is and which node is the lease's.
    trainers = load(TrainerSettings, environ)
    clock = parse_clock(settings.clock)

    def make(kubeconfig: Path, selector: Mapping[str, str]) -> Backend:
        there = {
            "kubeconfig": kubeconfig,
            "kube_context": None,
            "kube_owner": None,
            "kube_node_selector": {**trainers.kube_node_selector, **selector},
        }
        theirs = trainers.model_copy(update=there)
        return KubernetesBackend(settings.site, theirs, settings.node_module, settings.grace, clock)

    return make


def _owner(site: str, said: KubeSettings) -> Callable[[Cluster], Awaitable[Object]]:
    async def owner(cluster: Cluster) -> Object:
        return await site_owner(cluster, site, said.kube_namespace, said.kube_owner)

    return owner
