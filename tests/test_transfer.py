"""Transfer between a coordinator and its sites, over real gRPC and a link that is counted, cut and spoilt."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pytest
import torch
from torch import Tensor

from windfall.contracts.envelope import unseal
from windfall.contracts.events import ContributionAccepted, ContributionRefused
from windfall.contracts.subjects import EVENTS_STREAM, HUB, hub_streams
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.app import Coordinator, Model
from windfall.federation_coordinator.federation import Policy
from windfall.federation_coordinator.store import ModelStore
from windfall.federation_coordinator.training import TrainingService
from windfall.federation_coordinator.wire import register
from windfall.lowcomm.layout import Layout, TensorSpec, digest
from windfall.lowcomm.rule import Rule
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.errors import Transient
from windfall.servicekit.journal import Journal
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.rpc import Refused, connect, serve
from windfall.servicekit.service import Stand
from windfall.servicekit.testing.authority import Authority
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain
from windfall.servicekit.testing.proxy import Proxy
from windfall.servicekit.tls import Tls
from windfall.site_trainer.bulk import BulkStub
from windfall.site_trainer.coordinator import CoordinatorLink, Membership, tensors_of
from windfall.site_trainer.replica import sha256

T = TypeVar("T")
LAYOUT = Layout((TensorSpec("weights", (2000, 2000)), TensorSpec("bias", (2000,))))
SIZE = LAYOUT.nbytes
"""16 MB."""
RULE = Rule.parse("fp32", "average")
SITES = ("site-a", "site-b")
LONG = Policy(timedelta(hours=1), None, timedelta(hours=1), None)
SECONDS = 60.0
"""Nothing here waits so long; a test that would hang ends by it."""
MARK = (torch.arange(12.0) + 0.375).numpy().tobytes()
SPOILT = (torch.arange(12.0) + 0.625).numpy().tobytes()


def flat(seed: int) -> Tensor:
    return torch.randn(LAYOUT.elements, generator=torch.Generator().manual_seed(seed))


@dataclass
class Disk:
    """The coordinator's threads; with the gate closed, nothing is written."""

    gate: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def __call__(self, work: Callable[..., T], /, *arguments: object) -> T:
        return await asyncio.to_thread(self._through, work, *arguments)

    def _through(self, work: Callable[..., T], *arguments: object) -> T:
        if getattr(work, "__name__", "") == "write":
            self.gate.wait(SECONDS)
        return work(*arguments)


@dataclass
class Site:
    """A member behind a link of its own."""

    name: str
    proxy: Proxy
    tls: Tls | None = None

    def __post_init__(self) -> None:
        self.channel = connect(self.proxy.address, self.tls)
        self.link = CoordinatorLink(self.channel, "demo", self.name)
        self.bulk = BulkStub(self.channel)

    async def join(self) -> Membership:
        self.membership = await self.link.join(uuid4(), 1)
        return self.membership

    def manifest(self, data: bytes, base_digest: str) -> pb.Manifest:
        return pb.Manifest(
            key=pb.ContributionKey(federation="demo", site=self.name, round=0, attempt=self.membership.attempt),
            lease_token=1,
            base_digest=base_digest,
            codec="fp32",
            tokens=100,
            steps=1,
            loss=1.0,
            total_bytes=len(data),
            sha256=sha256(data),
            tensors=tensors_of(LAYOUT),
        )

    async def push(self, seed: int, base_digest: str) -> bool:
        data = said(seed)
        return await self.link.push(self.manifest(data, base_digest), memoryview(data))


def said(seed: int) -> bytes:
    state = RULE.codec.init(LAYOUT.elements)
    return RULE.encode(state, flat(seed), LAYOUT.split, base=0, tokens=100, steps=1)[1]


@dataclass
class Hub:
    """A coordinator over real gRPC."""

    coordinator: Coordinator
    domain: MemoryDomain
    disk: Disk
    address: str
    base: str

    @asynccontextmanager
    async def site(
        self, name: str = "site-a", tls: Tls | None = None, bytes_per_s: float | None = None
    ) -> AsyncIterator[Site]:
        async with Proxy(self.address, bytes_per_s=bytes_per_s) as proxy:
            site = Site(name, proxy, tls)
            await site.join()
            try:
                yield site
            finally:
                await site.link.close()

    def said(self, kind: type[T]) -> list[T]:
        return [event for event in map(unseal, self.domain.letters(EVENTS_STREAM)) if isinstance(event, kind)]


@asynccontextmanager
async def standing(folder: Path, tls: Tls | None = None) -> AsyncIterator[Hub]:
    domain, disk = MemoryDomain(HUB), Disk()
    journal = Journal(folder / "journal.sqlite", "/test")
    bus = MemoryBus(domain, "federation-coordinator", hub_streams(SITES))
    stand = Stand("federation-coordinator", "demo", SystemClock(), journal, bus, Outbox(journal, bus))
    store = ModelStore(folder / "models", LAYOUT, RULE)
    base = store.initialise(flat(0))
    coordinator = Coordinator(
        stand, "demo", Model("toy", "{}", LAYOUT), LONG, store, base, timedelta(seconds=SECONDS), disk
    )
    server = await serve("127.0.0.1:0", [partial(register, TrainingService(coordinator, SITES))], tls)
    coordinator.attend()
    await stand.rise()
    try:
        yield Hub(coordinator, domain, disk, f"127.0.0.1:{server.port}", base)
    finally:
        disk.gate.set()
        await server.stop(timedelta(seconds=5))
        coordinator.rest()
        await stand.lie_down()


