"""A lease's trainer inside the cluster that its machine joins, with a second API server for that cluster."""

import asyncio
import json
import logging
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml

from windfall.provisioner import machine_backends
from windfall.provisioner.applied_trainer import AppliedTrainer, secret_name
from windfall.provisioner.backend import Backend
from windfall.provisioner.cluster_api import MachineDeployments
from windfall.provisioner.holdings import Node
from windfall.provisioner.judgement import KILLED
from windfall.provisioner.kubeconfig import HeldKubeconfig, held
from windfall.provisioner.leased_machines import LeasedMachines
from windfall.provisioner.machine import NODE_LABEL
from windfall.provisioner.manifests.cluster_parameters import ClusterApiParameters
from windfall.provisioner.manifests.contracts import CLUSTER_API, MACHINE
from windfall.provisioner.manifests.labels import anchor
from windfall.provisioner.memory import Life, MemoryBackend
from windfall.provisioner.settings import ProvisionerSettings
from windfall.provisioner.testing.machine_controllers import MachineControllers, machine_controllers
from windfall.provisioner.testing.machine_ground import NOON, SITE, lease
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Cluster, Connection, Object
from windfall.servicekit.kube.kinds import CONFIG_MAP, CRD, JOB, NAMESPACE, NODE, POD, SECRET
from windfall.servicekit.settings import load
from windfall.servicekit.testing.kube_api import kube_api
from windfall.servicekit.testing.kube_played import Course, Kubelet, played
from windfall.servicekit.testing.kube_played import node as machine_node

NAMED = "energy"
PARAMETERS = {
    "version": "v1.33.4+k0s.0",
    "machines": [{"name": f"m{n}", "address": f"192.0.2.{n}", "sshKeySecret": "ssh"} for n in (1, 2, 3)],
    "trainer": "apply",
}
SECONDS = 60.0
KEY = "-----BEGIN PRIVATE KEY-----\nnobody may see this\n-----END PRIVATE KEY-----\n"


def open_definition(resource: Any) -> Object:
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    names = {"plural": resource.plural, "singular": resource.kind.lower(), "kind": resource.kind}
    version = {"name": "v1beta2", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": CRD.api_version,
        "kind": CRD.kind,
        "metadata": {"name": resource.definition},
        "spec": {
            "group": resource.group,
            "scope": "Namespaced",
            "names": {**names, "listKind": f"{resource.kind}List"},
            "versions": [{**version, "subresources": {"status": {}}}],
        },
    }


@dataclass
class Inner:
    """What the workload cluster's backend was made with."""

    kubeconfig: Path
    selector: Mapping[str, str]


class Workload:
    """A backend of the workload cluster whose pods outlive whoever started them."""

    def __init__(self) -> None:
        self.lives: list[Life] = []
        self.made: list[Inner] = []
        self.polite = True
        self._pods = MemoryBackend(self.live)

    async def live(self, life: Life) -> int:
        self.lives.append(life)
        life.ready.set()
        await (life.drain.wait() if self.polite else asyncio.Event().wait())
        return 0

    def make(self, kubeconfig: Path, selector: Mapping[str, str]) -> Backend:
        self.made.append(Inner(kubeconfig, selector))
        return self._pods

    async def running(self) -> tuple[Node, ...]:
        return tuple(await self._pods.adopt())


@dataclass
class Ground:
    management: Path
    cluster: Cluster
    controllers: MachineControllers
    workload: Workload
    backend: LeasedMachines

    async def restart(self) -> None:
        await self.backend.close()
        self.backend = backend(self.management, self.workload)


def backend(management: Path, workload: Workload) -> LeasedMachines:
    async def owner(cluster: Cluster) -> Object:
        return await cluster.apply(CONFIG_MAP, anchor(SITE, NAMED))

    said = ClusterApiParameters.model_validate(PARAMETERS)
    counted = MachineDeployments(SITE, NAMED, said, SystemClock().wall(NOON - NOON))
    trainer = AppliedTrainer(SITE, NAMED, SITE, workload.make)
    return LeasedMachines(SITE, NAMED, Cluster.connect(Connection(management)), counted, owner, trainer)


@asynccontextmanager
async def grounded(folder: Path) -> AsyncIterator[Ground]:
    async with kube_api(folder) as (_, management), Cluster.connect(Connection(management)) as cluster:
        await cluster.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMED}})
        for resource in CLUSTER_API:
            await cluster.create(CRD, open_definition(resource))
        async with machine_controllers(cluster, NAMED, "v1beta2") as controllers:
            workload = Workload()
            ground = Ground(management, cluster, controllers, workload, backend(management, workload))
            try:
                async with asyncio.timeout(SECONDS):
                    yield ground
            finally:
                await ground.backend.close()


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with grounded(tmp_path) as ground:
        yield ground


