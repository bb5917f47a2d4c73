"""An API server for the operator's tests: the one that ``KUBECONFIG`` names, or kube-up's beside the checkout."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from windfall.provisioner.definitions.crds import crds
from windfall.servicekit.kube import Cluster, Connection, Exists
from windfall.servicekit.kube.kinds import CRD, NAMESPACE, SERVICE_ACCOUNT

KUBE_UP = Path(__file__).resolve().parents[5] / "shared" / "kube" / "kube-up"


@pytest.fixture(scope="session")
def api_server() -> Iterator[Path]:
    """The kubeconfig of a real API server; every test takes a namespace of its own."""
    if given := os.environ.get("KUBECONFIG"):
        yield Path(given)
        return
    if not KUBE_UP.exists():
        pytest.skip("no API server: KUBECONFIG is not set, and kube-up is not beside the checkout")
    command = [sys.executable, str(KUBE_UP), "--no-controllers"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        yield Path(process.stdout.readline().strip().removeprefix("export KUBECONFIG="))
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture
async def cluster(api_server: Path) -> AsyncIterator[Cluster]:
    """Knows our resources."""
    async with Cluster.connect(Connection(api_server)) as made:
        for crd in crds().values():
            with suppress(Exists):
                await made.create(CRD, crd)
        for crd in crds().values():
            async with asyncio.timeout(20):
                while not await _established(made, crd["metadata"]["name"]):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        yield made


@pytest.fixture
async def namespace(cluster: Cluster) -> str:
    """Fresh, and with the service account that a server without controllers does not make."""
    name = f"t-{uuid4().hex[:8]}"
    await cluster.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": name}}
    with suppress(Exists):
        await cluster.create(SERVICE_ACCOUNT, account)
    return name


async def _established(cluster: Cluster, name: str) -> bool:
    found = await cluster.get(CRD, name)
    conditions = ((found or {}).get("status") or {}).get("conditions") or ()
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)
