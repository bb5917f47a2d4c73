"""A second coordinator that stands by: it takes over from one that dies, and one that slept may not go on."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.links import ROUNDS, SECONDS, TOKENS, Links, contribution, environ
from tests.zygote import Child, Zygote, zygote
from windfall.cli.checkpoints.exporting import exported
from windfall.cli.checkpoints.verifying import verified_file
from windfall.contracts.events import ContributionAccepted, FederationFinished, RoundCompleted, SiteJoined
from windfall.contracts.message import Message
from windfall.contracts.subjects import HUB
from windfall.servicekit.errors import ExitCode
from windfall.servicekit.natsserver import NatsServer, free_port
from windfall.servicekit.testing.fixtures import started_server

pytestmark = pytest.mark.slow


@dataclass
class Stage:
    """A folder, and coordinators that are pointed at it."""

    server: NatsServer
    zygote: Zygote
    folder: Path
    lease: str
    running: list[Child] = field(default_factory=list)

    async def start(self, port: int, health: int = 0, **told: str) -> Child:
        environment = {
            "PATH": os.environ["PATH"],
            **environ("demo", self.server.url, self.folder / "state", port),
            "WINDFALL_ROUND_STEPS": "1",
            "WINDFALL_STANDBY": "true",
            "WINDFALL_LEASE": self.lease,
            "WINDFALL_HEALTH_PORT": str(health),
            **told,
        }
        child = await self.zygote.start("federation-coordinator", environment, self.folder / f"{port}.log")
        self.running.append(child)
        return child


@asynccontextmanager
async def stage(folder: Path, lease: str = "6") -> AsyncIterator[Stage]:
    async with started_server(folder / "nats", HUB) as server, zygote() as made:
        set_up = Stage(server, made, folder, lease)
        try:
            yield set_up
        finally:
            for child in set_up.running:
                child.signal(signal.SIGCONT)
                child.signal(signal.SIGKILL)
                await child.ended


async def nobody_ends() -> "asyncio.Future[int]":
    return asyncio.get_running_loop().create_future()


async def readiness(port: int, fine: Callable[[str], bool]) -> None:
    """Wait until a health endpoint says what it should."""
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(SECONDS):
        while True:
            try:
                said = (await client.get(f"http://127.0.0.1:{port}/readyz")).text.strip()
            except httpx.TransportError:
                said = ""
            if fine(said):
                return
            await asyncio.sleep(0.05)


def once_each(said: list[Message]) -> tuple[str, ...]:
    """The digests of a federation of which nothing was lost, and nothing counted or said twice."""
    accepted = [(one.site, one.round) for one in said if isinstance(one, ContributionAccepted)]
    assert sorted(accepted) == [(site, number) for site in TOKENS for number in range(ROUNDS)]
    completed = [one for one in said if isinstance(one, RoundCompleted)]
    assert [(one.round, one.tokens) for one in completed] == [(each, 400) for each in range(ROUNDS)]
    assert [one.base_digest for one in completed[1:]] == [one.model_digest for one in completed[:-1]]
    assert len([one for one in said if isinstance(one, FederationFinished)]) == 1
    return tuple(one.model_digest for one in completed)


async def test_a_standby_takes_over_and_a_leader_that_slept_ends_without_a_word(tmp_path: Path) -> None:
    ports, probes = [free_port() for _ in range(3)], [free_port() for _ in range(3)]
    async with stage(tmp_path) as set_up:
        first = await set_up.start(ports[0], probes[0])
        await readiness(probes[0], lambda said: said == "ok")
        second = await set_up.start(ports[1], probes[1])
        await readiness(probes[1], lambda said: said == "standby")
        target = ",".join(f"127.0.0.1:{port}" for port in ports)
        links = Links("demo", target, set_up.server.url, nobody_ends)
        for site in TOKENS:
            await links.join(site)
        base = await links.over("site-a", 0)
        await links.push("site-a", 0, base)
        half = len(contribution("site-b", 0)) // 2
        await links.push("site-b", 0, base, end=half)
        arrived = await links.received("site-b", 0)
        assert 0 < arrived < 2 * half

        # Killed: the one that stands by goes on in the middle of the push.
        first.signal(signal.SIGKILL)
        killed_at = time.monotonic()
        assert await links.over("site-b", 0) == base
        print(f"takeover: {time.monotonic() - killed_at:.2f} s")
        assert await links.received("site-b", 0) == arrived
        await links.push("site-b", 0, base)
        base = await links.over("site-a", 1)
        await links.push("site-a", 1, base)
        await readiness(probes[1], lambda said: said == "ok")

        # Asleep: the next one takes over, and whoever wakes up may not commit.
        third = await set_up.start(ports[2], probes[2])
        await readiness(probes[2], lambda said: said == "standby")
        second.signal(signal.SIGSTOP)
        await readiness(probes[2], lambda said: said == "ok")
        assert await links.over("site-b", 1) == base
        second.signal(signal.SIGCONT)
        async with asyncio.timeout(SECONDS):
            assert await second.ended == ExitCode.FAILED
        assert "has taken over and this one may not go on" in second.log.read_text().splitlines()[-1]
        await links.push("site-b", 1, base)
        await links.leave("site-b")
        await links.stop()
        await links.leave("site-a")
        said = await links.history()
        digests = once_each(said)
        assert links.attempts == {"site-a": 1, "site-b": 1}
        assert len([one for one in said if isinstance(one, SiteJoined)]) == 2
        # A person has the model from whichever of them leads, and the bus says that it is this one.
        file = tmp_path / "model.safetensors"
        taken = await exported(target, "demo", "newest", file, print, force=False)
        assert (taken.round, taken.digest, taken.tokens_total) == (ROUNDS - 1, digests[-1], 400 * ROUNDS)
        assert "as round.completed and federation.finished said" in await verified_file(set_up.server.url, file)
        third.signal(signal.SIGTERM)
        assert await third.ended == ExitCode.OK

    async with stage(tmp_path / "beside") as set_up:
        await set_up.start(ports[0], WINDFALL_STANDBY="")
        links = Links("demo", f"127.0.0.1:{ports[0]}", set_up.server.url, nobody_ends)
        await links.whole()
        assert once_each(await links.history()) == digests
        # Without a lease, one folder is one process's.
        for standby in ("", "true"):
            other = await set_up.start(ports[1], WINDFALL_STANDBY=standby)
            async with asyncio.timeout(SECONDS):
                assert await other.ended == ExitCode.RESOURCE
            assert "another process works in" in other.log.read_text().splitlines()[-1]
