"""What the hub's bus tells reaches the objects, from a real NATS server into the process of a real operator."""

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from windfall.contracts.envelope import seal
from windfall.contracts.events import WindowOpened
from windfall.contracts.subjects import hub_streams
from windfall.provisioner.operator.marks import SITE
from windfall.provisioner.operator.testing.installed import install
from windfall.servicekit.kube import Cluster, Connection
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.testing.fixtures import started_server
from windfall.servicekit.testing.kube_played.persistence import persist


@pytest.mark.slow
async def test_a_window_that_was_told_before_the_streams_and_the_site_were_there_counts(
    kubeconfig: Path, tmp_path: Path
) -> None:
    async with (
        started_server(tmp_path / "nats", "hub") as server,
        Cluster.connect(Connection(kubeconfig)) as cluster,
    ):
        await install(cluster)
        environment = os.environ | {
            "WINDFALL_KUBECONFIG": str(kubeconfig),
            "WINDFALL_STATE_DIR": str(tmp_path / "operator"),
            "WINDFALL_NATS_URL": server.url,
        }
        command = (sys.executable, "-W", "error", "-m", "windfall.provisioner.operator")
        process = await asyncio.create_subprocess_exec(*command, env=environment)
        try:
            metadata = {"name": "early", "namespace": "default"}
            early = {
                "apiVersion": SITE.api_version,
                "kind": "Site",
                "metadata": metadata,
                "spec": {"jurisdiction": "CA"},
            }
            await cluster.create(SITE, early)
            # Reconciled, although the bus has no streams yet.
            await _state(cluster, "early", "")
            bus = NatsBus(server.url, "test", hub_streams(()), print)
            await bus.start()
            word = WindowOpened(
                id=uuid4(),
                at=datetime.now(UTC),
                site="quebec",
                window_id=uuid4(),
                intensity_g_per_kwh=1.0,
                expected_close_at=None,
            )
            await persist(lambda: bus.publish(seal(word, "/test")))
            await cluster.create(SITE, {**early, "metadata": {**metadata, "name": "quebec"}})
            await _state(cluster, "quebec", "open")
            await bus.stop()
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0


async def _state(cluster: Cluster, name: str, state: str) -> None:
    async with asyncio.timeout(120):
        while True:
            found = await cluster.get(SITE, name, "default")
            status = (found or {}).get("status")
            if status and status.get("window", {}).get("state", "") == state and status.get("conditions"):
                return
            await asyncio.sleep(0.1)
