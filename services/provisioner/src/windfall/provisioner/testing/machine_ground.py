"""A namespace in which a backend's machines come and go, on an API server with the platforms' definitions."""

import asyncio
import json
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID, uuid4

from windfall.provisioner.applied_trainer import AppliedTrainer
from windfall.provisioner.backend import Backend, Outage
from windfall.provisioner.cluster_api import MachineDeployments
from windfall.provisioner.counted import Counted
from windfall.provisioner.holdings import Lease, Node
from windfall.provisioner.k0rdent import ClusterDeployments
from windfall.provisioner.leased_machines import LeasedMachines
from windfall.provisioner.manifests.cluster_api import kubeconfig_secret
from windfall.provisioner.manifests.cluster_parameters import ClusterApiParameters
from windfall.provisioner.manifests.contracts import (
    CLUSTER_API,
    CLUSTER_DEPLOYMENT,
    CLUSTER_TEMPLATE,
    CREDENTIAL,
    MACHINE_DEPLOYMENT,
    MULTI_CLUSTER_SERVICE,
    SERVICE_SET,
    Resource,
)
from windfall.provisioner.manifests.k0rdent import K0rdentParameters
from windfall.provisioner.manifests.labels import LEASE, TOKEN, anchor
from windfall.provisioner.roster import Roster
from windfall.provisioner.testing.machine_controllers import MachineControllers, machine_controllers
from windfall.servicekit.kube import Cluster, Connection, Kind, Object
from windfall.servicekit.kube.kinds import CONFIG_MAP, CRD, NAMESPACE, SECRET
from windfall.servicekit.testing.kube_api import KubeApi

NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
SITE: Final = "site-a"
SCHEMAS: Final = Path(os.environ.get("WINDFALL_SCHEMAS", "../shared/schemas"))
"""Where upstream's schemas may lie; a machine without them has open definitions."""
RESOURCES: Final = (
    *CLUSTER_API,
    CLUSTER_DEPLOYMENT,
    CLUSTER_TEMPLATE,
    CREDENTIAL,
    SERVICE_SET,
    MULTI_CLUSTER_SERVICE,
)
SECONDS: Final = 60.0


def definition(resource: Resource, spoken: str) -> Object:
    """A CustomResourceDefinition with upstream's schemas, or open ones where they are not beside the checkout.

    Args:
        resource: what it defines.
        spoken: the one version that is served and stored, where there are two: nobody here converts.
    """
    spoken = spoken if spoken in resource.versions else resource.versions[0]
    versions = []
    for version in resource.versions:
        path = SCHEMAS / f"{resource.group}_{version}_{resource.kind.lower()}.json"
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        if path.exists():
            schema = _lighter(json.loads(path.read_text())["schema"])
        versions.append(
            {
                "name": version,
                "served": version == spoken,
                "storage": version == spoken,
                "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}},
            }
        )
    names = {"plural": resource.plural, "singular": resource.kind.lower(), "kind": resource.kind}
    return {
        "apiVersion": CRD.api_version,
        "kind": CRD.kind,
        "metadata": {"name": resource.definition},
        "spec": {
            "group": resource.group,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "names": {**names, "listKind": f"{resource.kind}List"},
            "versions": versions,
        },
    }


