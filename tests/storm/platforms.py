"""What the sites of a storm are made of: the backend of each, the platforms' definitions, and their controllers."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.storm.plan import Storm
from windfall.provisioner.manifests.contracts import CLUSTER_TEMPLATE, CREDENTIAL, V1BETA1, V1BETA2, Resource
from windfall.provisioner.testing.machine_controllers import Pace, machine_controllers
from windfall.provisioner.testing.machine_ground import RESOURCES, install
from windfall.servicekit.kube import Cluster, Connection, Kind

KUBERNETES: Final = "kubernetes"
MACHINES: Final = ("cluster-api", "k0rdent")
MIXED: Final = "all"
CONTRACTS: Final = (V1BETA2, V1BETA1)
_TEMPLATE: Final = "remote-1-0-0"
_CREDENTIAL: Final = "cred"
_POOL: Final = 3


@dataclass(frozen=True)
class Platform:
    """
    Args:
        backend: of every site, or ``all`` of them mixed.
        contract: of Cluster API and k0smotron.
    """

    backend: str = KUBERNETES
    contract: str = V1BETA2

    def of(self, site: str) -> str:
        """A site's backend."""
        if self.backend != MIXED:
            return self.backend
        number = int(site[1:])
        # So that of each three neighbours, and of each three that have windows to the end, every one is another.
        return (KUBERNETES, *MACHINES)[(number + number // 3) % 3]

    def __str__(self) -> str:
        return f"{self.backend}, {self.contract}" if self.has_machines else self.backend

    @property
    def has_machines(self) -> bool:
        return self.backend != KUBERNETES

    def at(self, resource: Resource) -> Kind:
        return resource.at(self.contract if self.contract in resource.versions else V1BETA1)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """What is written for the sites, beside Kubernetes' own."""
        return tuple(self.at(resource) for resource in RESOURCES if resource.namespaced) if self.has_machines else ()

    def environment(self, site: str) -> dict[str, str]:
        """What a site's provisioner is told of its machines."""
        pool = [{"name": f"m{n}", "address": address(site, n), "sshKeySecret": "ssh"} for n in range(_POOL)]
        return {
            "WINDFALL_CLUSTER_API": json.dumps({"version": "v1.33.4+k0s.0", "machines": pool}),
            "WINDFALL_K0RDENT": json.dumps({"template": _TEMPLATE, "credential": _CREDENTIAL}),
        }


USUAL: Final = Platform()


def address(site: str, number: int) -> str:
    return f"{site}-m{number}.example"


@asynccontextmanager
async def controlled(
    kubeconfig: Path, namespace: str, platform: Platform, plan: Callable[[], tuple[Storm, datetime]]
) -> AsyncIterator[None]:
    """The platforms' controllers, playing, where there are any machines.

    Args:
        plan: the storm, and when it began.
    """
    if not platform.has_machines:
        yield
        return

    def pace(number: int) -> Pace:
        storm, began = plan()
        return Pace() if calm(storm, began) else _pace(storm.seed, number)

    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(Cluster.connect(Connection(kubeconfig)))
        controllers = await stack.enter_async_context(machine_controllers(cluster, namespace, platform.contract))
        controllers.pace = pace
        # k0smotron takes the last one first.
        sites = plan()[0].sites
        controllers.k0smotron.unreachable = {address(site, _POOL - 1) for site in sites[::5]}
        yield


def calm(storm: Storm, began: datetime) -> bool:
    """Whether its last blow has fallen, so that what is open then stays."""
    return datetime.now(UTC) > began + storm.size.lasts


def _pace(seed: int, number: int) -> Pace:
    """What becomes of the n-th machine."""
    chance = Random(f"{seed}/machine-{number}")
    joins, leaves = _seconds(chance.uniform(0.2, 1.5)), _seconds(chance.uniform(0, 1))
    slow = _seconds(chance.uniform(4, 8))
    paces = {
        Pace(joins=joins, leaves=leaves): 80,
        Pace(joins=joins, leaves=slow): 12,
        Pace("fail", joins): 4,
        Pace("stall", joins): 4,
    }
    return chance.choices(list(paces), list(paces.values()))[0]


async def prepare(cluster: Cluster, namespace: str, platform: Platform) -> None:
    """Definitions, and what k0rdent's ClusterDeployments name."""
    if not platform.has_machines:
        return
    await install(cluster, platform.contract)
    specs: tuple[tuple[Resource, str, dict[str, Any]], ...] = (
        (CLUSTER_TEMPLATE, _TEMPLATE, {"helm": {"chartRef": {"kind": "HelmChart", "name": "remote"}}}),
        (CREDENTIAL, _CREDENTIAL, {"identityRef": {"kind": "Secret", "name": "ssh"}}),
    )
    for resource, name, spec in specs:
        kind = platform.at(resource)
        metadata = {"name": name, "namespace": namespace}
        whole = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}
        await cluster.create(kind, whole)


def _seconds(seconds: float) -> timedelta:
    return timedelta(seconds=seconds)
