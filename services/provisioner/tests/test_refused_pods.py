"""What an API server may say in the middle of a node's life: quotas, budgets of others, an owner that goes.

On the double, and on a real API server where there is one.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from windfall.provisioner.backend import Outage
from windfall.provisioner.manifests.labels import SITE as SITE_LABEL
from windfall.provisioner.operator.marks import SITE
from windfall.provisioner.operator.testing.installed import install
from windfall.provisioner.testing.pod_stage import (
    CONTROLLERS_S,
    ENVIRONMENT,
    SECONDS,
    Stage,
    eventually,
    gone,
    lease,
    up,
)
from windfall.servicekit.errors import Transient
from windfall.servicekit.kube import Kind, Object
from windfall.servicekit.kube.kinds import CONFIG_MAP, JOB, PDB, PDB_BETA, PERSISTENT_VOLUME_CLAIM, POD, SECRET
from windfall.servicekit.testing.kube_examples import Space
from windfall.servicekit.testing.kube_played import Kubelet, played

QUOTA = Kind("", "v1", "ResourceQuota", "resourcequotas")


@pytest.fixture
async def stage(space: Space) -> AsyncIterator[Stage]:
    stage = Stage(space)
    async with played(space.server.kubeconfig, Kubelet(lambda pod: stage.course)):
        yield stage
        for backend in stage.lives:
            await backend.close()


async def allow(stage: Stage, **hard: str) -> None:
    """So much of each, and no more, once the server knows it."""
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": stage.namespace}}
    counted = {name.replace("_", "."): value for name, value in hard.items()}
    await stage.cluster.apply(QUOTA, {**quota, "spec": {"hard": counted}})

    async def known() -> bool:
        found = await stage.cluster.get(QUOTA, "few", stage.namespace) or {}
        return stage.space.server.double is not None or bool((found.get("status") or {}).get("hard") == counted)

    await eventually(known)


@pytest.mark.timeout(2 * CONTROLLERS_S)
async def test_a_pod_beyond_the_quota_is_told_and_comes_once_there_is_room(stage: Stage) -> None:
    await allow(stage, pods="0")
    backend = stage.backend()
    started = await backend.start(lease(), ENVIRONMENT)
    troubles = backend.troubles(started)
    async with asyncio.timeout(SECONDS):
        said = await anext(troubles)
    assert said.startswith("FailedCreate: Error creating: ") and "exceeded quota: few" in said
    await stage.cluster.delete(QUOTA, "few", stage.namespace)
    async with asyncio.timeout(CONTROLLERS_S):
        assert await backend.ready(started)
        assert await anext(troubles) == ""
    await backend.kill(started)
    assert await gone(backend, started) == -9


async def test_a_node_without_a_pod_can_be_given_back(stage: Stage) -> None:
    await allow(stage, pods="0")
    backend = stage.backend()
    started = await backend.start(lease(), ENVIRONMENT)
    await backend.drain(started)
    assert await gone(backend, started) is None
    await stage.until(JOB, POD, SECRET, count=0)


async def test_objects_beyond_the_quota_are_an_attempt_that_failed(stage: Stage) -> None:
    if stage.space.server.double is not None:
        pytest.skip("the double counts pods alone")
    await allow(stage, **{"count/jobs_batch": "0"})
    backend, wanted = stage.backend(), lease()
    with pytest.raises(Transient, match="exceeded quota: few"):
        await backend.start(wanted, ENVIRONMENT)
    await stage.cluster.delete(QUOTA, "few", stage.namespace)
    await up(backend, wanted.model_copy(update={"attempts": 2}))


def guard(stage: Stage, budget: Kind, pods: int = 1) -> Object:
    """Somebody else's budget over the pods of the site: so many must stay."""
    metadata = {"name": "theirs", "namespace": stage.namespace}
    spec = {"minAvailable": pods, "selector": {"matchLabels": {SITE_LABEL: "site-a"}}}
    return {"apiVersion": budget.api_version, "kind": budget.kind, "metadata": metadata, "spec": spec}


async def test_a_budget_that_refuses_an_eviction_is_asked_again(stage: Stage) -> None:
    budget = PDB if await stage.cluster.serves(PDB) else PDB_BETA
    # All of them: of a budget that lets one go, a real server's controller counts anew as soon as another has come.
    await stage.cluster.apply(budget, guard(stage, budget, pods=2))
    backend = stage.backend(kube_workers=2)
    started = await up(backend, lease())
    for _ in range(2):
        with pytest.raises(Outage, match="disruption budget"):
            await backend.drain(started)
    assert not [pod for pod in await stage.all(POD) if pod["metadata"].get("deletionTimestamp")]
    await stage.cluster.delete(budget, "theirs", stage.namespace)
    await backend.drain(started)
    assert await gone(backend, started) == 0


async def test_what_a_budget_holds_back_is_killed_all_the_same(stage: Stage) -> None:
    budget = PDB if await stage.cluster.serves(PDB) else PDB_BETA
    await stage.cluster.apply(budget, guard(stage, budget))
    backend = stage.backend()
    started = await up(backend, lease())
    with pytest.raises(Outage, match="disruption budget"):
        await backend.drain(started)
    await backend.kill(started)
    assert await gone(backend, started) == -9
    await stage.until(JOB, POD, count=0)


@pytest.mark.timeout(4 * CONTROLLERS_S)
async def test_a_site_owns_whatever_its_leases_make(stage: Stage) -> None:
    await install(stage.cluster)
    spec: dict[str, Any] = {"jurisdiction": "CA-QC", "backend": {"name": "kubernetes"}}
    metadata = {"name": "quebec", "namespace": stage.namespace}
    wanted = {"apiVersion": SITE.api_version, "kind": SITE.kind, "metadata": metadata, "spec": spec}
    site = await stage.cluster.create(SITE, wanted)
    backend = stage.backend(kube_owner="quebec")
    started = await up(backend, lease())
    anchor = await stage.cluster.get(CONFIG_MAP, "windfall-site-a", stage.namespace) or {}
    (owner,) = anchor["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Site", "quebec", site["metadata"]["uid"])
    await stage.cluster.delete(SITE, "quebec", stage.namespace)
    assert await gone(backend, started, CONTROLLERS_S) == -15, "the window is open: its lease wants another node"
    await stage.until(CONFIG_MAP, SECRET, JOB, POD, count=0, seconds=CONTROLLERS_S)

    async def collected() -> bool:
        claim = await stage.cluster.get(PERSISTENT_VOLUME_CLAIM, "windfall-site-a-state", stage.namespace)
        return claim is None or "deletionTimestamp" in claim["metadata"]

    await eventually(collected, CONTROLLERS_S)
