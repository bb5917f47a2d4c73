"""Leases that are machines, by Cluster API in both contracts and by k0rdent, with their controllers played."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest

from windfall.provisioner.cluster_api import MachineDeployments
from windfall.provisioner.counted import Counted
from windfall.provisioner.holdings import Lease, Node
from windfall.provisioner.k0rdent import ClusterDeployments
from windfall.provisioner.leased_machines import FAILED, KILLED, LeasedMachines
from windfall.provisioner.machine import NODE_LABEL
from windfall.provisioner.manifests.cluster_api import ClusterApiParameters
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
from windfall.provisioner.manifests.labels import LEASE, TOKEN, WINDOW, anchor
from windfall.provisioner.roster import Roster
from windfall.provisioner.testing.machine_controllers import MachineControllers, machine_controllers
from windfall.servicekit.kube import Cluster, Connection, Kind, Object
from windfall.servicekit.kube.kinds import CONFIG_MAP, CRD, NAMESPACE
from windfall.servicekit.testing.kube_api import KubeApi, kube_api

T = TypeVar("T")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SITE = "site-a"
SCHEMAS = Path(os.environ.get("WINDFALL_SCHEMAS", Path(__file__).resolve().parents[4] / "shared" / "schemas"))
RESOURCES = (
    *CLUSTER_API,
    CLUSTER_DEPLOYMENT,
    CLUSTER_TEMPLATE,
    CREDENTIAL,
    SERVICE_SET,
    MULTI_CLUSTER_SERVICE,
)
SECONDS = 20.0


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
            schema = json.loads(path.read_text())["schema"]
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

        return LeasedMachines(
            SITE, self.namespace, cluster or Cluster.connect(Connection(self.kubeconfig)), self.counted(), owner
        )

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
        async with asyncio.timeout(60):
            yield ground
    await asyncio.sleep(0.3)


PLATFORMS = [("cluster-api", "v1beta2"), ("k0rdent", "v1beta2"), ("cluster-api", "v1beta1")]
"""The backend, and the contract that its server speaks."""


@pytest.fixture(
    scope="module",
    params=[(server, *platform) for server in ("double", "real") for platform in PLATFORMS],
    ids="-".join,
)
def anywhere(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    """Of the module, so that one is done with first: a server takes a while to speak another contract."""
    chosen: tuple[str, str, str] = request.param
    return chosen


@pytest.fixture
async def ground(
    anywhere: tuple[str, str, str], request: pytest.FixtureRequest, tmp_path: Path
) -> AsyncIterator[Ground]:
    """On the double, and on a real API server where there is one."""
    server, platform, version = anywhere
    if server == "real":
        async with grounded(request.getfixturevalue("real_kubeconfig"), platform, version) as ground:
            yield ground
        return
    async with kube_api(tmp_path) as (api, kubeconfig), grounded(kubeconfig, platform, version) as ground:
        ground.api = api
        yield ground


@pytest.fixture(params=PLATFORMS, ids="-".join)
async def bare(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    """On the double."""
    platform, version = request.param
    async with kube_api(tmp_path) as (api, kubeconfig), grounded(kubeconfig, platform, version) as ground:
        ground.api = api
        yield ground


async def test_a_lease_is_a_machine_that_comes_and_goes(ground: Ground) -> None:
    wanted = lease()
    node = await ground.backend.start(wanted, {})
    assert await ground.count() == 1
    assert await ground.backend.ready(node)
    machine = await ground.machine_of(node)
    assert machine["metadata"]["labels"][WINDOW] == str(wanted.window_id)
    assert machine["metadata"]["labels"][NODE_LABEL] == str(wanted.lease_id)
    assert machine["metadata"]["annotations"][TOKEN] == "1"
    await ground.backend.drain(node)
    assert await ground.backend.wait(node) == 0
    assert await ground.count() == 0
    await until(ground.machines, [])
    assert len(ground.controllers.created) == 1


async def test_two_leases_are_two_machines_and_each_leaves_with_its_own(ground: Ground) -> None:
    nodes = await asyncio.gather(*(ground.backend.start(lease(token), {}) for token in (1, 2, 3)))
    assert await ground.count() == 3
    for node in nodes:
        assert await ground.backend.ready(node)
    leaving = await ground.machine_of(nodes[1])
    await ground.backend.drain(nodes[1])
    assert await ground.backend.wait(nodes[1]) == 0
    assert set(ground.controllers.taken) == {leaving["metadata"]["name"]}
    assert len(ground.controllers.created) == 3
    assert await ground.count() == 2


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


async def test_a_machine_that_fails_ends_its_lease_with_the_platforms_reason(ground: Ground) -> None:
    ground.controllers.manner = "fail"
    node = await ground.backend.start(lease(), {})
    said = [trouble async for trouble in ground.backend.troubles(node)]
    assert "CreateError: the machine does not answer on port 22" in said
    assert said[-1] == "CreateError: the machine does not answer on port 22"
    assert not await ground.backend.ready(node)
    assert await ground.backend.wait(node) is None
    await nothing_left(ground)


async def test_a_machine_that_failed_has_an_exit_code(bare: Ground) -> None:
    bare.controllers.manner = "fail"
    node = await bare.backend.start(lease(), {})
    assert await bare.backend.wait(node) == FAILED


async def test_a_machine_that_stalls_says_for_what_and_is_killed(bare: Ground) -> None:
    bare.controllers.manner = "stall"
    node = await bare.backend.start(lease(), {})
    async for trouble in bare.backend.troubles(node):
        if trouble == "InfrastructureReady False (PoolIsEmpty: free pooled machine not found)":
            await bare.backend.kill(node)
    assert await bare.backend.wait(node) in (KILLED, None)
    await nothing_left(bare)


async def test_the_drain_is_waited_for_and_a_kill_is_not_kept_waiting(bare: Ground) -> None:
    bare.controllers.drained.clear()
    node = await bare.backend.start(lease(), {})
    assert await bare.backend.ready(node)
    await bare.backend.drain(node)
    assert await gone_within(bare, node, 0.7) == "still there"
    await bare.backend.kill(node)
    assert await bare.backend.wait(node) == KILLED
    await nothing_left(bare)


async def test_a_slow_delete_is_seen_to_its_end_by_the_next_life(ground: Ground) -> None:
    ground.controllers.cleaned.clear()
    node = await ground.backend.start(lease(), {})
    assert await ground.backend.ready(node)
    await ground.backend.kill(node)
    assert await gone_within(ground, node, 0.7) == "still there"
    await ground.restart()
    assert await ground.backend.adopt() == (node,)
    assert not (await ground.count()), "its count is given back long before"
    await ground.backend.kill(node)
    ground.controllers.cleaned.set()
    ground.controllers.nudge()
    assert await ground.backend.wait(node) == KILLED
    await nothing_left(ground)


async def test_another_lease_does_not_wait_for_a_slow_delete(bare: Ground) -> None:
    bare.controllers.cleaned.clear()
    first = await bare.backend.start(lease(1), {})
    assert await bare.backend.ready(first)
    await bare.backend.kill(first)
    second = await bare.backend.start(lease(2), {})
    assert await bare.backend.ready(second)
    assert await gone_within(bare, first, 0.1) == "still there"
    bare.controllers.cleaned.set()
    bare.controllers.nudge()
    assert await bare.backend.wait(first) == KILLED
    assert await bare.count() == 1


async def test_a_machine_that_somebody_deletes_takes_its_lease_along(bare: Ground) -> None:
    node = await bare.backend.start(lease(), {})
    assert await bare.backend.ready(node)
    found = await bare.machine_of(node)
    await bare.cluster.delete(bare.controllers.machines, found["metadata"]["name"], bare.namespace)
    assert await bare.backend.wait(node) is None
    await until(bare.machines, [])
    await nothing_left(bare)


async def test_a_machine_that_vanished_while_nobody_looked_is_not_replaced_unsaid(bare: Ground) -> None:
    node = await bare.backend.start(lease(), {})
    assert await bare.backend.ready(node)
    await bare.backend.close()
    found = await bare.machine_of(node)
    await bare.cluster.delete(bare.controllers.machines, found["metadata"]["name"], bare.namespace)
    await until(lambda: created(bare), 2)
    bare.backend = bare.make()
    assert await bare.backend.adopt() == (node,)
    assert await bare.backend.wait(node) is None


async def test_a_count_that_somebody_changes_is_put_right(ground: Ground) -> None:
    node = await ground.backend.start(lease(), {})
    assert await ground.backend.ready(node)
    name = (await ground.object())["metadata"]["name"]
    await ground.cluster.patch(ground.kind, name, ground.namespace, {"spec": ground.counted().counting(3)})
    await until(ground.count, 1)
    await until(lambda: there(ground), 1)
    assert await ground.machine_of(node)


async def test_a_lease_is_started_once_however_often_it_is_asked_for(bare: Ground) -> None:
    wanted = lease()
    node = await bare.backend.start(wanted, {})
    assert await bare.backend.start(wanted, {}) == node
    await bare.restart()
    assert await bare.backend.start(wanted, {}) == node
    assert await bare.backend.ready(node)
    assert await bare.count() == 1
    assert len(bare.controllers.created) == 1


async def test_what_is_so_already_is_not_written_again(ground: Ground) -> None:
    wanted = lease()
    node = await ground.backend.start(wanted, {})
    assert await ground.backend.ready(node)
    before = await versions(ground)
    await ground.restart()
    assert await ground.backend.adopt() == (node,)
    await ground.restart()
    assert await ground.backend.start(wanted, {}) == node
    assert await ground.backend.ready(node)
    await asyncio.sleep(0.5)
    assert await versions(ground) == before


async def versions(ground: Ground) -> dict[tuple[str, str], str]:
    """Every object in the namespace that was written by us or for us, and its resourceVersion."""
    kinds = [resource.at(ground.version if len(resource.versions) > 1 else "v1beta1") for resource in RESOURCES]
    found = {}
    for kind in (*kinds, CONFIG_MAP):
        if kind.namespaced:
            for item in (await ground.cluster.list(kind, ground.namespace)).items:
                found[(kind.kind, item["metadata"]["name"])] = item["metadata"]["resourceVersion"]
    return found


async def test_a_plan_shows_what_is_written_and_writes_nothing(ground: Ground) -> None:
    before = await versions(ground)
    lines = [json.loads(line) for line in await ground.backend.plan(lease(), {})]
    after = await versions(ground)
    assert set(after) - set(before) <= {("ConfigMap", f"windfall-{SITE}")}
    assert ground.counted().count(lines[-1]) == 1
    assert lines[-1]["kind"] in ("MachineDeployment", "ClusterDeployment")
    assert all(line["metadata"].get("ownerReferences") for line in lines)


async def test_everything_has_an_owner(bare: Ground) -> None:
    node = await bare.backend.start(lease(), {})
    assert await bare.backend.ready(node)
    theirs = {"cred", "remote-1-0-0", f"windfall-{SITE}", "kube-root-ca.crt"}
    ours = [key for key in await versions(bare) if key[1] not in theirs]
    assert len(ours) >= 3
    kinds = {kind.kind: kind for kind in [r.at(bare.version if len(r.versions) > 1 else "v1beta1") for r in RESOURCES]}
    for kind, name in ours:
        found = await bare.cluster.get(kinds.get(kind, CONFIG_MAP), name, bare.namespace)
        assert found and found["metadata"]["ownerReferences"], f"{kind} {name} has no owner"


class Power:
    """How many writes are left until the machine on which the provisioner runs loses its power."""

    def __init__(self, writes: int) -> None:
        self.left = writes

    def use(self) -> None:
        if self.left == 0:
            raise asyncio.CancelledError("power cut")
        self.left -= 1


class CutCluster(Cluster):
    """A client whose process dies before, or right after, one of its writes."""

    power = Power(-1)
    after = False

    async def apply(self, *args: Any, **options: Any) -> Object:
        return await self._write(super().apply(*args, **options))

    async def patch(self, *args: Any, **options: Any) -> Object:
        return await self._write(super().patch(*args, **options))

    async def delete(self, *args: Any, **options: Any) -> bool:
        return await self._write(super().delete(*args, **options))

    async def _write(self, written: Coroutine[Any, Any, T]) -> T:
        if self.after:
            done = await written
            self.power.use()
            return done
        try:
            self.power.use()
        except asyncio.CancelledError:
            written.close()
            raise
        return await written


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_a_crash_at_any_write_leaves_nothing_behind(bare: Ground, after: bool) -> None:
    for writes in range(40):
        wanted = lease(writes + 1)
        node = Node.of(wanted)
        cut = CutCluster.connect(Connection(bare.kubeconfig))
        cut.power, cut.after = Power(writes), after
        await bare.backend.close()
        bare.backend = bare.make(cut)
        whole = await lived(bare, wanted)
        await bare.restart()
        for adopted in await bare.backend.adopt():
            assert adopted == node
            await bare.backend.kill(adopted)
            await bare.backend.wait(adopted)
        if writes > 10 or whole:
            await nothing_left(bare)
        if whole:
            return
    pytest.fail("a life took more than 40 writes")


async def lived(ground: Ground, wanted: Lease) -> bool:
    """Whether a lease was lived to its end; false when the power went before."""
    try:
        async with asyncio.timeout(1.5):
            node = await ground.backend.start(wanted, {})
            assert await ground.backend.ready(node)
            await ground.backend.drain(node)
            assert await ground.backend.wait(node) == 0
            return True
    except (TimeoutError, asyncio.CancelledError):
        return False


async def test_a_lease_of_two_workers_is_two_machines(bare: Ground) -> None:
    wanted = lease().model_copy(update={"workers": 2})
    node = await bare.backend.start(wanted, {})
    other = await bare.backend.start(lease(2), {})
    assert await bare.count() == 3
    assert await bare.backend.ready(node)
    assert await bare.backend.ready(other)
    await bare.restart()
    assert set(await bare.backend.adopt()) == {node, other}
    assert await bare.backend.ready(node)
    await bare.backend.drain(node)
    assert await bare.backend.wait(node) == 0
    assert await bare.count() == 1
    assert await bare.machine_of(other)
