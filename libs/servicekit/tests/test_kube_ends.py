"""Finalizers, owners, graces and budgets, asked of the double and of a real API server alike."""

import asyncio
from datetime import timedelta

import pytest

from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.kube import Conflict
from windfall.servicekit.kube.kinds import CONFIG_MAP, NAMESPACE, PDB, PDB_BETA, POD
from windfall.servicekit.testing.kube_examples import Space, config_map, created_pod, gone, owned_pair, pod, until


class TestEnds:
    async def test_a_finalizer_holds_an_object(self, space: Space) -> None:
        await space.cluster.create(CONFIG_MAP, config_map(space, finalizers=["a.dev/hold"]))
        assert await space.cluster.delete(CONFIG_MAP, "c", space.namespace) is True
        held = await space.cluster.get(CONFIG_MAP, "c", space.namespace)
        assert held is not None and held["metadata"]["deletionTimestamp"]
        with pytest.raises(Mistake, match="no new finalizers can be added"):
            await space.cluster.patch(
                CONFIG_MAP, "c", space.namespace, {"metadata": {"finalizers": ["a.dev/hold", "a.dev/more"]}}
            )
        changed = await space.cluster.patch(CONFIG_MAP, "c", space.namespace, {"data": {"still": "changes"}})
        assert changed["data"] == {"still": "changes"}
        await space.cluster.patch(CONFIG_MAP, "c", space.namespace, {"metadata": {"finalizers": None}})
        assert await space.cluster.get(CONFIG_MAP, "c", space.namespace) is None

    async def test_only_the_very_object_is_deleted(self, space: Space) -> None:
        made = await space.cluster.create(CONFIG_MAP, config_map(space))
        with pytest.raises(Conflict):
            await space.cluster.delete(CONFIG_MAP, "c", space.namespace, uid="another")
        assert await space.cluster.delete(CONFIG_MAP, "c", space.namespace, uid=made["metadata"]["uid"]) is True

    async def test_what_it_owned_goes_too(self, space: Space) -> None:
        ref = await owned_pair(space)
        await space.cluster.delete(CONFIG_MAP, "owner", space.namespace)
        await gone(space, CONFIG_MAP, "child")
        # What is born to an owner that is gone does not live either.
        await space.cluster.create(CONFIG_MAP, config_map(space, "late", ownerReferences=[ref]))
        await gone(space, CONFIG_MAP, "late")

    async def test_what_it_owned_goes_first(self, space: Space) -> None:
        await owned_pair(space, finalizers=["a.dev/hold"])
        await space.cluster.delete(CONFIG_MAP, "owner", space.namespace, propagation="Foreground")
        async with asyncio.timeout(60):
            while True:
                child = await space.cluster.get(CONFIG_MAP, "child", space.namespace)
                if child is not None and "deletionTimestamp" in child["metadata"]:
                    break
                await asyncio.sleep(0.02)
        owner = await space.cluster.get(CONFIG_MAP, "owner", space.namespace)
        assert owner is not None and owner["metadata"]["finalizers"] == ["foregroundDeletion"]
        await space.cluster.patch(CONFIG_MAP, "child", space.namespace, {"metadata": {"finalizers": None}})
        await gone(space, CONFIG_MAP, "owner")

    async def test_what_it_owned_is_orphaned(self, space: Space) -> None:
        await owned_pair(space)
        await space.cluster.delete(CONFIG_MAP, "owner", space.namespace, propagation="Orphan")
        await gone(space, CONFIG_MAP, "owner")
        child = await space.cluster.get(CONFIG_MAP, "child", space.namespace)
        assert child is not None and "ownerReferences" not in child["metadata"]

    async def test_one_owner_of_two_is_enough(self, space: Space) -> None:
        ref = await owned_pair(space)
        other = await space.cluster.create(CONFIG_MAP, config_map(space, "other"))
        second = ref | {"name": "other", "uid": other["metadata"]["uid"]}
        await space.cluster.patch(
            CONFIG_MAP, "child", space.namespace, {"metadata": {"ownerReferences": [ref, second]}}
        )
        await space.cluster.delete(CONFIG_MAP, "owner", space.namespace)
        async with asyncio.timeout(60):
            while True:
                child = await space.cluster.get(CONFIG_MAP, "child", space.namespace)
                assert child is not None
                if len(child["metadata"]["ownerReferences"]) == 1:
                    break
                await asyncio.sleep(0.02)
        await space.cluster.delete(CONFIG_MAP, "other", space.namespace)
        await gone(space, CONFIG_MAP, "child")

    async def test_a_namespace_ends_with_all_that_is_in_it(self, space: Space) -> None:
        name = f"{space.namespace}-b"
        await space.cluster.create(NAMESPACE, {"metadata": {"name": name}})
        held = {"metadata": {"name": "c", "namespace": name, "finalizers": ["a.dev/hold"]}}
        await space.cluster.create(CONFIG_MAP, held)
        await space.cluster.delete(NAMESPACE, name)
        with pytest.raises(Transient, match="being terminated"):
            await space.cluster.create(CONFIG_MAP, {"metadata": {"name": "late", "namespace": name}})
        async with asyncio.timeout(60):
            while True:
                found = await space.cluster.get(CONFIG_MAP, "c", name)
                if found is not None and "deletionTimestamp" in found["metadata"]:
                    break
                await asyncio.sleep(0.02)
        await space.cluster.patch(CONFIG_MAP, "c", name, {"metadata": {"finalizers": None}})
        await gone(space, NAMESPACE, name)

    async def test_a_pod_on_a_node_ends_gracefully(self, space: Space) -> None:
        await created_pod(space, pod(space, node="n1"))
        await space.cluster.delete(POD, "p", space.namespace, grace=timedelta(seconds=40))
        ending = await space.cluster.get(POD, "p", space.namespace)
        assert ending is not None and ending["metadata"]["deletionGracePeriodSeconds"] == 40
        await space.cluster.delete(POD, "p", space.namespace, grace=timedelta(0))
        assert await space.cluster.get(POD, "p", space.namespace) is None
        await created_pod(space, pod(space))
        await space.cluster.delete(POD, "p", space.namespace)
        assert await space.cluster.get(POD, "p", space.namespace) is None

    async def test_eviction_heeds_a_budget(self, space: Space) -> None:
        kind = PDB if await space.cluster.serves(PDB) else PDB_BETA
        spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": "x"}}}
        metadata = {"name": "b", "namespace": space.namespace}
        await space.cluster.create(
            kind, {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": spec}
        )
        for name in ("p1", "p2"):
            await created_pod(space, pod(space, name, "n1", labels={"app": "x"}))
            ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
            await space.cluster.patch(POD, name, space.namespace, {"status": ready}, subresource="status")
        await until(lambda: evicted(space, "p1"))
        with pytest.raises(Transient, match="disruption budget"):
            await space.cluster.evict("p2", space.namespace)
        assert await space.cluster.evict("none", space.namespace) is False


async def evicted(space: Space, name: str) -> bool:
    """A real server refuses as well while its controller has not seen the budget."""
    try:
        return await space.cluster.evict(name, space.namespace)
    except Transient:
        return False
