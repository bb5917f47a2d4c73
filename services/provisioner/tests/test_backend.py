"""What every backend promises: on local processes, on tasks of the loop, and on pods of a cluster that is played."""

import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from windfall.provisioner.backend import Backend
from windfall.provisioner.holdings import Lease, Node
from windfall.provisioner.kube_settings import TrainerSettings
from windfall.provisioner.kubernetes import KubernetesBackend
from windfall.provisioner.manifests.labels import LEASE
from windfall.provisioner.memory import Life, MemoryBackend
from windfall.provisioner.process import ProcessBackend
from windfall.provisioner.testing.machine_ground import grounded
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.kube import Cluster, Connection, Object
from windfall.servicekit.kube.kinds import NAMESPACE
from windfall.servicekit.testing.kube_api import kube_api
from windfall.servicekit.testing.kube_played import Course, Kubelet, played

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
STAND_IN = (sys.executable, "-I", "-S", str(Path(__file__).with_name("stand_in.py")))


def lease(token: int = 1, lease_id: UUID | None = None) -> Lease:
    return Lease(
        lease_id=lease_id or uuid4(),
        site="site-a",
        window_id=uuid4(),
        token=token,
        node=f"site-a-{token}",
        opened_at=NOON,
        requested_at=NOON,
        changed_at=NOON,
    )


async def stand_in(life: Life) -> int:
    """What ``stand_in.py`` does, as a task."""
    match life.environment.get("WINDFALL_STAND_IN", "polite"):
        case "broken":
            return 7
        case "mute":
            pass
        case _:
            life.ready.set()
    await life.drain.wait()
    return 0


@dataclass
class Bench:
    """A backend, and how to come back to what it started after a restart."""

    backend: Backend
    reopen: Callable[[], Backend]

    async def restart(self) -> None:
        await self.backend.close()
        self.backend = self.reopen()


class OnPods(KubernetesBackend):
    """Tells the kubelet that is played what it tells a node."""

    def __init__(self, kubeconfig: Path, namespace: str, manners: dict[str, str]) -> None:
        settings = TrainerSettings(kubeconfig=kubeconfig, kube_namespace=namespace, kube_image="trainer:1")
        super().__init__("site-a", settings, "windfall.site_trainer", timedelta(minutes=10), SystemClock())
        self._manners = manners

    async def start(self, lease: Lease, environment: Mapping[str, str]) -> Node:
        self._manners[str(lease.lease_id)] = environment.get("WINDFALL_STAND_IN", "polite")
        return await super().start(lease, environment)


COURSES = {
    "polite": Course(),
    "mute": Course(becomes_ready=False),
    "broken": Course(becomes_ready=False, runs=timedelta(0), exit_code=7),
}


@asynccontextmanager
async def on_the_double(folder: Path) -> AsyncIterator[Callable[[], Backend]]:
    async with kube_api(folder) as (_, kubeconfig), on(kubeconfig) as make:
        yield make


@asynccontextmanager
async def on(kubeconfig: Path) -> AsyncIterator[Callable[[], Backend]]:
    """In a namespace of its own."""
    name = f"test-{uuid4().hex[:10]}"
    manners: dict[str, str] = {}

    def course(pod: Object) -> Course:
        return COURSES[manners.get(pod["metadata"]["labels"].get(LEASE, ""), "polite")]

    async with Cluster.connect(Connection(kubeconfig)) as cluster:
        await cluster.create(NAMESPACE, {"metadata": {"name": name}})
        async with played(kubeconfig, Kubelet(course)):
            yield lambda: OnPods(kubeconfig, name, manners)
        await cluster.delete(NAMESPACE, name)


@asynccontextmanager
async def on_machines(folder: Path, platform: str) -> AsyncIterator[Callable[[], Backend]]:
    """Machines that come and go, and in the cluster that they join a trainer that is a task of this loop."""
    async with kube_api(folder) as (_, kubeconfig), grounded(kubeconfig, platform, "v1beta2") as ground:
        await ground.give_kubeconfig()
        ground.workload = MemoryBackend(stand_in)
        yield ground.make


