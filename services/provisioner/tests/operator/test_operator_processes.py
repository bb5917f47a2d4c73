"""The operator as processes: one works, the other takes over; whoever is killed anywhere leaves no orphan."""

import asyncio
import os
import random
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from windfall.provisioner.operator.marks import FEDERATION, FINALIZER, SELECTOR, SITE
from windfall.provisioner.operator.testing.installed import install
from windfall.servicekit.kube import Cluster, Connection, Object
from windfall.servicekit.kube.kinds import CONFIG_MAP, LEASE, STATEFUL_SET
from windfall.servicekit.natsserver import free_port

LEASE_S = 5.0


class Process:
    """One operator."""

    def __init__(self, kubeconfig: Path, namespace: str, folder: Path) -> None:
        self._environment = os.environ | {
            "WINDFALL_KUBECONFIG": str(kubeconfig),
            "WINDFALL_KUBE_NAMESPACE": namespace,
            "WINDFALL_STATE_DIR": str(folder),
            "WINDFALL_WINDOWS": "objects",
            "WINDFALL_OPERATOR_LEASE": str(LEASE_S),
        }
        self.running: asyncio.subprocess.Process | None = None

    async def start(self, *words: str) -> None:
        command = (sys.executable, "-W", "error", "-m", "windfall.provisioner.operator", *words)
        self.running = await asyncio.create_subprocess_exec(*command, env=self._environment)

    async def end(self, number: signal.Signals) -> int:
        assert self.running is not None
        if self.running.returncode is None:
            self.running.send_signal(number)
        return await self.running.wait()


@asynccontextmanager
async def processes(count: int, kubeconfig: Path, namespace: str, folder: Path) -> AsyncIterator[list[Process]]:
    made = [Process(kubeconfig, namespace, folder / f"operator-{index}") for index in range(count)]
    try:
        for process in made:
            await process.start()
        yield made
    finally:
        for process in made:
            await process.end(signal.SIGKILL)


def site(name: str, namespace: str) -> Object:
    return {
        "apiVersion": "windfall.dev/v1alpha1",
        "kind": "Site",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"jurisdiction": "CA-QC", "signal": {"rule": "carbon < 100"}},
    }


def federation(name: str, namespace: str) -> Object:
    return {
        "apiVersion": "windfall.dev/v1alpha1",
        "kind": "Federation",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "engine": "flower",
            "drainGrace": "PT1S",
            "flower": {
                "mode": "StatefulSet",
                "isolationMode": "subprocess",
                "insecure": True,
                "superlink": {"image": "flwr/superlink:1.41.0"},
                "supernodes": {"image": "flwr/supernode:1.41.0", "pools": [{"name": "a", "replicas": 1}]},
            },
        },
    }


async def leader(cluster: Cluster, namespace: str) -> str:
    found = await cluster.get(LEASE, "windfall-operator", namespace)
    return str(found["spec"]["holderIdentity"]) if found else ""


async def until(what: Any, seconds: float = 90) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await what()):  # noqa: ASYNC110 - an API server sets no event
            await asyncio.sleep(0.05)
        return found


