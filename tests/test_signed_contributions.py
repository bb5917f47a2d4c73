"""A coordinator that asks for signatures, and trainers' own links to it: what is signed counts, the rest is refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
import torch

from windfall.contracts.attestation import PREFIX, Attestation
from windfall.contracts.envelope import unseal
from windfall.contracts.events import ContributionAccepted, ContributionRefused
from windfall.contracts.subjects import EVENTS_STREAM, HUB, hub_streams
from windfall.contracts.v1 import training_pb2 as pb
from windfall.federation_coordinator.app import Coordinator, Model
from windfall.federation_coordinator.checks import described
from windfall.federation_coordinator.federation import Policy
from windfall.federation_coordinator.signatures import Demand, Trust
from windfall.federation_coordinator.store import ModelStore
from windfall.federation_coordinator.training import TrainingService
from windfall.federation_coordinator.wire import register
from windfall.lowcomm.layout import Layout, TensorSpec
from windfall.lowcomm.rule import Rule
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.journal import Journal
from windfall.servicekit.journal_reading import kept
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.rpc import Refused
from windfall.servicekit.service import Stand
from windfall.servicekit.signing import Signer, signer_of
from windfall.servicekit.testing.authority import Authority
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain
from windfall.servicekit.testing.memory_rpc import MemoryServer, memory_channel
from windfall.site_trainer.coordinator import CoordinatorLink

SITES = ("site-a", "site-b")
LAYOUT = Layout((TensorSpec("point", (1000,)),))
RULE = Rule.parse("fp32", "average")
SECONDS = 60.0


class Fleet:
    """An authority, and what sites sign with."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority(folder, "fleet")

    def signer(self, site: str) -> Signer:
        made = signer_of(self.authority.issue(site, site), site)
        assert made is not None
        return made


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path)


class Place:
    """A coordinator that demands signatures, and the link of a trainer to it."""

    def __init__(self, folder: Path, fleet: Fleet, demand: Demand) -> None:
        self.domain = MemoryDomain(HUB)
        self.path = folder / "federation-coordinator.sqlite"
        journal = Journal(self.path, "/test")
        bus = MemoryBus(self.domain, "federation-coordinator", hub_streams(SITES))
        self.stand = Stand("federation-coordinator", "demo", SystemClock(), journal, bus, Outbox(journal, bus))
        store = ModelStore(folder / "models", LAYOUT, RULE)
        self.coordinator = Coordinator(
            self.stand,
            "demo",
            Model("toy", "{}", LAYOUT),
            Policy(timedelta(hours=1), None, timedelta(hours=1), None),
            store,
            store.initialise(torch.zeros(LAYOUT.elements)),
            timedelta(seconds=SECONDS),
            asyncio.to_thread,
            trust=Trust(fleet.authority.path, None, demand),
        )
        self.server = MemoryServer()
        register(TrainingService(self.coordinator, SITES), self.server)

    def link(self, site: str, signer: Signer | None) -> CoordinatorLink:
        return CoordinatorLink(memory_channel(self.server), "demo", site, signer=signer)

    async def contribute(self, link: CoordinatorLink, attempt: int, site: str, seed: int) -> bool:
        state = self.coordinator.state
        gradient = torch.randn(LAYOUT.elements, generator=torch.Generator().manual_seed(seed))
        _, data = RULE.encode(
            RULE.codec.init(LAYOUT.elements), gradient, LAYOUT.split, base=state.round, tokens=64, steps=8
        )
        made = pb.Manifest(
            key=pb.ContributionKey(federation="demo", site=site, round=state.round, attempt=attempt),
            lease_token=1,
            base_digest=state.base_digest,
            codec="fp32",
            tokens=64,
            steps=8,
            loss=2.25,
            total_bytes=len(data),
            sha256=sha256(data).hexdigest(),
            tensors=described(LAYOUT),
        )
        return await link.push(made, memoryview(data))


@asynccontextmanager
async def standing(place: Place) -> AsyncIterator[Place]:
    async with AsyncExitStack() as life:
        place.coordinator.attend()
        await place.stand.rise()
        life.push_async_callback(place.stand.lie_down)
        life.callback(place.coordinator.rest)
        life.push_async_callback(place.server.kill)
        yield place


class Altering(Signer):
    """Signs other words than those that go along."""

    def sign(self, data: bytes) -> tuple[bytes, bytes]:
        return super().sign(data.replace(b'"tokens":64', b'"tokens":640'))


async def test_the_coordinator_takes_what_is_signed_and_a_third_party_can_say_later_whose_it_was(
    fleet: Fleet, tmp_path: Path
) -> None:
    async with standing(Place(tmp_path, fleet, "required")) as place:
        with pytest.raises(Refused, match="this federation demands it") as denied:
            await place.link("site-a", None).join(uuid4(), 1)
        assert denied.value.code is grpc.StatusCode.PERMISSION_DENIED
        links = {site: place.link(site, fleet.signer(site)) for site in SITES}
        attempts = {site: (await link.join(uuid4(), 1)).attempt for site, link in links.items()}
        assert not await place.contribute(links["site-a"], attempts["site-a"], "site-a", 1)
        forging = place.link("site-b", Altering(fleet.authority.issue("forging", "site-b")))
        with pytest.raises(Refused, match="not of site-b's key over what is said here"):
            await place.contribute(forging, attempts["site-b"], "site-b", 2)
        # Whoever has no certificate is refused, and that is held against nobody: nobody is proven to have said it.
        for seed in range(3, 9):
            with pytest.raises(Refused, match="demands it"):
                await place.contribute(place.link("site-b", None), attempts["site-b"], "site-b", seed)
        assert "site-b" in place.coordinator.state.members
        assert not await place.contribute(links["site-b"], attempts["site-b"], "site-b", 9)
        found = [Attestation.model_validate_json(row) for row in kept(place.path, PREFIX)]
    assert len(found) == 2


async def test_a_refused_signature_is_said_with_its_reason(fleet: Fleet, tmp_path: Path) -> None:
    async with standing(Place(tmp_path, fleet, "where-known")) as place:
        link = place.link("site-a", fleet.signer("site-a"))
        attempt = (await link.join(uuid4(), 1)).attempt
        forging = place.link("site-a", Altering(fleet.authority.issue("forging", "site-a")))
        with pytest.raises(Refused):
            await place.contribute(forging, attempt, "site-a", 1)
        assert not await place.contribute(link, attempt, "site-a", 1)
        place.stand.outbox.wake()
        await place.stand.outbox.emptied()
        events = [unseal(letter) for letter in place.domain.letters(EVENTS_STREAM)]
    (refused,) = [one for one in events if isinstance(one, ContributionRefused)]
    assert (refused.site, refused.reason) == ("site-a", "signature")
    assert len([one for one in events if isinstance(one, ContributionAccepted)]) == 1
