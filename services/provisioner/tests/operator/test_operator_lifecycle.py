"""The operator on an API server: it makes, scales, drains and lets go; the controllers and kubelets are played."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from windfall.contracts.commands import ReleaseNode
from windfall.contracts.envelope import unseal
from windfall.contracts.events import NodeReady, NodeReleased, WindowClosed, WindowOpened
from windfall.contracts.subjects import ORDERS_STREAM, hub_streams
from windfall.provisioner.operator.draining import Release
from windfall.provisioner.operator.facts import Facts
from windfall.provisioner.operator.marks import FEDERATION, SELECTOR, SITE
from windfall.provisioner.operator.operating import Operating
from windfall.provisioner.operator.orders import Orders
from windfall.provisioner.operator.testing.played_cluster import played
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.kube import Cluster, Connection, Kind, Object
from windfall.servicekit.kube.kinds import (
    CONFIG_MAP,
    DAEMON_SET,
    EVENT,
    PDB,
    PDB_BETA,
    PERSISTENT_VOLUME_CLAIM,
    POD,
    SERVICE,
    STATEFUL_SET,
)
from windfall.servicekit.testing.kube_examples import ApiServer
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain

CLOCK = SystemClock()


def site(name: str, namespace: str, jurisdiction: str = "CA-QC", **spec: Any) -> Object:
    metadata = {"name": name, "namespace": namespace, "labels": {"zone": "north"}}
    given = {"jurisdiction": jurisdiction, "signal": {"rule": "carbon < 100"}, "backend": {"grace": "PT5S"}, **spec}
    return {"apiVersion": "windfall.dev/v1alpha1", "kind": "Site", "metadata": metadata, "spec": given}


def flower(name: str, namespace: str, *pools: dict[str, Any], mode: str = "StatefulSet", **spec: Any) -> Object:
    given = {
        "engine": "flower",
        "flower": {
            "mode": mode,
            "isolationMode": "subprocess",
            "insecure": True,
            "superlink": {"image": "flwr/superlink:1.41.0"},
            "supernodes": {"image": "flwr/supernode:1.41.0", "pools": list(pools)},
        },
        **spec,
    }
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "windfall.dev/v1alpha1", "kind": "Federation", "metadata": metadata, "spec": given}


def windfall(name: str, namespace: str, **spec: Any) -> Object:
    given = {"task": "gpt-neox", "coordinator": {"insecure": True}, **spec}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "windfall.dev/v1alpha1", "kind": "Federation", "metadata": metadata, "spec": given}


@asynccontextmanager
async def operating(
    cluster: Cluster, kubeconfig: Path, namespace: str, release: Release | None = None
) -> AsyncIterator[Operating]:
    facts = Facts.of(await cluster.version())
    made = Operating(
        cluster, Connection(kubeconfig), namespace, facts, CLOCK, timedelta(minutes=30), release or Orders().release
    )
    running = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        # kopf closes its connections, and TLS says good-bye on the loop's next turns.
        await asyncio.sleep(0.2)


async def until(what: Callable[[], Awaitable[Any]], seconds: float = 60) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := await what()):  # noqa: ASYNC110 - an API server sets no event
            await asyncio.sleep(0.05)
        return found


async def condition(cluster: Cluster, kind: Kind, name: str, namespace: str, which: str) -> dict[str, Any]:
    found = await cluster.get(kind, name, namespace)
    conditions = ((found or {}).get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one["type"] == which), {})


def opened(name: str) -> WindowOpened:
    return WindowOpened(
        id=uuid4(), at=datetime.now(UTC), site=name, window_id=uuid4(), intensity_g_per_kwh=50.0, expected_close_at=None
    )


def closed(word: WindowOpened) -> WindowClosed:
    at = datetime.now(UTC)
    return WindowClosed(
        id=uuid4(), at=at, site=word.site, window_id=word.window_id, reason="dirty", crossed_at=at, because="dirty"
    )


def hear(operator: Operating, word: WindowOpened | WindowClosed) -> None:
    operator.hearsay.window(word)
    operator.queue.add((SITE, word.site))


async def names(cluster: Cluster, kind: Kind, namespace: str) -> list[str]:
    return sorted(one["metadata"]["name"] for one in (await cluster.list(kind, namespace, labels=SELECTOR)).items)


async def replicas(cluster: Cluster, name: str, namespace: str) -> int | None:
    found = await cluster.get(STATEFUL_SET, name, namespace)
    return None if found is None else int(found["spec"]["replicas"])


async def children(cluster: Cluster) -> tuple[Kind, ...]:
    pdb = PDB if await cluster.serves(PDB) else PDB_BETA
    return (CONFIG_MAP, DAEMON_SET, pdb, PERSISTENT_VOLUME_CLAIM, SERVICE, STATEFUL_SET)


async def versions(cluster: Cluster, namespace: str) -> dict[str, str]:
    return {
        f"{kind.kind}/{one['metadata']['name']}": one["metadata"]["resourceVersion"]
        for kind in (SITE, FEDERATION, *await children(cluster))
        for one in (await cluster.list(kind, namespace, labels="" if kind in (SITE, FEDERATION) else SELECTOR)).items
    }


async def test_a_pool_follows_the_window_of_its_site_and_drains_when_it_closes(
    cluster: Cluster, any_kubeconfig: Path, namespace: str
) -> None:
    async with (
        played(cluster, namespace, CLOCK, timedelta(seconds=1)) as kubelets,
        operating(cluster, any_kubeconfig, namespace) as operator,
    ):
        await cluster.create(SITE, site("quebec", namespace))
        await cluster.create(FEDERATION, flower("demo", namespace, {"name": "q", "replicas": 2, "site": "quebec"}))
        await until(lambda: names(cluster, STATEFUL_SET, namespace))
        await until(lambda: _is(condition(cluster, FEDERATION, "demo", namespace, "PoolsReady"), reason="AtZero"))
        window = opened("quebec")
        hear(operator, window)
        await until(lambda: _is(condition(cluster, FEDERATION, "demo", namespace, "Ready"), status="True"))
        found = await cluster.get(SITE, "quebec", namespace)
        assert found is not None
        assert found["status"]["window"]["id"] == str(window.window_id)
        hear(operator, closed(window))
        await until(lambda: _no_pods(cluster, namespace, "supernode"))
        ready = await condition(cluster, FEDERATION, "demo", namespace, "Ready")
        assert ready["reason"] == "AtZero"
        assert "window of site quebec is closed" in ready["message"]
        assert sorted(set(kubelets.born)) == ["demo-superlink-0", "demo-supernode-q-0", "demo-supernode-q-1"]


async def test_a_restart_knows_the_window_from_the_object_alone(
    cluster: Cluster, any_kubeconfig: Path, namespace: str
) -> None:
    await cluster.create(SITE, site("quebec", namespace))
    await cluster.create(FEDERATION, flower("demo", namespace, {"name": "q", "replicas": 3, "site": "quebec"}))
    async with operating(cluster, any_kubeconfig, namespace) as operator:
        hear(operator, opened("quebec"))
        await until(lambda: _equals(replicas(cluster, "demo-supernode-q", namespace), 3))
    async with operating(cluster, any_kubeconfig, namespace) as operator:
        await until(lambda: _primed(operator))
        await operator.queue.idle()
        assert await replicas(cluster, "demo-supernode-q", namespace) == 3


async def test_an_unchanged_object_is_never_changed(cluster: Cluster, any_kubeconfig: Path, namespace: str) -> None:
    await cluster.create(SITE, site("quebec", namespace, dataSets=[{"name": "d", "path": "/data"}]))
    await cluster.create(SITE, site("texas", namespace, "US-TX"))
    pool = {
        "name": "q",
        "replicas": 1,
        "site": "quebec",
        "env": [{"name": "B", "value": "$(A)"}, {"name": "A", "value": "1"}],
        "nodeConfig": {"z": "1", "a": "{replicas}"},
    }
    await cluster.create(FEDERATION, flower("flower", namespace, pool))
    await cluster.create(FEDERATION, windfall("own", namespace, allowedJurisdictions=["CA"]))
    async with operating(cluster, any_kubeconfig, namespace) as operator:
        await until(lambda: names(cluster, CONFIG_MAP, namespace))
        await _settled(operator)
        before = await versions(cluster, namespace)
        statuses = operator.reconciler.record.statuses
        for _ in range(3):
            # Everything is asked for anew, whatever is known.
            for owner in ((SITE, "quebec"), (SITE, "texas"), (FEDERATION, "flower"), (FEDERATION, "own")):
                operator.reconciler.applying.forget(owner)
                operator.queue.add(owner)
            await _settled(operator)
        assert await versions(cluster, namespace) == before
        assert operator.reconciler.record.statuses == statuses
        writes = operator.reconciler.applying.writes
        operator.queue.add((FEDERATION, "own"))
        await _settled(operator)
        assert operator.reconciler.applying.writes == writes, "what is as it was applied costs no request"
    async with operating(cluster, any_kubeconfig, namespace) as operator:
        await until(lambda: _primed(operator))
        await _settled(operator)
        assert await versions(cluster, namespace) == before, "another operator finds everything as it should be"


async def test_what_somebody_changes_or_deletes_comes_back(
    cluster: Cluster, any_kubeconfig: Path, namespace: str
) -> None:
    await cluster.create(SITE, site("quebec", namespace))
    async with operating(cluster, any_kubeconfig, namespace) as operator:
        await until(
            lambda: _equals(names(cluster, CONFIG_MAP, namespace), ["quebec-energy-watcher", "quebec-provisioner"])
        )
        await _settled(operator)
        await cluster.patch(CONFIG_MAP, "quebec-provisioner", namespace, {"data": {"WINDFALL_BACKEND": "mine"}})
        await until(lambda: _datum(cluster, namespace, "quebec-provisioner", "WINDFALL_BACKEND", "process"))
        await cluster.delete(CONFIG_MAP, "quebec-energy-watcher", namespace)
        await until(lambda: _datum(cluster, namespace, "quebec-energy-watcher", "WINDFALL_RULE", "carbon < 100"))


async def test_a_site_outside_the_law_is_never_used_and_the_status_says_so(
    cluster: Cluster, any_kubeconfig: Path, namespace: str
) -> None:
    await cluster.create(SITE, site("quebec", namespace))
    await cluster.create(SITE, site("texas", namespace, "US-TX"))
    await cluster.create(FEDERATION, windfall("own", namespace, allowedJurisdictions=["CA"]))
    async with operating(cluster, any_kubeconfig, namespace):
        await until(lambda: cluster.get(CONFIG_MAP, "own-site-quebec", namespace))
        await until(lambda: _is(condition(cluster, FEDERATION, "own", namespace, "SitesSelected"), status="True"))
        found = await cluster.get(FEDERATION, "own", namespace)
        assert found is not None
        assert found["status"]["selectedSites"] == 1
        reasons = {one["name"]: one["reason"] for one in found["status"]["sites"]}
        assert reasons == {"quebec": "", "texas": "its jurisdiction US-TX is not within CA"}
        told = await condition(cluster, FEDERATION, "own", namespace, "SitesSelected")
        assert told["message"] == "1 of 2; not used: texas: its jurisdiction US-TX is not within CA"
        assert await cluster.get(CONFIG_MAP, "own-site-texas", namespace) is None
        settings = await cluster.get(CONFIG_MAP, "own-coordinator", namespace)
        assert settings is not None
        assert settings["data"]["WINDFALL_SITES"] == "quebec"
        # The law changes, and so does who is told.
        await cluster.patch(FEDERATION, "own", namespace, {"spec": {"allowedJurisdictions": ["US"]}})
        await until(lambda: cluster.get(CONFIG_MAP, "own-site-texas", namespace))
        await until(lambda: _absent(cluster, CONFIG_MAP, "own-site-quebec", namespace))


async def test_deleting_a_federation_drains_its_pools_first_while_the_superlink_stays(
    cluster: Cluster, any_kubeconfig: Path, namespace: str
) -> None:
    async with (
        played(cluster, namespace, CLOCK, timedelta(seconds=4)),
        operating(cluster, any_kubeconfig, namespace),
    ):
        pool = {"name": "a", "replicas": 2, "drain": {"grace": "PT30S"}}
        await cluster.create(FEDERATION, flower("demo", namespace, pool))
        await until(lambda: _is(condition(cluster, FEDERATION, "demo", namespace, "Ready"), status="True"))
        began = asyncio.get_running_loop().time()
        await cluster.delete(FEDERATION, "demo", namespace)
        await until(lambda: _is(condition(cluster, FEDERATION, "demo", namespace, "Ready"), reason="Draining"))
        assert await cluster.get(POD, "demo-superlink-0", namespace) is not None
        await until(lambda: _absent(cluster, FEDERATION, "demo", namespace))
        assert asyncio.get_running_loop().time() - began >= 2
        assert await _no_pods(cluster, namespace, "supernode")
        await _collected(cluster, namespace)


async def test_a_drain_that_takes_too_long_is_bounded_by_its_grace(
    cluster: Cluster, any_kubeconfig: Path, namespace: str
) -> None:
    async with (
        played(cluster, namespace, CLOCK, timedelta(minutes=10)),
        operating(cluster, any_kubeconfig, namespace),
    ):
        pool = {"name": "a", "replicas": 1}
        await cluster.create(FEDERATION, flower("demo", namespace, pool, drainGrace="PT1S"))
        await until(lambda: _is(condition(cluster, FEDERATION, "demo", namespace, "Ready"), status="True"))
        await cluster.delete(FEDERATION, "demo", namespace)
        await until(lambda: _absent(cluster, FEDERATION, "demo", namespace))


async def test_deleting_a_site_drains_the_pools_that_stand_there(
    cluster: Cluster, any_kubeconfig: Path, namespace: str
) -> None:
    async with (
        played(cluster, namespace, CLOCK, timedelta(seconds=1)),
        operating(cluster, any_kubeconfig, namespace) as operator,
    ):
        await cluster.create(SITE, site("quebec", namespace))
        await cluster.create(FEDERATION, flower("demo", namespace, {"name": "q", "replicas": 1, "site": "quebec"}))
        hear(operator, opened("quebec"))
        await until(lambda: _is(condition(cluster, FEDERATION, "demo", namespace, "Ready"), status="True"))
        await cluster.delete(SITE, "quebec", namespace)
        await until(lambda: _absent(cluster, SITE, "quebec", namespace))
        assert await _no_pods(cluster, namespace, "supernode")
        await until(lambda: _equals(replicas(cluster, "demo-supernode-q", namespace), 0))


async def test_a_site_that_goes_asks_for_its_lease_back_and_waits_for_it(
    cluster: Cluster, any_kubeconfig: Path, namespace: str
) -> None:
    domain, orders = MemoryDomain("hub"), Orders()
    orders.bus = MemoryBus(domain, "operator", hub_streams(()), print)
    ready: dict[str, Any] = {"lease_id": uuid4(), "lease_token": 3, "window_id": uuid4(), "node": "n"}
    async with operating(cluster, any_kubeconfig, namespace, orders.release) as operator:
        await orders.bus.start()
        await cluster.create(SITE, site("quebec", namespace, backend={"grace": "PT60S"}))
        word = NodeReady(id=uuid4(), at=datetime.now(UTC), site="quebec", backend="process", **ready)
        operator.hearsay.capacity(word)
        operator.queue.add((SITE, "quebec"))
        await until(lambda: _is(condition(cluster, SITE, "quebec", namespace, "CapacityHeld"), status="True"))
        await cluster.delete(SITE, "quebec", namespace)
        await until(lambda: _asked(domain))
        assert await cluster.get(SITE, "quebec", namespace) is not None
        at = datetime.now(UTC)
        operator.hearsay.capacity(NodeReleased(id=uuid4(), at=at, site="quebec", reason="drained", **ready))
        operator.queue.add((SITE, "quebec"))
        await until(lambda: _absent(cluster, SITE, "quebec", namespace))
        assert [type(unseal(letter)) for letter in domain.letters(ORDERS_STREAM)] == [ReleaseNode]
        await orders.bus.stop()


async def _asked(domain: MemoryDomain) -> bool:
    return bool(domain.letters(ORDERS_STREAM))


async def test_a_mode_switch_leaves_no_stale_workload(cluster: Cluster, any_kubeconfig: Path, namespace: str) -> None:
    async with operating(cluster, any_kubeconfig, namespace):
        await cluster.create(FEDERATION, flower("demo", namespace, {"name": "a", "replicas": 2}))
        await until(lambda: cluster.get(STATEFUL_SET, "demo-supernode-a", namespace))
        found = await cluster.get(FEDERATION, "demo", namespace)
        assert found is not None
        found["spec"]["flower"]["mode"] = "DaemonSet"
        del found["spec"]["flower"]["supernodes"]["pools"][0]["replicas"]
        await cluster.patch(FEDERATION, "demo", namespace, {"spec": found["spec"]})
        await until(lambda: cluster.get(DAEMON_SET, "demo-supernode-a", namespace))
        await until(lambda: _absent(cluster, STATEFUL_SET, "demo-supernode-a", namespace))
        await until(lambda: _absent(cluster, SERVICE, "demo-supernode-a", namespace))
        assert await cluster.get(STATEFUL_SET, "demo-superlink", namespace) is not None


async def test_a_services_type_changes_in_place(cluster: Cluster, any_kubeconfig: Path, namespace: str) -> None:
    async with operating(cluster, any_kubeconfig, namespace):
        await cluster.create(FEDERATION, flower("demo", namespace, {"name": "a", "replicas": 1}))
        first = await until(lambda: cluster.get(SERVICE, "demo-superlink", namespace))
        for kind in ("NodePort", "LoadBalancer", "ClusterIP"):
            service = {"spec": {"flower": {"superlink": {"service": {"type": kind}}}}}
            await cluster.patch(FEDERATION, "demo", namespace, service)
            await until(lambda kind=kind: _service_type(cluster, namespace, kind))  # type: ignore[misc]
        last = await cluster.get(SERVICE, "demo-superlink", namespace)
        assert last is not None
        assert last["metadata"]["uid"] == first["metadata"]["uid"]
        assert last["spec"].get("clusterIP") == first["spec"].get("clusterIP")


async def test_claim_templates_cannot_be_changed_and_the_pool_scales_all_the_same(
    cluster: Cluster, any_kubeconfig: Path, namespace: str
) -> None:
    claim = {"metadata": {"name": "data"}, "spec": _claim("1Gi")}
    pool = {"name": "q", "replicas": 1, "site": "quebec", "volumeClaimTemplates": [claim]}
    async with operating(cluster, any_kubeconfig, namespace) as operator:
        await cluster.create(SITE, site("quebec", namespace))
        await cluster.create(FEDERATION, flower("demo", namespace, pool))
        window = opened("quebec")
        hear(operator, window)
        await until(lambda: _equals(replicas(cluster, "demo-supernode-q", namespace), 1))
        changed = {**pool, "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": _claim("2Gi")}]}
        supernodes = {"image": "flwr/supernode:1.41.0", "pools": [changed]}
        await cluster.patch(FEDERATION, "demo", namespace, {"spec": {"flower": {"supernodes": supernodes}}})
        said = await until(lambda: _is(condition(cluster, FEDERATION, "demo", namespace, "Applied"), reason="Refused"))
        assert "StatefulSet demo-supernode-q" in said["message"]
        tries = operator.reconciler.applying.writes
        hear(operator, closed(window))
        await until(lambda: _equals(replicas(cluster, "demo-supernode-q", namespace), 0))
        await asyncio.sleep(1)
        assert operator.reconciler.applying.writes < tries + 10, "it is not tried in a loop"


async def test_volumes_of_a_pool_go_with_the_federation(cluster: Cluster, any_kubeconfig: Path, namespace: str) -> None:
    claim = {"metadata": {"name": "data"}, "spec": _claim("1Gi")}
    kept = {"name": "kept", "replicas": 1, "volumeClaimTemplates": [claim], "claimsWhenDeleted": "Retain"}
    going = {"name": "going", "replicas": 1, "volumeClaimTemplates": [claim]}
    async with played(cluster, namespace, CLOCK, timedelta(0)), operating(cluster, any_kubeconfig, namespace):
        await cluster.create(FEDERATION, flower("demo", namespace, kept, going))
        await until(lambda: _owner_of(cluster, namespace, "data-demo-supernode-going-0"))
        assert await _owner_of(cluster, namespace, "data-demo-supernode-kept-0") is None
        one_pool = {"image": "flwr/supernode:1.41.0", "pools": [kept]}
        await cluster.patch(FEDERATION, "demo", namespace, {"spec": {"flower": {"supernodes": one_pool}}})
        await until(lambda: _ends(cluster, PERSISTENT_VOLUME_CLAIM, "data-demo-supernode-going-0", namespace))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"engine": "flower"}, "flower is missing with engine: flower"),
        ({"coordinator": {}}, "tlsSecretName is missing"),
    ],
)
async def test_an_invalid_federation_gets_a_condition_and_an_event_and_no_loop(
    cluster: Cluster, any_kubeconfig: Path, namespace: str, spec: dict[str, Any], said: str
) -> None:
    async with operating(cluster, any_kubeconfig, namespace) as operator:
        metadata = {"name": "wrong", "namespace": namespace}
        obj = {"apiVersion": "windfall.dev/v1alpha1", "kind": "Federation", "metadata": metadata, "spec": spec}
        await cluster.create(FEDERATION, obj)
        found = await until(lambda: _is(condition(cluster, FEDERATION, "wrong", namespace, "Accepted"), status="False"))
        assert found["reason"] == "Invalid"
        assert said in found["message"]
        assert found["observedGeneration"] == 1
        await _settled(operator)
        events = (await cluster.list(EVENT, namespace)).items
        assert [(one["type"], one["reason"], one["count"]) for one in events] == [("Warning", "Invalid", 1)] * 2
        before = await versions(cluster, namespace)
        await asyncio.sleep(1)
        assert await versions(cluster, namespace) == before
        # An invalid one can be deleted, and mended.
        await cluster.delete(FEDERATION, "wrong", namespace)
        await until(lambda: _absent(cluster, FEDERATION, "wrong", namespace))


async def test_what_the_server_refuses_is_said_and_the_rest_stands(
    cluster: Cluster, api_server: ApiServer, any_kubeconfig: Path, namespace: str
) -> None:
    if api_server.double is not None:
        pytest.skip("the double knows no schemas of the built-in kinds")
    pools = (
        {"name": "good", "replicas": 1},
        {"name": "bad", "replicas": 1, "podTemplate": {"spec": {"nonsense": True}}},
        {"name": "worse", "replicas": 1, "supernodeResources": {"limits": {"cpu": "many"}}},
    )
    async with operating(cluster, any_kubeconfig, namespace):
        await cluster.create(FEDERATION, flower("demo", namespace, *pools))
        said = await until(lambda: _is(condition(cluster, FEDERATION, "demo", namespace, "Applied"), reason="Refused"))
        assert "demo-supernode-bad" in said["message"]
        assert "demo-supernode-worse" in said["message"]
        assert "good" not in said["message"]
        assert await cluster.get(STATEFUL_SET, "demo-supernode-good", namespace) is not None


async def test_an_object_of_somebody_elses_is_not_touched(
    cluster: Cluster, any_kubeconfig: Path, namespace: str
) -> None:
    theirs = {"name": "quebec-provisioner", "namespace": namespace}
    await cluster.create(CONFIG_MAP, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": theirs, "data": {"a": "b"}})
    async with operating(cluster, any_kubeconfig, namespace):
        await cluster.create(SITE, site("quebec", namespace))
        said = await until(lambda: _is(condition(cluster, SITE, "quebec", namespace, "Applied"), reason="Refused"))
        assert "somebody else's" in said["message"]
        found = await cluster.get(CONFIG_MAP, "quebec-provisioner", namespace)
        assert found is not None
        assert found["data"] == {"a": "b"}
        assert "ownerReferences" not in found["metadata"]


# --- looking --------------------------------------------------------------------------------------------------------


async def _settled(operator: Operating) -> None:
    """Nothing to do, and nothing on its way from the server that makes something to do."""
    for _ in range(3):
        await asyncio.sleep(0.3)
        await operator.queue.idle()


async def _is(found: Awaitable[dict[str, Any]], **wanted: str) -> dict[str, Any] | None:
    condition = await found
    return condition if all(condition.get(key) == value for key, value in wanted.items()) else None


async def _equals(found: Awaitable[Any], wanted: Any) -> bool:
    return bool(await found == wanted)


async def _primed(operator: Operating) -> bool:
    return operator.primed


async def _absent(cluster: Cluster, kind: Kind, name: str, namespace: str) -> bool:
    return await cluster.get(kind, name, namespace) is None


async def _ends(cluster: Cluster, kind: Kind, name: str, namespace: str) -> bool:
    """Gone, or held by a finalizer of Kubernetes' own alone."""
    found = await cluster.get(kind, name, namespace)
    return found is None or "deletionTimestamp" in found["metadata"]


