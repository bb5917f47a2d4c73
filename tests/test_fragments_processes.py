"""Rounds of a fragment each, by real processes: a coordinator that is killed with -9, and two trainers that go on."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from tests import invariants
from tests.links import FRAGMENTS, LAYOUT, SECONDS, TOKENS, Links, environ, heard
from tests.zygote import Child, Zygote, zygote
from windfall.contracts.events import ContributionRefused, FederationFinished, RoundCompleted, SiteDrained
from windfall.contracts.message import Message
from windfall.contracts.subjects import HUB
from windfall.federation_coordinator.settings import CoordinatorSettings
from windfall.servicekit.natsserver import NatsServer, free_port
from windfall.servicekit.testing.fixtures import started_server

pytestmark = pytest.mark.slow

ROUNDS = 7
KILLED_BEHIND = 3
"""Rounds after which the coordinator is killed, while a round is under way."""
TEXT = "If music be the food of love, play on, give me excess of it. " * 40


@dataclass
class Place:
    """A hub, two sites, and what runs there."""

    zygote: Zygote
    hub: NatsServer
    folder: Path
    overlap: bool
    port: int
    coordinator: Child | None = None

    async def alive(self) -> "asyncio.Future[int]":
        assert self.coordinator is not None
        return self.coordinator.ended

    async def start(self, fragments: int = FRAGMENTS) -> Child:
        self.coordinator = await self.zygote.start(
            "federation-coordinator",
            {
                "PATH": os.environ["PATH"],
                **environ("demo", self.hub.url, self.folder / "coordinator", self.port),
                "WINDFALL_ROUND_STEPS": "3",
                "WINDFALL_MINIMUM_SITES": "2",
                "WINDFALL_FRAGMENTS": str(fragments),
                "WINDFALL_OVERLAP": str(self.overlap).lower(),
            },
            self.folder / "coordinator.log",
        )
        return self.coordinator

    async def train(self, site: str, server: NatsServer) -> Child:
        data = self.folder / f"{site}-data"
        data.mkdir()
        (data / "text.txt").write_text(TEXT[len(site) * sorted(TOKENS).index(site) :])
        return await self.zygote.start(
            "site-trainer",
            {
                "PATH": os.environ["PATH"],
                "WINDFALL_NATS_URL": server.url,
                "WINDFALL_STATE_DIR": str(self.folder / f"{site}-trainer"),
                "WINDFALL_SITE": site,
                "WINDFALL_FEDERATION": "demo",
                "WINDFALL_COORDINATOR": f"127.0.0.1:{self.port}",
                "WINDFALL_DATA_DIR": str(data),
                "WINDFALL_WINDOW_ID": str(uuid4()),
                "WINDFALL_LEASE_TOKEN": "1",
                "WINDFALL_MICRO_BATCH": "2",
            },
            self.folder / f"{site}.log",
        )


async def story(made: Zygote, folder: Path, *, overlap: bool, killed: bool) -> list[Message]:
    """What the hub has heard at the end; every trainer has drained and lost nothing."""
    folder.mkdir()
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(started_server(folder / "hub", HUB))
        sites = {site: await stack.enter_async_context(started_server(folder / site, site)) for site in TOKENS}
        place = Place(made, hub, folder, overlap, free_port())
        trainers: list[Child] = []
        try:
            await place.start()
            trainers = [await place.train(site, server) for site, server in sites.items()]
            if killed:
                await heard(hub.url, RoundCompleted, place.alive, KILLED_BEHIND)
                first = place.coordinator
                assert first is not None
                first.signal(signal.SIGKILL)
                await first.ended
                wrong = await place.start(FRAGMENTS + 1)
                async with asyncio.timeout(SECONDS):
                    assert await wrong.ended > 0
                assert f"Set WINDFALL_FRAGMENTS={FRAGMENTS}" in wrong.log.read_text()
                await place.start()
            await heard(hub.url, RoundCompleted, place.alive, ROUNDS)
            await Links("demo", f"127.0.0.1:{place.port}", hub.url, place.alive).stop()
            async with asyncio.timeout(SECONDS):
                for trainer in trainers:
                    assert await trainer.ended == 0, trainer.log.read_text()[-2000:]
            for server in sites.values():
                (drained,) = [
                    one for one in await heard(server.url, SiteDrained, place.alive) if isinstance(one, SiteDrained)
                ]
                assert drained.delivered or overlap
            return await heard(hub.url, FederationFinished, place.alive)
        finally:
            for child in filter(None, (place.coordinator, *trainers)):
                child.signal(signal.SIGKILL)
                await child.ended


@pytest.mark.parametrize("overlap", [False, True], ids=["waits", "overlaps"])
async def test_a_coordinator_that_is_killed_goes_on_with_the_fragment_whose_turn_it_was(
    overlap: bool, tmp_path: Path
) -> None:
    async with zygote() as made:
        said = await story(made, tmp_path / "killed", overlap=overlap, killed=True)
        expected = [] if overlap else await story(made, tmp_path / "undisturbed", overlap=overlap, killed=False)
    invariants.check_rounds(said)
    invariants.check_members(said)
    assert not [one for one in said if isinstance(one, ContributionRefused)]
    rounds = [one for one in said if isinstance(one, RoundCompleted)]
    assert len({one.model_digest for one in rounds}) == len(rounds) >= ROUNDS
    # Whoever waits trains the same steps, so that a life more of the coordinator is not to be seen in any bit.
    undisturbed = [one.model_digest for one in expected if isinstance(one, RoundCompleted)][:ROUNDS]
    assert overlap or [one.model_digest for one in rounds][:ROUNDS] == undisturbed
    # The first base of each is a model, and from then on there are messages of a fragment.
    assert sum(one.bytes_down for one in rounds[1:ROUNDS]) < 0.2 * (ROUNDS - 1) * LAYOUT.nbytes


def test_one_fragment_is_what_nobody_has_to_ask_for() -> None:
    assert CoordinatorSettings.model_fields["fragments"].default == 1