async def give_kubeconfig(ground: Ground) -> None:
    """What the hosted control plane's controller writes once it is up."""
    text = yaml.safe_dump(kubeconfig("https://cp.example:30443"))
    data = {"value": b64encode(text.encode()).decode()}
    metadata = {"name": f"{SITE}-kubeconfig", "namespace": NAMED}
    await ground.cluster.create(SECRET, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})


def kubeconfig(server: str, **user: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "a",
        "clusters": [
            {"name": "a", "cluster": {"server": server, "certificate-authority-data": b64encode(b"CA").decode()}}
        ],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "users": [{"name": "a", "user": user or {"client-key-data": b64encode(KEY.encode()).decode()}}],
    }


async def secrets(ground: Ground) -> list[str]:
    return sorted(found["metadata"]["name"] for found in (await ground.cluster.list(SECRET, NAMED)).items)


async def test_the_trainer_starts_on_the_leases_machine_and_its_end_frees_it(ground: Ground) -> None:
    await give_kubeconfig(ground)
    wanted = lease()
    node = await ground.backend.start(wanted, {"WINDFALL_FEDERATION": "demo", "HOME": "/root"})
    assert await ground.backend.ready(node)
    (life,) = ground.workload.lives
    assert life.environment["WINDFALL_FEDERATION"] == "demo"
    assert "HOME" not in life.environment
    assert ground.workload.made[0].selector == {NODE_LABEL: str(wanted.lease_id)}
    await ground.backend.drain(node)
    assert await ground.backend.wait(node) == 0
    assert await ground.workload.running() == ()
    assert await secrets(ground) == [f"{SITE}-kubeconfig"]
    assert not (await ground.cluster.list(MACHINE.at("v1beta2"), NAMED)).items


async def test_a_trainer_that_ends_by_itself_gives_the_machine_back(ground: Ground) -> None:
    await give_kubeconfig(ground)
    node = await ground.backend.start(lease(), {})
    assert await ground.backend.ready(node)
    ground.workload.lives[0].drain.set()
    assert await ground.backend.wait(node) == 0
    assert not (await ground.cluster.list(MACHINE.at("v1beta2"), NAMED)).items


async def test_a_killed_trainer_and_its_machine_go(ground: Ground) -> None:
    await give_kubeconfig(ground)
    ground.workload.polite = False
    node = await ground.backend.start(lease(), {})
    assert await ground.backend.ready(node)
    await ground.backend.drain(node)
    await ground.backend.kill(node)
    assert await ground.backend.wait(node) == KILLED
    assert await ground.workload.running() == ()


async def test_it_waits_for_a_control_plane_that_is_not_up(ground: Ground) -> None:
    node = await ground.backend.start(lease(), {})
    async for trouble in ground.backend.troubles(node):
        if "has no kubeconfig yet" in trouble:
            break
    await give_kubeconfig(ground)
    assert await ground.backend.ready(node)


async def test_the_next_life_starts_the_trainer_that_the_first_could_not(ground: Ground) -> None:
    node = await ground.backend.start(lease(), {"WINDFALL_FEDERATION": "demo"})
    async for trouble in ground.backend.troubles(node):
        if "has no kubeconfig yet" in trouble:
            break
    await ground.restart()
    await give_kubeconfig(ground)
    assert await ground.backend.adopt() == (node,)
    assert await ground.backend.ready(node)
    assert ground.workload.lives[0].environment["WINDFALL_FEDERATION"] == "demo"


async def test_a_trainer_of_an_earlier_life_is_drained_and_not_killed(ground: Ground) -> None:
    await give_kubeconfig(ground)
    node = await ground.backend.start(lease(), {})
    assert await ground.backend.ready(node)
    await ground.restart()
    assert await ground.backend.adopt() == (node,)
    await ground.backend.drain(node)
    assert await ground.backend.wait(node) == 0
    assert len(ground.workload.lives) == 1
    assert ground.workload.lives[0].drain.is_set()


async def test_the_leases_secret_is_its_own(ground: Ground) -> None:
    wanted = lease()
    node = await ground.backend.start(wanted, {"WINDFALL_A": "b"})
    found = await ground.cluster.get(SECRET, secret_name(node), NAMED)
    assert found is not None
    assert found["metadata"]["ownerReferences"]
    assert UUID(found["metadata"]["labels"]["windfall.dev/lease"]) == wanted.lease_id
    await ground.backend.kill(node)
    await ground.backend.wait(node)
    assert await secrets(ground) == []


@pytest.mark.parametrize("adopted", [True, False], ids=["adopted", "killed"])
async def test_what_a_start_that_was_cut_has_kept_goes(ground: Ground, adopted: bool) -> None:
    held = await ground.backend.start(lease(1), {})
    wanted = lease(2)
    owner = await ground.cluster.apply(CONFIG_MAP, anchor(SITE, NAMED))
    await AppliedTrainer(SITE, NAMED, SITE, ground.workload.make).keep(ground.cluster, owner, wanted, {})
    assert secret_name(Node.of(wanted)) in await secrets(ground)
    if adopted:
        await ground.restart()
        assert await ground.backend.adopt() == (held,)
    else:
        await ground.backend.kill(Node.of(wanted))
    assert await secrets(ground) == [secret_name(held)]