@pytest.fixture(params=["process", "memory", "kubernetes", "kubernetes-real", "cluster-api", "k0rdent"])
def made_of(request: pytest.FixtureRequest, tmp_path: Path) -> AbstractAsyncContextManager[Callable[[], Backend]]:
    """How a backend is made, in each of its lives, while the world around it stands."""
    match request.param:
        case "process":
            return nullcontext(lambda: ProcessBackend(tmp_path, STAND_IN))
        case "memory":
            memory = MemoryBackend(stand_in)
            return nullcontext(lambda: memory)
        case "kubernetes":
            return on_the_double(tmp_path)
        case "cluster-api" | "k0rdent":
            return on_machines(tmp_path, request.param)
        case _:
            return on(request.getfixturevalue("real_kubeconfig"))


@pytest.fixture
async def bench(made_of: AbstractAsyncContextManager[Callable[[], Backend]]) -> AsyncIterator[Bench]:
    async with made_of as make:
        bench = Bench(make(), make)
        yield bench
        for node in await bench.backend.adopt():
            await bench.backend.kill(node)
            await bench.backend.wait(node)
        assert not await bench.backend.adopt()
        await bench.backend.close()


async def test_a_node_becomes_ready_and_goes_when_asked(bench: Bench) -> None:
    node = await bench.backend.start(lease(), {})
    assert await bench.backend.ready(node)
    await bench.backend.drain(node)
    await bench.backend.drain(node)
    assert await bench.backend.wait(node) == 0
    assert not await bench.backend.adopt()


async def test_a_lease_has_one_node(bench: Bench) -> None:
    wanted = lease()
    node = await bench.backend.start(wanted, {})
    assert await bench.backend.start(wanted, {}) == node
    assert await bench.backend.adopt() == (node,)


async def test_a_killed_node_says_so(bench: Bench) -> None:
    node = await bench.backend.start(lease(), {})
    await bench.backend.kill(node)
    assert await bench.backend.wait(node) == -9


async def test_a_node_that_dies_first_is_not_ready(bench: Bench) -> None:
    node = await bench.backend.start(lease(), {"WINDFALL_STAND_IN": "broken"})
    assert not await bench.backend.ready(node)
    assert await bench.backend.wait(node) == 7


async def test_a_lease_whose_node_died_gets_another(bench: Bench) -> None:
    wanted = lease()
    node = await bench.backend.start(wanted, {})
    assert await bench.backend.ready(node)
    await bench.backend.kill(node)
    await bench.backend.wait(node)
    again = await bench.backend.start(wanted, {"WINDFALL_STAND_IN": "mute"})
    await bench.backend.kill(again)
    assert not await bench.backend.ready(again), "the first attempt's readiness is not the second's"
    await bench.backend.wait(again)


async def test_an_absent_node_is_no_error(bench: Bench) -> None:
    node = await bench.backend.start(lease(), {"WINDFALL_STAND_IN": "broken"})
    await bench.backend.wait(node)
    await bench.backend.drain(node)
    await bench.backend.kill(node)
    assert await bench.backend.wait(node) is None
    assert not await bench.backend.ready(node)


async def test_the_next_life_adopts_what_runs(bench: Bench) -> None:
    nodes = [await bench.backend.start(lease(token), {}) for token in (1, 2, 3)]
    await bench.backend.kill(nodes[1])
    await bench.backend.wait(nodes[1])
    await bench.restart()
    adopted = await bench.backend.adopt()
    assert set(adopted) == {nodes[0], nodes[2]}
    assert await bench.backend.ready(nodes[0])
    await bench.backend.drain(nodes[0])
    assert await bench.backend.wait(nodes[0]) == 0


async def test_a_node_knows_itself_and_its_line_describes_it(bench: Bench) -> None:
    assert bench.backend.name in ("process", "memory", "kubernetes", "cluster-api", "k0rdent")
    assert "\n" not in bench.backend.describe()
    wanted = lease(token=4)
    node = await bench.backend.start(wanted, {})
    assert (node.lease_id, node.window_id, node.token, node.name) == (wanted.lease_id, wanted.window_id, 4, "site-a-4")
    assert node.environment == {
        "WINDFALL_LEASE_ID": str(wanted.lease_id),
        "WINDFALL_LEASE_TOKEN": "4",
        "WINDFALL_WINDOW_ID": str(wanted.window_id),
        "WINDFALL_NODE": "site-a-4",
    }
    assert os.environ.get("WINDFALL_LEASE_ID") is None
