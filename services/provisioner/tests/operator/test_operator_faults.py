"""The operator against an API server that is down, slow, throttles, forgets, cuts, and does not trust it with more than
its role says: nothing is lost."""

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from windfall.provisioner.operator.facts import Facts
from windfall.provisioner.operator.lease_register import LeaseRegister
from windfall.provisioner.operator.marks import FEDERATION, SITE
from windfall.provisioner.operator.operating import Operating
from windfall.provisioner.operator.orders import Orders
from windfall.provisioner.operator.testing.installed import install
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.kube import Cluster, Connection, Kind, Object
from windfall.servicekit.kube.kinds import CONFIG_MAP, EVENT, ROLE, ROLE_BINDING, SECRET, STATEFUL_SET
from windfall.servicekit.leadership import Lease
from windfall.servicekit.testing.kube_api import KubeApi

ROOT = Path(__file__).resolve().parents[4]


def site(name: str, namespace: str) -> Object:
    return {
        "apiVersion": "windfall.dev/v1alpha1",
        "kind": "Site",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"jurisdiction": "CA-QC", "signal": {"rule": "carbon < 100"}, "backend": {"grace": "PT1S"}},
    }


def federation(name: str, namespace: str) -> Object:
    return {
        "apiVersion": "windfall.dev/v1alpha1",
        "kind": "Federation",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"coordinator": {"insecure": True}},
    }


async def until(what: Any, seconds: float = 60) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await what()):  # noqa: ASYNC110 - an API server sets no event
            await asyncio.sleep(0.05)
        return found


class Stand:
    """An operator that is begun anew whenever the server's absence ends it, as its composition root does."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self._connection = Connection(kubeconfig)
        self._namespace = namespace
        self.operator: Operating | None = None

    async def run(self) -> None:
        async with Cluster.connect(self._connection, timedelta(seconds=5)) as cluster:
            facts = Facts.of(await cluster.version())
            self.operator = Operating(
                cluster,
                self._connection,
                self._namespace,
                facts,
                SystemClock(),
                timedelta(seconds=30),
                Orders().release,
            )
            while True:
                try:
                    await self.operator.run()
                except Transient:
                    await asyncio.sleep(0.5)


def _down(api: KubeApi) -> None:
    api.faults.down = True


def _slow(api: KubeApi) -> None:
    api.faults.delay = timedelta(seconds=0.3)


def _throttling(api: KubeApi) -> None:
    api.faults.throttled, api.faults.retry_after_s = 0.5, 1


def _failing(api: KubeApi) -> None:
    api.faults.failing = 0.4


def _deaf(api: KubeApi) -> None:
    api.faults.deaf = 0.5


def _forgetting(api: KubeApi) -> None:
    api.faults.gone = True
    api.faults.cuts += 1


def _unwatchable(api: KubeApi) -> None:
    api.faults.unwatchable = True
    api.faults.cuts += 1


def _well(api: KubeApi) -> None:
    faults = api.faults
    faults.down, faults.gone, faults.unwatchable = False, False, False
    faults.delay, faults.cuts = timedelta(0), faults.cuts + 1
    faults.throttled = faults.failing = faults.deaf = 0.0


@pytest.mark.parametrize("fault", [_down, _slow, _throttling, _failing, _deaf, _forgetting, _unwatchable])
async def test_what_happens_while_the_server_is_ill_is_caught_up_with(
    kube_double: KubeApi, kubeconfig: Path, fault: Any
) -> None:
    async with Cluster.connect(Connection(kubeconfig)) as cluster:
        await install(cluster)
        stand = Stand(kubeconfig, "default")
        running = asyncio.create_task(stand.run())
        try:
            await cluster.create(SITE, site("first", "default"))
            await until(lambda: cluster.get(CONFIG_MAP, "first-provisioner", "default"))
            fault(kube_double)
            await asyncio.sleep(0.5)
            # What a person does gets through now and then.
            well = asyncio.get_running_loop().call_later(1.5, _well, kube_double)
            await asyncio.sleep(1.6)
            assert well.when()
            await cluster.create(SITE, site("second", "default"))
            await cluster.patch(SITE, "first", "default", {"spec": {"signal": {"rule": "carbon < 50"}}})
            await until(lambda: cluster.get(CONFIG_MAP, "second-provisioner", "default"))
            await until(lambda: _rule(cluster, "first", "carbon < 50"))
            await cluster.delete(SITE, "second", "default")
            await until(lambda: _gone(cluster, "second"))
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await asyncio.sleep(0.2)


async def test_the_role_that_is_shipped_is_enough(
    cluster: Cluster, any_kubeconfig: Path, namespace: str, tmp_path: Path
) -> None:
    """Under a user who has nothing else."""
    for document in yaml.safe_load_all((ROOT / "deploy" / "operator" / "rbac.yaml").read_text(encoding="utf-8")):
        document["metadata"]["namespace"] = namespace
        if document["kind"] == "RoleBinding":
            document["subjects"] = [{"kind": "Group", "name": "viewers", "apiGroup": "rbac.authorization.k8s.io"}]
        if document["kind"] != "ServiceAccount":
            await cluster.create({"Role": ROLE, "RoleBinding": ROLE_BINDING}[document["kind"]], document)
    theirs = tmp_path / "restricted"
    theirs.write_text(any_kubeconfig.read_text().replace("admintoken", "viewtoken"))
    async with Cluster.connect(Connection(theirs)) as restricted:
        register = LeaseRegister(restricted, namespace, "windfall-operator", timedelta(seconds=5))
        over = await register.write(Lease("one", 1), None)
        await register.write(Lease("", 1), over)
        with pytest.raises(Mistake, match="secrets"):
            await restricted.list(SECRET, namespace)
    running = asyncio.create_task(Stand(theirs, namespace).run())
    try:
        await cluster.create(SITE, site("one", namespace))
        await cluster.create(FEDERATION, federation("f", namespace))
        await until(lambda: cluster.get(STATEFUL_SET, "f-coordinator", namespace))
        await until(lambda: cluster.get(CONFIG_MAP, "f-site-one", namespace))
        # An invalid one, of which an Event tells; one that is switched off; and the end of all.
        await cluster.patch(FEDERATION, "f", namespace, {"spec": {"coordinator": {"insecure": False}}})
        await until(lambda: _some(cluster, EVENT, namespace))
        await cluster.patch(FEDERATION, "f", namespace, {"spec": {"coordinator": {"insecure": True}}})
        await cluster.patch(SITE, "one", namespace, {"spec": {"suspend": True}})
        await until(lambda: _vanished(cluster, CONFIG_MAP, "f-site-one", namespace))
        await cluster.delete(FEDERATION, "f", namespace)
        await cluster.delete(SITE, "one", namespace)
        await until(lambda: _vanished(cluster, FEDERATION, "f", namespace))
        await until(lambda: _vanished(cluster, SITE, "one", namespace))
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await asyncio.sleep(0.2)


async def _rule(cluster: Cluster, name: str, rule: str) -> bool:
    found = await cluster.get(CONFIG_MAP, f"{name}-energy-watcher", "default")
    return found is not None and found["data"]["WINDFALL_RULE"] == rule


async def _gone(cluster: Cluster, name: str) -> bool:
    return await cluster.get(SITE, name, "default") is None


async def _some(cluster: Cluster, kind: Kind, namespace: str) -> bool:
    return bool((await cluster.list(kind, namespace)).items)


async def _vanished(cluster: Cluster, kind: Kind, name: str, namespace: str) -> bool:
    return await cluster.get(kind, name, namespace) is None
