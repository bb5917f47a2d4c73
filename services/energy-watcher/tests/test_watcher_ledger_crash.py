"""The ledger of a real process on a real bus, which is killed at whatever it does."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from uuid import UUID, uuid5

import nats
import nats.js.errors

from windfall.contracts.envelope import Letter, seal, unseal
from windfall.contracts.events import (
    EnergyRecorded,
    NodeReady,
    NodeReleased,
    SiteDrained,
    TrainingStarted,
    WindowClosed,
    WindowOpened,
)
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM
from windfall.energy.chain import Verified, verify
from windfall.servicekit.clock import ReplayClock
from windfall.servicekit.natsserver import NatsServer

WATCHER = """
from contextlib import asynccontextmanager
from datetime import timedelta

from windfall.contracts.subjects import site_streams
from windfall.energy_watcher.bookkeeper import keep
from windfall.energy_watcher.ledger_settings import BookkeeperSettings
from windfall.servicekit.service import run


@asynccontextmanager
async def attend(settings, stand):
    async with keep(settings, stand, clean_below_g_per_kwh=100.0, stale_after=timedelta(minutes=15)):
        yield


run("energy-watcher", BookkeeperSettings, lambda s: s.site, lambda s: site_streams(s.site), attend)
"""
DAY = datetime(2026, 1, 1, tzinfo=UTC)
SECONDS = 60.0


class Watcher:
    """The process, its ledger, and the bus that outlives it."""

    def __init__(self, folder: Path, server: NatsServer) -> None:
        self.folder = folder
        self.server = server
        self.clock = ReplayClock(DAY, datetime.now(UTC), 3600.0)
        self.process: asyncio.subprocess.Process

    async def start(self) -> None:
        told = {
            "WINDFALL_SITE": "site-a",
            "WINDFALL_STATE_DIR": str(self.folder),
            "WINDFALL_NATS_URL": self.server.url,
            "WINDFALL_CLOCK": str(self.clock),
        }
        self.process = await asyncio.create_subprocess_exec(sys.executable, "-c", WATCHER, env={**os.environ, **told})

    async def __aenter__(self) -> "Watcher":
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            await self.end(signal.SIGKILL)

    async def end(self, number: int) -> int:
        self.process.send_signal(number)
        return await self.process.wait()

    def lines(self) -> list[str]:
        path = self.folder / "ledger.jsonl"
        return path.read_text().splitlines() if path.exists() else []

    async def until(self, fine: Callable[[list[str]], bool]) -> None:
        async with asyncio.timeout(SECONDS):
            while not fine(self.lines()):  # noqa: ASYNC110  another process writes the file
                await asyncio.sleep(0.02)

    async def stands(self) -> None:
        """The watcher declares the streams when it stands."""
        async with asyncio.timeout(SECONDS), await nats.connect(self.server.url) as client:
            while True:
                try:
                    await client.jetstream().stream_info(EVENTS_STREAM)
                    return
                except nats.js.errors.Error:
                    await asyncio.sleep(0.02)

    async def say(self, *kinds: type[Message]) -> list[datetime]:
        """When it was that each of them happened."""
        times = []
        whole = {"site": "site-a", "window_id": UUID(int=1), "lease_token": 1, "federation": "f", "round": 0}
        whole |= {"lease_id": UUID(int=2), "node": "n", "backend": "process", "delivered": True}
        whole |= {"intensity_g_per_kwh": 50.0, "expected_close_at": None, "crossed_at": DAY}
        async with await nats.connect(self.server.url) as client:
            for kind in kinds:
                reason = "dirty" if kind is WindowClosed else "drained"
                at = self.clock.now()
                times.append(at)
                message = kind.model_validate(
                    {**whole, "id": uuid5(UUID(int=7), kind.topic), "at": at, "reason": reason}
                )
                letter = seal(message, "/windfall/test")
                await client.jetstream().publish(letter.subject, letter.body, headers=dict(letter.headers))
        return times

    async def published(self) -> list[EnergyRecorded]:
        async with await nats.connect(self.server.url) as client:
            stream = client.jetstream()
            last = (await stream.stream_info(EVENTS_STREAM)).state.last_seq
            stored = [await stream.get_msg(EVENTS_STREAM, sequence) for sequence in range(1, last + 1)]
        said = [unseal(Letter(m.subject or "", dict(m.headers or {}), m.data or b"")) for m in stored]
        return [message for message in said if isinstance(message, EnergyRecorded)]

    async def ends_well(self) -> list[EnergyRecorded]:
        """Have it end, and give what was published. What a busy bus has not taken by then, the next start says."""
        assert await self.end(signal.SIGTERM) == 0
        while len(said := await self.published()) < len(self.lines()) - 1:
            await self.start()
            async with asyncio.timeout(SECONDS):
                while len(await self.published()) < len(self.lines()) - 1:  # noqa: ASYNC110  another process writes both
                    await asyncio.sleep(0.05)
            assert await self.end(signal.SIGTERM) == 0
        return said


def drained_and_idle(lines: list[str]) -> bool:
    return any('"state":"draining"' in one and '"state":"idle"' in then for one, then in pairwise(lines))


async def test_killed_again_and_again_it_keeps_one_whole_ledger(tmp_path: Path, nats_server: NatsServer) -> None:
    async with Watcher(tmp_path / "state", nats_server) as watcher:
        await watcher.start()
        await watcher.stands()
        for entries, event in enumerate((WindowOpened, NodeReady, TrainingStarted), start=1):
            await watcher.say(event)
            await watcher.until(lambda lines, entries=entries: len(lines) > entries)  # type: ignore[misc]
            await watcher.end(signal.SIGKILL)
            await watcher.start()
        await watcher.end(signal.SIGKILL)
        closed_at, *_ = await watcher.say(WindowClosed, SiteDrained, NodeReleased)
        await watcher.start()
        await watcher.until(drained_and_idle)
        said = await watcher.ends_well()
    assert len({event.sequence for event in said}) == len(said) == len(watcher.lines()) - 1
    found = verify(watcher.lines(), None, {event.sequence: event.entry_hash for event in said})
    assert isinstance(found, Verified), found
    training = [entry for entry in found.entries if entry.state == "training"]
    assert abs(training[-1].end - closed_at) < timedelta(hours=1)
    assert all(entry.end - entry.start <= timedelta(minutes=15) for entry in training)
    assert [entry.start for entry in found.entries[1:]] == [entry.end for entry in found.entries[:-1]]
