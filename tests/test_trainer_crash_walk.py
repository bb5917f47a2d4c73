"""Every place at which a trainer can be killed: it is started again, and its work counts once, to the same model."""

import asyncio
import os
import re
import signal
from pathlib import Path
from uuid import uuid4

import pytest

from tests.links import RULE, SECONDS, TOKENS, Links, environ, heard
from tests.zygote import Child, Zygote, zygote
from windfall.contracts.events import ContributionAccepted, RoundCompleted, SiteDrained, SiteJoined
from windfall.contracts.message import Message
from windfall.contracts.subjects import HUB
from windfall.servicekit.natsserver import free_port
from windfall.servicekit.testing.fixtures import started_server
from windfall.site_trainer import crashpoints as trainers

pytestmark = pytest.mark.slow

ROUNDS = 2
TRAINED, LINKED = sorted(TOKENS)
"""One site really trains; the other one is no more than its link."""
TEXT = "Shall I compare thee to a summer's day? Thou art more lovely and more temperate. " * 40

CHAIN = tuple(trainers.POINTS)
"""They stand in the order in which a trainer comes by."""


class Site:
    """A trainer under one lease, started again whenever it dies."""

    def __init__(self, made: Zygote, told: dict[str, str], crash_at: tuple[str, ...], log: Path) -> None:
        self._zygote, self._told, self._crash_at, self._log = made, told, crash_at, log
        self.deaths = 0
        self.child: Child | None = None

    async def run(self) -> None:
        """Until it ends by itself."""
        while True:
            at = "".join(self._crash_at[self.deaths : self.deaths + 1])
            self.child = await self._zygote.start("site-trainer", {**self._told, "WINDFALL_CRASH_AT": at}, self._log)
            how = await asyncio.shield(self.child.ended)
            if how == 0:
                return
            assert how == -signal.SIGKILL, self._log.read_text()[-3000:]
            self.deaths += 1


async def nobody_ends() -> "asyncio.Future[int]":
    return asyncio.get_running_loop().create_future()


async def story(made: Zygote, folder: Path, crash_at: tuple[str, ...]) -> tuple[int, list[Message], list[Message]]:
    """How often the trainer died, and what was said at the hub and at its site."""
    data = folder / "data"
    data.mkdir(parents=True)
    (data / "text.txt").write_text(TEXT)
    port = free_port()
    async with (
        started_server(folder / "hub", HUB) as hub,
        started_server(folder / "site", TRAINED) as site,
    ):
        told = {**environ("demo", hub.url, folder / "coordinator", port), "WINDFALL_ROUND_STEPS": "3"}
        coordinator = await made.start("federation-coordinator", told, folder / "coordinator.log")
        trainer = Site(
            made,
            {
                "PATH": os.environ["PATH"],
                "WINDFALL_NATS_URL": site.url,
                "WINDFALL_STATE_DIR": str(folder / "trainer"),
                "WINDFALL_SITE": TRAINED,
                "WINDFALL_FEDERATION": "demo",
                "WINDFALL_COORDINATOR": f"127.0.0.1:{port}",
                "WINDFALL_DATA_DIR": str(data),
                "WINDFALL_WINDOW_ID": str(uuid4()),
                "WINDFALL_LEASE_TOKEN": "1",
                "WINDFALL_MICRO_BATCH": "2",
                "WINDFALL_CHECKPOINT_EVERY": "0.0001",
            },
            crash_at,
            folder / "trainer.log",
        )
        links = Links("demo", f"127.0.0.1:{port}", hub.url, nobody_ends)
        running: asyncio.Task[None] | None = None
        try:
            await links.join(LINKED)
            base = await links.over(LINKED, 0)
            running = asyncio.create_task(trainer.run())
            await heard(hub.url, SiteJoined, nobody_ends, 2)
            # The round ends with the trainer's contribution, so that who dies behind it joins the next one.
            assert trainer.child is not None
            trainer.child.signal(signal.SIGSTOP)
            await links.push(LINKED, 0, base)
            trainer.child.signal(signal.SIGCONT)
            for number in range(1, ROUNDS):
                await links.push(LINKED, number, await links.over(LINKED, number))
            await heard(hub.url, RoundCompleted, nobody_ends, ROUNDS)
            await links.stop()
            await links.push(LINKED, ROUNDS, await links.over(LINKED, ROUNDS))
            await links.leave(LINKED)
            async with asyncio.timeout(SECONDS):
                await running
            at_hub = await heard(hub.url, RoundCompleted, nobody_ends, ROUNDS + 1)
            return trainer.deaths, at_hub, await heard(site.url, SiteDrained, nobody_ends)
        finally:
            for child in filter(None, (coordinator, trainer.child)):
                child.signal(signal.SIGCONT)
                child.signal(signal.SIGKILL)
            if running is not None and not running.done():
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            await coordinator.ended


def contributors(said: list[Message], number: int) -> list[str]:
    return [each.site for each in said if isinstance(each, ContributionAccepted) and each.round == number]


def completed(said: list[Message], number: int) -> RoundCompleted:
    (found,) = [each for each in said if isinstance(each, RoundCompleted) and each.round == number]
    return found


async def test_killed_everywhere_a_trainers_work_counts_once_and_to_the_same_model(tmp_path: Path) -> None:
    assert RULE.codec.init(1) == (), "a codec that remembers begins anew with every membership"
    async with zygote() as made:
        _, expected, _ = await story(made, tmp_path / "undisturbed", ())
        deaths, said, at_site = await story(made, tmp_path / "killed", CHAIN)
    assert deaths == len(CHAIN)
    for number in range(ROUNDS + 1):
        assert sorted(contributors(said, number)) == sorted(TOKENS), f"round {number}"
    # All but the last of these deaths are in the first round. Who dies behind its contribution goes on from the last
    # checkpoint, which is written beside training: the optimizer's state may then be a step older.
    assert completed(said, 0).model_digest == completed(expected, 0).model_digest
    # The last round is cut short by the order to stop, a step earlier or later.
    for number in range(ROUNDS):
        assert completed(said, number).tokens == completed(expected, number).tokens
    (drained,) = [one for one in at_site if isinstance(one, SiteDrained)]
    assert drained.delivered


def test_every_place_that_is_named_is_in_the_code_and_the_other_way_round() -> None:
    folder = Path(trainers.__file__).parent
    reached = {name for path in folder.glob("*.py") for name in re.findall(r'reach\("([a-z.-]+)"\)', path.read_text())}
    assert reached == set(trainers.POINTS)
