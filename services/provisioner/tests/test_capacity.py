"""The Capacity API over a real gRPC connection."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
import pytest

from windfall.contracts.subjects import site_streams
from windfall.contracts.v1 import capacity_pb2 as wire
from windfall.contracts.v1.capacity_pb2_grpc import CapacityStub, add_CapacityServicer_to_server
from windfall.provisioner.app import attend
from windfall.provisioner.capacity import Capacity
from windfall.provisioner.memory import Life, MemoryBackend
from windfall.provisioner.settings import ProvisionerSettings
from windfall.servicekit import rpc
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.journal import Journal
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.service import Stand
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain

if TYPE_CHECKING:
    from windfall.contracts.v1.capacity_pb2_grpc import CapacityAsyncStub

WINDOW = str(uuid4())
SECONDS = 60.0


async def node(life: Life) -> int:
    life.ready.set()
    await life.drain.wait()
    return 0


@pytest.fixture
async def capacity(tmp_path: Path) -> AsyncIterator["CapacityAsyncStub"]:
    settings = ProvisionerSettings(site="site-a", state_dir=tmp_path, on_stop="release")
    journal = Journal(None, "/windfall/provisioner/site-a")
    bus = MemoryBus(MemoryDomain("site-a"), "provisioner", site_streams("site-a"))
    stand = Stand("provisioner", "site-a", SystemClock(), journal, bus, Outbox(journal, bus))
    async with AsyncExitStack() as ending:
        ending.push_async_callback(stand.lie_down)
        provisioner = await ending.enter_async_context(attend(settings, stand, MemoryBackend(node), {}))
        await stand.rise()
        register = partial(add_CapacityServicer_to_server, Capacity(provisioner))
        server = await rpc.serve("127.0.0.1:0", [register])
        ending.push_async_callback(server.stop)
        channel = rpc.connect(f"127.0.0.1:{server.port}")
        ending.push_async_callback(channel.close)
        yield CapacityStub(channel)


async def test_a_scheduler_takes_watches_and_gives_back(capacity: "CapacityAsyncStub") -> None:
    plan = await capacity.Plan(wire.PlanRequest(site="site-a", window_id=WINDOW), timeout=SECONDS)
    assert (plan.backend, plan.description, plan.HasField("held")) == ("memory", "one task of this process", False)

    seen: list[str] = []
    ready, released = asyncio.Event(), asyncio.Event()

    async def watch() -> None:
        async for lease in capacity.Watch(wire.WatchRequest(site="site-a"), timeout=SECONDS):
            seen.append(wire.LeaseState.Name(lease.state).removeprefix("LEASE_STATE_").lower())
            if seen[-1] == "ready":
                ready.set()
            if seen[-1] == "released":
                released.set()
                return

    watching = asyncio.create_task(watch())
    first = await capacity.Acquire(wire.AcquireRequest(site="site-a", window_id=WINDOW), timeout=SECONDS)
    again = await capacity.Acquire(wire.AcquireRequest(site="site-a", window_id=WINDOW), timeout=SECONDS)
    assert (first.token, again.token, first.lease_id) == (1, 1, again.lease_id)
    assert first.node == "site-a-1"
    assert first.changed_at.seconds > 0
    async with asyncio.timeout(SECONDS):
        await ready.wait()
    plan = await capacity.Plan(wire.PlanRequest(site="site-a"), timeout=SECONDS)
    assert plan.held.token == 1

    for _ in range(2):
        given = await capacity.Release(wire.ReleaseRequest(site="site-a", window_id=WINDOW), timeout=SECONDS)
        assert given.lease_id == first.lease_id
    async with asyncio.timeout(SECONDS):
        await released.wait()
    await watching
    assert seen[-1] == "released"
    listed = await capacity.List(wire.ListRequest(site="site-a"), timeout=SECONDS)
    assert [(lease.token, lease.reason) for lease in listed.leases] == [(1, "drained")]


async def test_releasing_an_absent_lease_is_no_error(capacity: "CapacityAsyncStub") -> None:
    reply = await capacity.Release(wire.ReleaseRequest(site="site-a", window_id=WINDOW), timeout=SECONDS)
    assert (reply.state, reply.lease_id) == (wire.LEASE_STATE_RELEASED, "")


async def test_a_window_that_is_over_gets_nothing(capacity: "CapacityAsyncStub") -> None:
    await capacity.Release(wire.ReleaseRequest(site="site-a", window_id=WINDOW), timeout=SECONDS)
    with pytest.raises(grpc.aio.AioRpcError, match="is over") as refused:
        await capacity.Acquire(wire.AcquireRequest(site="site-a", window_id=WINDOW), timeout=SECONDS)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_another_site_is_not_found(capacity: "CapacityAsyncStub") -> None:
    calls: list[Awaitable[Any]] = [
        capacity.Plan(wire.PlanRequest(site="site-b"), timeout=SECONDS),
        capacity.Acquire(wire.AcquireRequest(site="site-b", window_id=WINDOW), timeout=SECONDS),
        capacity.Release(wire.ReleaseRequest(site="site-b", window_id=WINDOW), timeout=SECONDS),
        capacity.List(wire.ListRequest(site="site-b"), timeout=SECONDS),
        capacity.Watch(wire.WatchRequest(site="site-b"), timeout=SECONDS).read(),
    ]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError, match="this provisioner serves 'site-a', not 'site-b'") as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("need", "why"),
    [
        (wire.Need(workers=2**32 - 1), "4294967295 workers are more than 1000"),
        (wire.Need(workers=2, accelerators=65), "65 accelerators for each worker are more than 64"),
    ],
)
async def test_a_need_that_nobody_can_mean_is_refused_and_leases_nothing(
    need: wire.Need, why: str, capacity: "CapacityAsyncStub"
) -> None:
    calls: list[Awaitable[Any]] = [
        capacity.Plan(wire.PlanRequest(site="site-a", need=need), timeout=SECONDS),
        capacity.Acquire(wire.AcquireRequest(site="site-a", window_id=WINDOW, need=need), timeout=SECONDS),
    ]
    for call in calls:
        with pytest.raises(grpc.aio.AioRpcError, match=why) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not (await capacity.List(wire.ListRequest(site="site-a"), timeout=SECONDS)).leases


async def test_a_window_must_be_a_uuid(capacity: "CapacityAsyncStub") -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="'tomorrow' is not a UUID") as refused:
        await capacity.Acquire(wire.AcquireRequest(site="site-a", window_id="tomorrow"), timeout=SECONDS)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