@pytest.mark.slow
async def test_of_two_operators_one_acts_and_the_other_takes_over_when_it_is_killed(
    cluster: Cluster, any_kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    async with processes(2, any_kubeconfig, namespace, tmp_path) as both:
        await cluster.create(SITE, site("one", namespace))
        await until(lambda: cluster.get(CONFIG_MAP, "one-provisioner", namespace))
        first = await leader(cluster, namespace)
        leading = next(one for one in both if f"/{one.running.pid}/" in first)  # type: ignore[union-attr]
        other = next(one for one in both if one is not leading)
        await leading.end(signal.SIGKILL)
        await cluster.create(SITE, site("two", namespace))
        await until(lambda: cluster.get(CONFIG_MAP, "two-provisioner", namespace))
        # Its lease has run out, and everything was listed.
        assert f"/{other.running.pid}/" in await leader(cluster, namespace)  # type: ignore[union-attr]
        # One that ends in order is followed at once, and leaves nothing undone.
        assert await other.end(signal.SIGTERM) == 0
        assert await leader(cluster, namespace) == ""


@pytest.mark.slow
async def test_whatever_is_deleted_and_killed_at_any_moment_nothing_is_left_without_an_owner(
    cluster: Cluster, any_kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    chance = random.Random(20)
    async with processes(1, any_kubeconfig, namespace, tmp_path) as (operator,):
        for turn in range(6):
            await cluster.create(SITE, site(f"s{turn}", namespace))
            await cluster.create(FEDERATION, federation(f"f{turn}", namespace))
            await asyncio.sleep(chance.random())
            if chance.random() < 0.5:
                await cluster.delete(FEDERATION, f"f{turn}", namespace)
                await cluster.delete(SITE, f"s{turn}", namespace)
            await asyncio.sleep(chance.random() * 0.5)
            await operator.end(signal.SIGKILL)
            await operator.start()
        left = {one["metadata"]["name"] for one in (await cluster.list(FEDERATION, namespace)).items}
        for name in left:
            await cluster.delete(FEDERATION, name, namespace)
        for one in (await cluster.list(SITE, namespace)).items:
            await cluster.delete(SITE, one["metadata"]["name"], namespace)
        await until(lambda: _none(cluster, namespace))
    for kind in (STATEFUL_SET, CONFIG_MAP):
        for one in (await cluster.list(kind, namespace, labels=SELECTOR)).items:
            # Without controllers nothing is collected; with them it has to be: its owner is named, and gone.
            owners = one["metadata"]["ownerReferences"]
            assert [owner["controller"] for owner in owners] == [True]


@pytest.mark.slow
async def test_released_before_the_operator_is_uninstalled_nothing_waits_for_it(
    cluster: Cluster, any_kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    async with processes(1, any_kubeconfig, namespace, tmp_path) as (operator,):
        await cluster.create(SITE, site("one", namespace))
        await cluster.create(FEDERATION, federation("f", namespace))
        await until(lambda: _held(cluster, namespace))
        await operator.end(signal.SIGKILL)
        await operator.start("release")
        assert operator.running is not None
        assert await operator.running.wait() == 0
        for kind, name in ((SITE, "one"), (FEDERATION, "f")):
            await cluster.delete(kind, name, namespace)
            assert await cluster.get(kind, name, namespace) is None


@pytest.mark.slow
async def test_an_api_server_that_is_killed_and_comes_back_finds_the_operator_where_it_was(tmp_path: Path) -> None:
    state, port = tmp_path / "api", free_port()
    state.mkdir()
    command = (sys.executable, "-m", "windfall.servicekit.testing.kube_api", "--port", str(port), "--state", str(state))
    kubeconfig = state / "kubeconfig"

    async def served() -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        await process.stdout.readline()
        return process

    api = await served()
    try:
        async with (
            Cluster.connect(Connection(kubeconfig)) as cluster,
            processes(1, kubeconfig, "default", tmp_path) as (operator,),
        ):
            await install(cluster)
            for turn in range(3):
                await cluster.create(SITE, site(f"s{turn}", "default"))
                await until(lambda turn=turn: cluster.get(CONFIG_MAP, f"s{turn}-provisioner", "default"))
                api.kill()
                await api.wait()
                api = await served()
                # What happens now is seen by whoever lists anew.
                await cluster.patch(SITE, f"s{turn}", "default", {"spec": {"suspend": True}})
                await until(lambda turn=turn: _suspended(cluster, f"s{turn}"))
            assert operator.running is not None
            assert operator.running.returncode is None
    finally:
        api.kill()
        await api.wait()


async def _suspended(cluster: Cluster, name: str) -> bool:
    found = await cluster.get(SITE, name, "default")
    conditions = ((found or {}).get("status") or {}).get("conditions") or ()
    return any((one["type"], one["reason"]) == ("WindowOpen", "Suspended") for one in conditions)


async def _held(cluster: Cluster, namespace: str) -> bool:
    found = await cluster.get(FEDERATION, "f", namespace)
    also = await cluster.get(SITE, "one", namespace)
    return all(FINALIZER in (one or {"metadata": {}})["metadata"].get("finalizers", ()) for one in (found, also))


async def _none(cluster: Cluster, namespace: str) -> bool:
    return not (await cluster.list(FEDERATION, namespace)).items and not (await cluster.list(SITE, namespace)).items