async def test_the_kubernetes_backend_is_the_one_that_applies_it(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("management", "workload")]
    for folder in folders:
        folder.mkdir()
    async with AsyncExitStack() as stack:
        clusters = []
        for folder in folders:
            api, kubeconfig = await stack.enter_async_context(kube_api(folder))
            cluster = await stack.enter_async_context(Cluster.connect(Connection(kubeconfig)))
            await cluster.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMED}})
            clusters.append((api, kubeconfig, cluster))
        (_, management, cluster), (api, elsewhere, workload) = clusters
        for resource in CLUSTER_API:
            await cluster.create(CRD, open_definition(resource))
        data = {"value": b64encode(api.kubeconfig().encode()).decode()}
        metadata = {"name": f"{SITE}-kubeconfig", "namespace": NAMED}
        await cluster.create(SECRET, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
        await stack.enter_async_context(played(elsewhere, Kubelet(lambda pod: Course())))
        await stack.enter_async_context(machine_controllers(cluster, NAMED, "v1beta2"))
        environ = {
            "WINDFALL_SITE": SITE,
            "WINDFALL_STATE_DIR": str(tmp_path),
            "WINDFALL_KUBECONFIG": str(management),
            "WINDFALL_KUBE_NAMESPACE": NAMED,
            "WINDFALL_KUBE_IMAGE": "trainer:1",
            "WINDFALL_CLUSTER_API": json.dumps(PARAMETERS),
        }
        backend = machine_backends.cluster_api(load(ProvisionerSettings, environ), environ)
        stack.push_async_callback(backend.close)
        async with asyncio.timeout(SECONDS):
            wanted = lease()
            node = await backend.start(wanted, {"WINDFALL_FEDERATION": "demo"})
            # Cluster API copies the label from the Machine to its Node.
            await workload.create(NODE, machine_node("gpu-1", {NODE_LABEL: str(wanted.lease_id)}))
            assert await backend.ready(node)
            (pod,) = (await workload.list(POD, NAMED)).items
            assert pod["spec"]["nodeSelector"] == {NODE_LABEL: str(wanted.lease_id)}
            await backend.drain(node)
            assert await backend.wait(node) == 0
            assert not (await cluster.list(MACHINE.at("v1beta2"), NAMED)).items
            assert not (await workload.list(JOB, NAMED)).items


# --- the kubeconfig ---------------------------------------------------------------------------------------------------


def test_nothing_of_a_kubeconfig_reaches_a_disk(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with HeldKubeconfig(yaml.safe_dump(kubeconfig("https://cp.example")).encode(), "the Secret") as kept:
        assert str(kept.path.readlink()).startswith("/memfd:")
        said = yaml.safe_load(kept.path.read_text())
        user = said["users"][0]["user"]
        assert set(user) == {"client-key"}
        assert str(Path(user["client-key"]).readlink()).startswith("/memfd:")
        assert Path(user["client-key"]).read_text() == KEY
        path = kept.path
    assert not path.exists() or not str(path.readlink()).startswith("/memfd:kubeconfig")
    assert "nobody may see this" not in caplog.text


async def test_a_client_connects_by_it(tmp_path: Path) -> None:
    async with kube_api(tmp_path) as (api, management), Cluster.connect(Connection(management)) as cluster:
        text = api.kubeconfig()
        metadata = {"name": "a-kubeconfig", "namespace": "default"}
        data = {"value": b64encode(text.encode()).decode()}
        await cluster.create(SECRET, {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
        kept = await held(cluster, "a-kubeconfig", "default")
        assert kept is not None
        with kept:
            async with Cluster.connect(Connection(kept.path)) as workload:
                assert await workload.get(SECRET, "a-kubeconfig", "default")
        assert await held(cluster, "b-kubeconfig", "default") is None


@pytest.mark.parametrize(
    ("user", "fault"),
    [
        ({"exec": {"command": "sh", "apiVersion": "v1"}}, "uses exec"),
        ({"tokenFile": "/etc/shadow"}, "uses tokenFile"),
        ({"client-key": "/root/.ssh/id"}, "names a file as client-key"),
        ({"client-key-data": "?"}, "is no kubeconfig"),
    ],
)
def test_a_kubeconfig_that_reaches_out_is_refused(user: dict[str, Any], fault: str) -> None:
    with pytest.raises(Mistake, match=fault):
        HeldKubeconfig(yaml.safe_dump(kubeconfig("https://cp.example", **user)).encode(), "the Secret")


def test_what_is_no_kubeconfig_is_not_quoted() -> None:
    with pytest.raises(Mistake, match="is no kubeconfig") as raised:
        HeldKubeconfig(b"{secret: [", "the Secret energy/a-kubeconfig")
    assert "secret:" not in str(raised.value)
