"""``windfall apply`` and ``windfall delete`` while the real operator runs, on a real API server where one is at hand.

Kubelets are played, and where there are none the controllers of StatefulSets; no container runs.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import yaml

from tests.commanded import ran
from windfall.cli.declared.applying import applied
from windfall.cli.declared.deleting import deleted, found
from windfall.cli.declared.kinds import FEDERATION
from windfall.cli.declared.reading import read
from windfall.cli.declared.waiting import Named, until_gone, until_ready
from windfall.provisioner.operator.testing.installed import install
from windfall.provisioner.operator.testing.played_cluster import played
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.errors import Mistake
from windfall.servicekit.kube import Cluster, Connection, Exists, Object
from windfall.servicekit.kube.kinds import CONFIG_MAP, NAMESPACE, SERVICE_ACCOUNT, STATEFUL_SET

EXAMPLES = Path(__file__).resolve().parents[1] / "deploy" / "examples"
WITHIN = timedelta(seconds=120)
WAIT = ("--wait", f"{WITHIN.total_seconds():g}")


@asynccontextmanager
async def operator(kubeconfig: Path, namespace: str, folder: Path) -> AsyncIterator[None]:
    """The operator as its image starts it; it says on standard error what it does."""
    environment = os.environ | {
        "WINDFALL_KUBECONFIG": str(kubeconfig),
        "WINDFALL_KUBE_NAMESPACE": namespace,
        "WINDFALL_STATE_DIR": str(folder),
        "WINDFALL_WINDOWS": "objects",
        "WINDFALL_OPERATOR_LEASE": "10",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "windfall.provisioner.operator"), env=environment
    )
    try:
        yield
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def flower(name: str, **more: object) -> Object:
    """A federation of an app of Flower, with a pool that runs whatever the power is."""
    spec = {
        "engine": "flower",
        "drainGrace": "PT30S",
        "flower": {
            "mode": "StatefulSet",
            "isolationMode": "subprocess",
            "insecure": True,
            "superlink": {"image": "flwr/superlink:1.41.0"},
            "supernodes": {"image": "flwr/supernode:1.41.0", "pools": [{"name": "a", "replicas": 1}]},
            **more,
        },
    }
    return {"apiVersion": FEDERATION.api_version, "kind": "Federation", "metadata": {"name": name}, "spec": spec}


@pytest.mark.timeout(300)
async def test_what_is_applied_becomes_ready_is_changed_and_goes_as_the_operator_has_it(
    best_kubeconfig: Path, tmp_path: Path
) -> None:
    namespace = f"test-{uuid4().hex[:8]}"
    here = ("--kubeconfig", str(best_kubeconfig), "-n", namespace)
    connection = Connection(best_kubeconfig)
    async with Cluster.connect(connection) as cluster:
        await install(cluster)
        await cluster.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": namespace},
        }
        with suppress(Exists):
            # A server without controllers makes none.
            await cluster.create(SERVICE_ACCOUNT, account)
        async with (
            played(cluster, namespace, SystemClock(), timedelta(seconds=0.2)),
            operator(best_kubeconfig, namespace, tmp_path / "operator"),
        ):
            declared = tmp_path / "flower.yaml"
            declared.write_text(yaml.safe_dump(flower("app")))
            paths = [str(EXAMPLES / "sites.yaml"), str(EXAMPLES / "federation-windfall.yaml"), str(declared)]
            files = [word for path in paths for word in ("-f", path)]
            code, out, err = await ran("apply", *files, *here, *WAIT)
            assert (code, out.count(" created\n")) == (0, 4), err
            for one in ("site/quebec", "site/texas", "federation/forest", "federation/app"):
                assert f"{one} is ready\n" in err
            # What the operator made of it stands, and nothing that it writes is a change of what was declared.
            assert await cluster.get(CONFIG_MAP, "quebec-provisioner", namespace)
            made = {one["metadata"]["name"] for one in (await cluster.list(STATEFUL_SET, namespace)).items}
            assert {"forest-coordinator", "app-superlink", "app-supernode-a"} <= made, made
            again = await applied(read(paths), connection, namespace, force=False, dry_run=True)
            assert [one.state for one in again] == ["unchanged"] * 4

            # A change is waited for as it stands now: this one the operator refuses.
            declared.write_text(yaml.safe_dump(flower("app", version="1.36.0")))
            await applied(read([str(declared)]), connection, namespace, force=False, dry_run=False)
            with pytest.raises(Mistake, match=r"federation/app is refused: version 1\.36\.0 of Flower is not known"):
                await until_ready([Named(FEDERATION, namespace, "app")], connection, WITHIN, print)

            code, out, err = await ran("delete", "federation", "app", *here, "--yes", *WAIT)
            assert (code, out) == (0, "federation/app goes when it is drained\nfederation/app is gone\n"), err
            assert "its SuperNodes finish what they train" in err
            for what, name in (("site", "quebec"), ("federation", "forest"), ("site", "texas")):
                named, stands = await found(what, name, connection, namespace)
                await deleted(named, stands, connection)
                await until_gone(named, connection, WITHIN, print)
                assert await cluster.get(named.kind, name, namespace) is None
        await cluster.delete(NAMESPACE, namespace)
