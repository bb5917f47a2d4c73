"""kopf finds its resources, watches, patches, finalizes and says events, on the double as on a real API server."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import kopf
import pytest

from windfall.servicekit.kube import Cluster, Connection, Kind, Object
from windfall.servicekit.kube.kinds import CRD, EVENT
from windfall.servicekit.testing.kube_examples import Space

GADGET = Kind("conformance.windfall.dev", "v1", "Gadget", "gadgets")


@pytest.fixture
async def gadgets(space: Space) -> AsyncIterator[Space]:
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": free, "status": free}}
    version = {"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}}
    names = {"kind": "Gadget", "plural": "gadgets", "singular": "gadget", "listKind": "GadgetList"}
    crd: Object = {
        "apiVersion": CRD.api_version,
        "kind": CRD.kind,
        "metadata": {"name": f"gadgets.{GADGET.group}"},
        "spec": {
            "group": GADGET.group,
            "scope": "Namespaced",
            "names": names,
            "versions": [version | {"schema": {"openAPIV3Schema": schema}}],
        },
    }
    await space.cluster.apply(CRD, crd, manager="conformance")
    async with asyncio.timeout(60):
        while not await space.cluster.serves(GADGET):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    ready, stop = threading.Event(), threading.Event()
    settings = kopf.OperatorSettings()
    settings.posting.enabled = True
    settings.persistence.finalizer = "windfall.dev/gadget"
    operator = kopf.operator(
        registry=_handlers(space),
        settings=settings,
        standalone=True,
        namespaces=[space.namespace],
        ready_flag=ready,
        stop_flag=stop,
    )
    # kopf cancels every task of its loop when it ends, so that it gets one of its own.
    running = asyncio.create_task(asyncio.to_thread(asyncio.run, operator))
    assert await asyncio.to_thread(ready.wait, 60)
    yield space
    stop.set()
    await running


def _handlers(space: Space) -> kopf.OperatorRegistry:
    registry = kopf.OperatorRegistry()
    config = json.loads(space.server.kubeconfig.read_text())

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        return kopf.ConnectionInfo(server=cluster["server"], token=user["token"], insecure=True)

    @kopf.on.create(GADGET.group, GADGET.version, GADGET.plural, registry=registry)
    @kopf.on.update(GADGET.group, GADGET.version, GADGET.plural, field="spec", registry=registry)
    async def made(body: kopf.Body, patch: kopf.Patch, spec: kopf.Spec, **_: Any) -> None:
        patch.status["size"] = spec["size"]
        kopf.event(body, type="Normal", reason="Sized", message=f"{spec['size']} now")

    @kopf.on.delete(GADGET.group, GADGET.version, GADGET.plural, registry=registry)
    async def ended(name: str, namespace: str | None, **_: Any) -> None:
        event: Object = {"metadata": {"name": f"{name}-ended", "namespace": namespace}, "reason": "Ended"}
        event["involvedObject"] = {"namespace": namespace}
        async with Cluster.connect(Connection(space.server.kubeconfig)) as cluster:
            await cluster.create(EVENT, event)

    return registry


async def test_an_operator_by_kopf_reconciles_and_finalizes(gadgets: Space) -> None:
    cluster, namespace = gadgets.cluster, gadgets.namespace
    gadget = {"apiVersion": GADGET.api_version, "kind": GADGET.kind, "spec": {"size": 1}}
    await cluster.create(GADGET, gadget | {"metadata": {"name": "g", "namespace": namespace}})
    async with asyncio.timeout(60):
        await _sized(gadgets, 1)
        found = await cluster.get(GADGET, "g", namespace)
        assert found is not None and found["metadata"]["finalizers"] == ["windfall.dev/gadget"]
        await cluster.patch(GADGET, "g", namespace, {"spec": {"size": 2}})
        await _sized(gadgets, 2)
        await cluster.delete(GADGET, "g", namespace)
        async for change in cluster.follow(GADGET, namespace):
            if change.verb in ("absent", "synced") and await cluster.get(GADGET, "g", namespace) is None:
                break
        assert await cluster.get(EVENT, "g-ended", namespace) is not None
        async for change in cluster.follow(EVENT, namespace):
            if change.object.get("reason") == "Sized" and change.object["message"] == "2 now":
                break


async def _sized(gadgets: Space, size: int) -> None:
    async for change in gadgets.cluster.follow(GADGET, gadgets.namespace):
        if change.object.get("status", {}).get("size") == size:
            return
