"""A lease whose pods do not come or do not go: what the provisioner says of it, and when it gives it back.

On the double, and on a real API server where there is one.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from windfall.contracts.envelope import unseal
from windfall.contracts.events import NodeHindered
from windfall.contracts.subjects import EVENTS_STREAM, site_streams
from windfall.provisioner.app import Provisioner, attend
from windfall.provisioner.holdings import Lease, LeaseState
from windfall.provisioner.manifests.labels import SITE
from windfall.provisioner.settings import ProvisionerSettings
from windfall.provisioner.testing.pod_stage import SECONDS, Stage, untainted
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.journal import Journal
from windfall.servicekit.kube import Kind
from windfall.servicekit.kube.kinds import JOB, NODE, PDB, PDB_BETA, POD
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.service import Stand
from windfall.servicekit.testing.kube_examples import Space
from windfall.servicekit.testing.kube_played import Kubelet, node, played
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain

WINDOW = UUID(int=1)


@dataclass
class Life:
    """One life of a site's provisioner over pods."""

    stage: Stage
    provisioner: Provisioner
    domain: MemoryDomain

    @property
    def lease(self) -> Lease:
        return self.provisioner.holdings.leases[-1]

    def hindrances(self) -> list[str]:
        messages = [unseal(letter) for letter in self.domain.letters(EVENTS_STREAM)]
        return [message.because for message in messages if isinstance(message, NodeHindered)]

    async def until(self, state: LeaseState | None = None, why: str = "") -> None:
        async with asyncio.timeout(SECONDS):
            while not (why in self.lease.why and state in (None, self.lease.state)):
                await self.provisioner.change.wait()

    async def said(self, count: int) -> list[str]:
        async with asyncio.timeout(SECONDS):
            while len(self.hindrances()) < count:  # noqa: ASYNC110 - the outbox sets no events for others
                await asyncio.sleep(0.02)
        return self.hindrances()


@pytest.fixture
async def stage(space: Space) -> AsyncIterator[Stage]:
    stage = Stage(space)
    machine = node(f"{space.namespace}-a", {"pool": space.namespace}, nvidia=4)
    async with played(space.server.kubeconfig, Kubelet(nodes=(machine,))):
        await untainted(space)
        yield stage
    await space.cluster.delete(NODE, machine["metadata"]["name"])


@asynccontextmanager
async def provisioning(stage: Stage, folder: Path, grace: timedelta, **trainers: Any) -> AsyncIterator[Life]:
    settings = ProvisionerSettings.model_validate({"site": "site-a", "state_dir": folder, "grace": grace})
    domain, clock = MemoryDomain("site-a"), SystemClock()
    domain.declare(site_streams("site-a"))
    journal = Journal(folder / "provisioner.sqlite", "/windfall/provisioner/site-a")
    bus = MemoryBus(domain, "provisioner", site_streams("site-a"))
    stand = Stand("provisioner", "site-a", clock, journal, bus, Outbox(journal, bus))
    pool = {"kube_node_selector": {"pool": stage.namespace}}
    async with AsyncExitStack() as ending:
        ending.push_async_callback(stand.lie_down)
        life = await ending.enter_async_context(attend(settings, stand, stage.backend(**pool, **trainers), {}))
        await stand.rise()
        yield Life(stage, life, domain)


async def test_a_lease_without_room_says_why_and_costs_no_attempt(stage: Stage, tmp_path: Path) -> None:
    need = {"kube_vendor": "nvidia", "kube_runtime_class": "none", "kube_need": json.dumps({"gpus": 8})}
    async with provisioning(stage, tmp_path, timedelta(minutes=1), **need) as life:
        life.provisioner.acquire(WINDOW)
        await life.until(LeaseState.REQUESTED, "has 4 nvidia.com/gpu free, a worker needs 8")
        assert life.lease.attempts == 0 and life.lease.retry_at is not None
        assert not await stage.all(JOB, POD)
        (because,) = await life.said(1)
        assert because.startswith("has room for 0 of 1 workers") and f"{stage.namespace}-" not in because
        larger = node(f"{stage.namespace}-b", {"pool": stage.namespace}, nvidia=8)
        await stage.cluster.apply(NODE, larger, manager="played-kubelet", force=True)
        await stage.cluster.apply_status(NODE, larger, manager="played-kubelet", force=True)
        await life.until(LeaseState.READY)
        assert [pod["spec"]["nodeName"] for pod in await stage.all(POD)] == [f"{stage.namespace}-b"]
        assert (await life.said(2))[-1] == "", "nothing keeps it any more"
        life.provisioner.give_back(WINDOW)
        await life.until(LeaseState.RELEASED)
        await stage.cluster.delete(NODE, larger["metadata"]["name"])


async def test_a_site_outside_the_allowed_jurisdictions_gets_no_node_and_says_so(stage: Stage, tmp_path: Path) -> None:
    need = {"kube_need": json.dumps({"jurisdictions": ["CA"]}), "jurisdiction": "US-GA"}
    async with provisioning(stage, tmp_path, timedelta(minutes=1), **need) as life:
        life.provisioner.acquire(WINDOW)
        await life.until(LeaseState.FAILED, "site-a may not be used: jurisdiction: US-GA is not within CA")
        assert not await stage.all(JOB, POD)


async def guarded(stage: Stage) -> Kind:
    """Somebody else's budget lets none of the site's pods go; it is called ``theirs``."""
    budget = PDB if await stage.cluster.serves(PDB) else PDB_BETA
    spec = {"minAvailable": 1, "selector": {"matchLabels": {SITE: "site-a"}}}
    metadata = {"name": "theirs", "namespace": stage.namespace}
    theirs = {"apiVersion": budget.api_version, "kind": budget.kind, "metadata": metadata, "spec": spec}
    await stage.cluster.apply(budget, theirs)
    return budget


async def test_what_a_budget_of_others_holds_back_goes_when_the_grace_is_over(stage: Stage, tmp_path: Path) -> None:
    await guarded(stage)
    async with provisioning(stage, tmp_path, timedelta(seconds=3)) as life:
        life.provisioner.acquire(WINDOW)
        await life.until(LeaseState.READY)
        life.provisioner.give_back(WINDOW)
        await life.until(LeaseState.DRAINING)
        await life.until(LeaseState.RELEASED, "grace")
        await stage.until(JOB, POD, count=0)


async def test_a_budget_that_lets_go_in_time_lets_it_drain(stage: Stage, tmp_path: Path) -> None:
    budget = await guarded(stage)
    async with provisioning(stage, tmp_path, timedelta(minutes=2)) as life:
        life.provisioner.acquire(WINDOW)
        await life.until(LeaseState.READY)
        life.provisioner.give_back(WINDOW)
        await life.until(LeaseState.DRAINING)
        await stage.cluster.delete(budget, "theirs", stage.namespace)
        await life.until(LeaseState.RELEASED, "drained")