async def _no_pods(cluster: Cluster, namespace: str, component: str) -> bool:
    labels = f"{SELECTOR},app.kubernetes.io/component={component}"
    return not (await cluster.list(POD, namespace, labels=labels)).items


async def _datum(cluster: Cluster, namespace: str, name: str, key: str, value: str) -> bool:
    found = await cluster.get(CONFIG_MAP, name, namespace)
    return found is not None and found["data"].get(key) == value


async def _service_type(cluster: Cluster, namespace: str, kind: str) -> bool:
    found = await cluster.get(SERVICE, "demo-superlink", namespace)
    return found is not None and found["spec"]["type"] == kind


async def _owner_of(cluster: Cluster, namespace: str, claim: str) -> str | None:
    found = await cluster.get(PERSISTENT_VOLUME_CLAIM, claim, namespace)
    owners = (found or {"metadata": {}})["metadata"].get("ownerReferences", ())
    return next((str(one["kind"]) for one in owners), None)


async def _collected(cluster: Cluster, namespace: str) -> None:
    """Everything that is left belongs to what is gone, so that Kubernetes collects it."""
    for kind in await children(cluster):
        for one in (await cluster.list(kind, namespace, labels=SELECTOR)).items:
            owners = [owner["name"] for owner in one["metadata"].get("ownerReferences", ())]
            assert owners, f"{kind.kind} {one['metadata']['name']} belongs to nobody"


def _claim(size: str) -> dict[str, Any]:
    return {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
