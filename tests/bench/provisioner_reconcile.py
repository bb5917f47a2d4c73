"""What the operator costs that keeps 1,000 sites: its own process, against an API server that is a process as well.

Part of ``make bench-provisioner``; alone: ``python -m tests.bench.provisioner_reconcile``.
"""

import asyncio
import os
import random
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from tests.bench.figures import Figure, report
from tests.bench.processes import cpu_s, peak_resident
from windfall.provisioner.operator.marks import BUS_WORD, FEDERATION, SELECTOR, SITE
from windfall.provisioner.operator.testing.installed import install
from windfall.servicekit.kube import Cluster, Connection, Object
from windfall.servicekit.kube.kinds import CONFIG_MAP, NAMESPACE

SITES: Final = 1000
CHURN_PER_MINUTE: Final = SITES // 10
FLOWER: Final = 10
"""Federations of Flower, with ten pools each, so that a tenth of the sites has a pool that follows its window."""
MEASURED_S: Final = 60.0
AT_ONCE: Final = 16


async def measured() -> Sequence[Figure]:
    """Both figures, from one run."""
    with tempfile.TemporaryDirectory() as folder:
        server = _api_server(Path(folder))
        async with server as (kubeconfig, which), Cluster.connect(Connection(kubeconfig)) as cluster:
            await install(cluster)
            namespace = f"bench-{os.getpid()}"
            await cluster.create(NAMESPACE, {"metadata": {"name": namespace}})
            await _made(cluster, namespace)
            async with _operator(kubeconfig, namespace, Path(folder)) as pid:
                await _settled(cluster, namespace, pid)
                began, cpu = asyncio.get_running_loop().time(), cpu_s(pid)
                changes = await _churn(cluster, namespace)
                seconds = asyncio.get_running_loop().time() - began
                share = 100 * (cpu_s(pid) - cpu) / seconds
                memory = peak_resident(pid) / 2**20
    conditions = (
        f"{SITES} sites, one federation of all of them and {FLOWER} of Flower with 10 pools each; {changes} changes in "
        f"{seconds:.0f} s (rules, windows, labels); {which}"
    )
    return (
        Figure("reconcile 1000 sites CPU %", share, "% of one core", "under 15", {}, conditions),
        Figure("reconcile 1000 sites MiB", memory, "MiB", "under 300", {}, f"the most ever resident; {conditions}"),
    )


def site(name: str, namespace: str) -> Object:
    return {
        "apiVersion": "windfall.dev/v1alpha1",
        "kind": "Site",
        "metadata": {"name": name, "namespace": namespace, "labels": {"zone": "north"}},
        "spec": {
            "jurisdiction": "CA-QC",
            "region": "CA-QC",
            "pools": [{"name": "h100", "gpuVendor": "nvidia", "count": 8}],
            "signal": {"signals": {"carbon": {"provider": "electricitymaps", "zone": "CA-QC"}}, "rule": "carbon < 100"},
            "backend": {"name": "kubernetes", "parameters": {"kubeNamespace": "windfall"}},
        },
    }


def _federation(name: str, namespace: str, spec: dict[str, Any]) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "windfall.dev/v1alpha1", "kind": "Federation", "metadata": metadata, "spec": spec}


def _flower(index: int, namespace: str) -> Object:
    pools = [{"name": f"p{one}", "replicas": 2, "site": f"s{index * 10 + one:04}"} for one in range(10)]
    flower = {
        "mode": "StatefulSet",
        "isolationMode": "subprocess",
        "insecure": True,
        "superlink": {"image": "flwr/superlink:1.41.0"},
        "supernodes": {"image": "flwr/supernode:1.41.0", "pools": pools},
    }
    return _federation(f"flower{index}", namespace, {"engine": "flower", "flower": flower})


async def _made(cluster: Cluster, namespace: str) -> None:
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(index: int) -> None:
        async with turns:
            await cluster.create(SITE, site(f"s{index:04}", namespace))

    await asyncio.gather(*(one(index) for index in range(SITES)))
    spec = {"allowedJurisdictions": ["CA"], "coordinator": {"insecure": True}}
    await cluster.create(FEDERATION, _federation("all", namespace, spec))
    for index in range(FLOWER):
        await cluster.create(FEDERATION, _flower(index, namespace))


async def _settled(cluster: Cluster, namespace: str, pid: int) -> None:
    """Everything is made, and the operator has nothing to do."""
    wanted = 3 * SITES + 1
    while len((await cluster.list(CONFIG_MAP, namespace, labels=SELECTOR)).items) < wanted:  # noqa: ASYNC110
        await asyncio.sleep(1)
    while True:
        before = cpu_s(pid)
        await asyncio.sleep(3)
        if cpu_s(pid) - before < 0.15:
            return


async def _churn(cluster: Cluster, namespace: str) -> int:
    """A tenth of the sites a minute: 45 % another rule, 45 % a window that opens or closes, 10 % other labels."""
    chance = random.Random(5)
    count = round(CHURN_PER_MINUTE * MEASURED_S / 60)
    loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
    for turn in range(count):
        await asyncio.sleep(max(0.0, began + turn * MEASURED_S / count - loop.time()))
        name, draw = f"s{chance.randrange(SITES):04}", chance.random()
        if draw < 0.45:
            rule = f"carbon < {chance.randrange(50, 150)}"
            await cluster.patch(SITE, name, namespace, {"spec": {"signal": {"rule": rule}}})
        elif draw < 0.9:
            await _window(cluster, name, namespace, "open" if chance.random() < 0.5 else "closed")
        else:
            zone = "north" if chance.random() < 0.5 else "south"
            await cluster.patch(SITE, name, namespace, {"metadata": {"labels": {"zone": zone}}})
    await asyncio.sleep(max(0.0, began + MEASURED_S - loop.time()))
    return count


async def _window(cluster: Cluster, name: str, namespace: str, state: str) -> None:
    at = datetime.now(UTC).isoformat()
    metadata = {"name": name, "namespace": namespace}
    status = {"window": {"id": f"w-{at}", "state": state, "at": at, "because": ""}}
    obj = {"apiVersion": SITE.api_version, "kind": "Site", "metadata": metadata, "status": status}
    await cluster.apply_status(SITE, obj, manager=BUS_WORD, force=True)


@asynccontextmanager
async def _api_server(folder: Path) -> AsyncIterator[tuple[Path, str]]:
    if named := os.environ.get("KUBECONFIG"):
        yield Path(named), "a real API server"
        return
    command = (sys.executable, "-m", "windfall.servicekit.testing.kube_api", "--state", str(folder))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        line = (await process.stdout.readline()).decode().strip()
        yield Path(line.removeprefix("export KUBECONFIG=")), "the double of an API server, in a process of its own"
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


@asynccontextmanager
async def _operator(kubeconfig: Path, namespace: str, folder: Path) -> AsyncIterator[int]:
    environment = os.environ | {
        "WINDFALL_KUBECONFIG": str(kubeconfig),
        "WINDFALL_KUBE_NAMESPACE": namespace,
        "WINDFALL_STATE_DIR": str(folder / "operator"),
        "WINDFALL_WINDOWS": "objects",
        "WINDFALL_LOG_LEVEL": "WARNING",
    }
    command = (sys.executable, "-m", "windfall.provisioner.operator")
    process = await asyncio.create_subprocess_exec(*command, env=environment)
    try:
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


if __name__ == "__main__":
    report("provisioner-reconcile", asyncio.run(measured()))
