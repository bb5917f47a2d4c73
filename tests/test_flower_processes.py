"""A stock Flower app over real processes, gRPC and NATS, while its coordinator and a site are killed in mid-round."""

import asyncio
import os
import signal
from pathlib import Path
from typing import IO

import pytest
from safetensors.numpy import load_file

from tests.flower_fleet import FlowerFleet, kill
from windfall.contracts.events import (
    ContributionAccepted,
    FederationFinished,
    RoundCompleted,
    RoundStarted,
    SiteJoined,
    SiteLeft,
)

APP = Path(__file__).parent / "flower_apps" / "adding"

pytestmark = pytest.mark.slow


async def reached(gate: Path) -> IO[str]:
    """Wait until the app stands at its gate; closing what this gives lets it pass."""
    return await asyncio.to_thread(gate.open, "w")


async def test_killed_in_mid_round_the_coordinator_resumes_and_a_site_is_not_waited_for(tmp_path: Path) -> None:
    sites = ("site-a", "site-b")
    settings = {"RUN_CONFIG": "num-server-rounds=3 fraction-evaluate=0.0", "SILENCE": "20"}
    async with FlowerFleet(tmp_path, APP, sites, settings) as fleet:
        first, second = fleet.data("site-a") / "gate-2", fleet.data("site-b") / "gate-3"
        os.mkfifo(first)
        os.mkfifo(second)
        coordinator = await fleet.coordinator()
        staying, dying = await fleet.site("site-a"), await fleet.site("site-b")

        with await reached(first):
            await kill(coordinator)
            coordinator = await fleet.coordinator()
        with await reached(second):
            await kill(dying)

        assert await staying.wait() == 0  # the run has ended, and says so to whoever is there
        coordinator.send_signal(signal.SIGTERM)
        assert await coordinator.wait() == 0
        said = await fleet.said()

        final = load_file(fleet.state / "models" / "final.safetensors")
        trained = {site: (fleet.data(site) / "rounds").read_text() for site in sites}
    assert final["0"].tolist() == [1.5 + 1.5 + 1.0] * 4
    assert trained == {"site-a": "1 2 3", "site-b": "1 2 3"}  # nobody trained a round twice
    rounds = [event for event in said if isinstance(event, RoundCompleted)]
    assert [(event.round, event.contributors) for event in rounds] == [(0, sites), (1, sites), (2, ("site-a",))]
    assert len([event for event in said if isinstance(event, RoundStarted)]) == 3
    assert len([event for event in said if isinstance(event, ContributionAccepted)]) == 5
    assert [event.attempt for event in said if isinstance(event, SiteJoined)] == [1, 1]
    assert next((event.site, event.reason) for event in said if isinstance(event, SiteLeft)) == ("site-b", "silent")
    assert len([event for event in said if isinstance(event, FederationFinished)]) == 1