async def as_far_as_it_gets(count: Callable[[], int]) -> int:
    """A counter once it has stood still for a while."""
    before, now = -1, count()
    while before != now:
        before = now
        for _ in range(100):
            await asyncio.sleep(0.002)
        now = count()
    return now


async def test_an_upload_that_is_cut_at_nine_tenths_goes_on_there(tmp_path: Path) -> None:
    # Slower than the coordinator: what had passed the link was on its disk, but for a little on the way.
    async with standing(tmp_path) as hub, hub.site(bytes_per_s=30e6) as site:
        site.proxy.up.cut_at = site.proxy.up.nbytes + SIZE * 9 // 10
        with pytest.raises(Transient):
            await site.push(1, hub.base)
        before = site.proxy.up.nbytes
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    assert not await site.push(1, hub.base)
                    break
                except Transient:
                    # The coordinator may still be putting the rest of the broken stream on disk.
                    await asyncio.sleep(0.01)
        assert before > SIZE * 85 // 100
        assert site.proxy.up.nbytes - before < SIZE * 25 // 100
        assert hub.coordinator.accepted(site.manifest(b"", hub.base).key)


async def test_a_download_that_is_cut_at_nine_tenths_goes_on_there(tmp_path: Path) -> None:
    async with standing(tmp_path) as hub, hub.site() as site:
        site.proxy.down.cut_at = site.proxy.down.nbytes + SIZE * 9 // 10
        before = site.proxy.down.nbytes
        download = await site.link.pull(site.membership.attempt, hub.base, SIZE, SIZE)
        assert site.proxy.connections == 2
        assert digest(torch.frombuffer(download.data, dtype=torch.float32)) == hub.base
        assert site.proxy.down.nbytes - before < SIZE * 125 // 100


async def test_what_is_refused_by_its_manifest_costs_no_bytes(tmp_path: Path) -> None:
    async with standing(tmp_path) as hub, hub.site() as site:
        before = site.proxy.up.nbytes
        with pytest.raises(Refused, match="another base"):
            await site.push(1, "0" * 64)
        assert site.proxy.up.nbytes - before < 16 * 1024


async def test_a_slow_reader_holds_the_coordinator_and_not_its_memory(tmp_path: Path) -> None:
    async with standing(tmp_path) as hub, hub.site() as site:
        before = site.proxy.down.nbytes
        request = pb.PullRequest(
            federation="demo", site=site.name, attempt=site.membership.attempt, base_digest=hub.base
        )
        frames = site.bulk.pull(request)
        assert isinstance(await anext(frames), pb.PullHead)
        first = await anext(frames)
        sent = await as_far_as_it_gets(lambda: site.proxy.down.nbytes) - before
        assert sent < SIZE * 3 // 4
        rest = [len(data) async for data in frames if isinstance(data, memoryview)]
        assert isinstance(first, memoryview)
        assert len(first) + sum(rest) == SIZE


async def test_a_slow_disk_holds_the_site_and_not_the_coordinators_memory(tmp_path: Path) -> None:
    async with standing(tmp_path) as hub, hub.site() as site:
        hub.disk.gate.clear()
        before = site.proxy.up.nbytes
        pushing = asyncio.create_task(site.push(1, hub.base))
        while site.proxy.up.nbytes - before < 2**16 and not pushing.done():  # noqa: ASYNC110 - bytes set no event
            await asyncio.sleep(0.002)
        sent = await as_far_as_it_gets(lambda: site.proxy.up.nbytes) - before
        assert 0 < sent < SIZE // 2
        hub.disk.gate.set()
        assert not await pushing


async def test_a_chunk_that_is_spoilt_on_its_way_is_found_and_sent_again(tmp_path: Path) -> None:
    # The mark, thrice: one may lie across two reads of the link.
    vector = flat(1)
    mark = torch.frombuffer(bytearray(MARK), dtype=torch.float32)
    for place in (1000, 5000, 9000):
        vector[place : place + len(mark)] = mark
    data = RULE.encode(RULE.codec.init(LAYOUT.elements), vector, LAYOUT.split, base=0, tokens=100, steps=1)[1]
    async with standing(tmp_path) as hub, hub.site() as site:
        site.proxy.up.spoil = lambda passing: passing.replace(MARK, SPOILT)
        with pytest.raises(Transient, match="damaged"):
            await site.link.push(site.manifest(data, hub.base), memoryview(data))
        site.proxy.up.spoil = None
        assert not await site.link.push(site.manifest(data, hub.base), memoryview(data))
        await hub.coordinator.stand.outbox.emptied()
        assert len(hub.said(ContributionAccepted)) == 1
        assert not hub.said(ContributionRefused)


async def test_a_site_has_one_tls_connection_for_everything(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    async with (
        standing(tmp_path, authority.issue("hub")) as hub,
        hub.site("site-a", authority.issue("site-a")) as one,
        hub.site("site-b", authority.issue("site-b")) as other,
    ):
        for seed, site in enumerate((one, other)):
            beat = partial(pb.Beat, federation="demo", site=site.name, attempt=site.membership.attempt)
            directives = site.link.directives(beat, 1.0)
            opened = (await anext(directives)).round_opened
            # Up and down at once, beside the open stream.
            await asyncio.gather(
                site.link.pull(site.membership.attempt, opened.base_digest, SIZE, SIZE),
                site.push(seed, opened.base_digest),
            )
            await directives.aclose()
            await site.link.leave(site.membership.attempt, "done")
        assert (one.proxy.connections, other.proxy.connections) == (1, 1)