def _lighter(schema: Any) -> Any:
    """Without what a pod may be in each of a RemoteMachine's Jobs, which nobody here writes: nine tenths of it all."""
    if isinstance(schema, list):
        return [_lighter(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    whole = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {key: whole if key == "provisionJob" else _lighter(part) for key, part in schema.items()}


async def install(cluster: Cluster, spoken: str) -> None:
    for resource in RESOURCES:
        wanted = definition(resource, spoken)
        found = await cluster.get(CRD, resource.definition)
        if found is None:
            await cluster.create(CRD, wanted)
        elif [(v["name"], v["served"]) for v in found["spec"]["versions"]] != [
            (v["name"], v["served"]) for v in wanted["spec"]["versions"]
        ]:
            await cluster.patch(CRD, resource.definition, None, {"spec": {"versions": wanted["spec"]["versions"]}})
    for resource in RESOURCES:
        for version in resource.versions:
            await until(partial(cluster.serves, resource.at(version)), version == spoken or len(resource.versions) == 1)


async def until(asked: Callable[[], Awaitable[Any]], answer: object) -> None:
    async with asyncio.timeout(SECONDS):
        while await asked() != answer:  # noqa: ASYNC110 - what is asked is another process
            await asyncio.sleep(0.05)


def lease(token: int = 1, lease_id: UUID | None = None) -> Lease:
    return Lease(
        lease_id=lease_id or uuid4(),
        site=SITE,
        window_id=uuid4(),
        token=token,
        node=f"{SITE}-{token}",
        opened_at=NOON,
        requested_at=NOON,
        changed_at=NOON,
    )


@dataclass
class Ground:
    """One backend in a namespace of its own, and the controllers around it."""

    kubeconfig: Path
    namespace: str
    platform: str
    version: str
    cluster: Cluster
    controllers: MachineControllers
    said: dict[str, Any] = field(default_factory=dict)
    api: KubeApi | None = None
    """The double, with its switches."""
    workload: Backend | None = None
    """Where trainers are applied; none where they are given."""
    backend: LeasedMachines = field(init=False)

    def __post_init__(self) -> None:
        self.backend = self.make()

    def counted(self) -> Counted:
        if self.platform == "k0rdent":
            parameters = {"template": "remote-1-0-0", "credential": "cred", **self.said}
            return ClusterDeployments(SITE, self.namespace, K0rdentParameters.model_validate(parameters))
        machines = [{"name": f"m{n}", "address": f"192.0.2.{n}", "sshKeySecret": "ssh"} for n in (1, 2, 3)]
        parameters = {"version": "v1.33.4+k0s.0", "machines": machines, **self.said}
        return MachineDeployments(
            SITE, self.namespace, ClusterApiParameters.model_validate(parameters), timedelta(minutes=10)
        )

    def make(self, cluster: Cluster | None = None) -> LeasedMachines:
        async def owner(cluster: Cluster) -> Object:
            return await cluster.apply(CONFIG_MAP, anchor(SITE, self.namespace))

        trainer = None
        if (workload := self.workload) is not None:
            trainer = AppliedTrainer(SITE, self.namespace, SITE, lambda kubeconfig, selector: workload)
        management = cluster or Cluster.connect(Connection(self.kubeconfig))
        return LeasedMachines(SITE, self.namespace, management, self.counted(), owner, trainer)

    async def give_kubeconfig(self) -> None:
        """What the hosted control plane's controller writes once it is up."""
        metadata = {"name": kubeconfig_secret(SITE), "namespace": self.namespace}
        data = {"value": b64encode(self.kubeconfig.read_bytes()).decode()}
        await self.cluster.create(SECRET, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})

    async def restart(self) -> None:
        await self.backend.close()
        self.backend = self.make()

    @property
    def kind(self) -> Kind:
        return CLUSTER_DEPLOYMENT.at("v1beta1") if self.platform == "k0rdent" else MACHINE_DEPLOYMENT.at(self.version)

    async def object(self) -> Object:
        name = SITE if self.platform == "k0rdent" else f"{SITE}-workers"
        found = await self.cluster.get(self.kind, name, self.namespace)
        assert found is not None
        return found

    async def count(self) -> int | None:
        return self.counted().count(await self.object())

    async def machines(self) -> list[Object]:
        return (await self.cluster.list(self.controllers.machines, self.namespace)).items

    async def machine_of(self, node: Node) -> Object:
        labels = f"{LEASE}={node.lease_id}"
        (found,) = (await self.cluster.list(self.controllers.machines, self.namespace, labels=labels)).items
        return found


@asynccontextmanager
async def grounded(kubeconfig: Path, platform: str, version: str, **said: Any) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as ending:
        cluster = await ending.enter_async_context(Cluster.connect(Connection(kubeconfig)))
        await install(cluster, version)
        namespace = f"test-{uuid4().hex[:8]}"
        await cluster.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        controllers = await ending.enter_async_context(machine_controllers(cluster, namespace, version))
        for resource, name, spec in (
            (CLUSTER_TEMPLATE, "remote-1-0-0", {"helm": {"chartRef": {"kind": "HelmChart", "name": "remote"}}}),
            (CREDENTIAL, "cred", {"identityRef": {"kind": "Secret", "name": "ssh"}}),
        ):
            kind = resource.at("v1beta1")
            metadata = {"name": name, "namespace": namespace}
            whole = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}
            await cluster.create(kind, whole)
            status = {"valid": True} if resource is CLUSTER_TEMPLATE else {"ready": True}
            await cluster.patch(kind, name, namespace, {"status": status}, subresource="status")
        ground = Ground(kubeconfig, namespace, platform, version, cluster, controllers, said)
        ending.push_async_callback(lambda: ground.backend.close())
        yield ground
    # The client's encrypted connections end a moment after it has.
    await asyncio.sleep(0.3)


async def created(ground: Ground) -> int:
    return len(ground.controllers.created)


async def there(ground: Ground) -> int:
    return len(await ground.machines())


async def gone_within(ground: Ground, node: Node, seconds: float) -> int | str | None:
    try:
        async with asyncio.timeout(seconds):
            return await ground.backend.wait(node)
    except TimeoutError:
        return "still there"


async def nothing_left(ground: Ground) -> None:
    await until(ground.machines, [])
    assert not Roster.of(await ground.object()).entries
    assert await ground.count() == 0


async def versions(ground: Ground) -> dict[tuple[str, str], str]:
    """Every object in the namespace that was written by us or for us, and its resourceVersion."""
    kinds = [resource.at(ground.version if len(resource.versions) > 1 else "v1beta1") for resource in RESOURCES]
    found = {}
    for kind in (*kinds, CONFIG_MAP):
        if kind.namespaced:
            for item in (await ground.cluster.list(kind, ground.namespace)).items:
                found[(kind.kind, item["metadata"]["name"])] = item["metadata"]["resourceVersion"]
    return found


async def failed(ground: Ground) -> int:
    return sum((found.get("status") or {}).get("phase") == "Failed" for found in await ground.machines())


async def started(ground: Ground, wanted: Lease) -> Node:
    while True:
        try:
            return await ground.backend.start(wanted, {})
        except Outage:
            continue


async def token_of(ground: Ground, name: str) -> str | None:
    found = await ground.cluster.get(ground.controllers.machines, name, ground.namespace)
    return None if found is None else found["metadata"]["annotations"].get(TOKEN)
