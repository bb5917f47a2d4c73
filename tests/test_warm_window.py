"""Capacity that is warm when its window opens, with real servers, processes and training; the test is the watcher."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid4

import psutil
import pytest

from tests.wiring import RealWiring
from windfall.contracts.envelope import seal
from windfall.contracts.events import (
    NodeReady,
    NodeReleased,
    SiteDrained,
    SiteJoined,
    TrainingStarted,
    WindowClosed,
    WindowExpected,
    WindowOpened,
    WindowWithdrawn,
)
from windfall.contracts.message import Message
from windfall.contracts.subjects import HUB, hub_streams, site_streams
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.natsserver import free_port
from windfall.servicekit.testing.kube_played.persistence import persist

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SITE = "site-a"
TASK = '{"width": 16, "layers": 1, "heads": 2, "context": 8, "rotary_pct": 0.5}'

E = TypeVar("E", bound=Message)


@dataclass
class Field:
    """A hub with its coordinator, a site with its provisioner, and whoever says the windows."""

    folder: Path
    watcher: NatsBus
    hub: NatsBus
    heard: list[Message] = field(default_factory=list)
    news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def hear(self, message: Message) -> None:
        async with self.news:
            self.heard.append(message)
            self.news.notify_all()

    async def says(self, kind: type[Message], window: UUID, **fields: Any) -> Message:
        about = {"id": uuid4(), "at": datetime.now(UTC), "site": SITE, "window_id": window}
        message = kind.model_validate(about | {"expected_close_at": None} | fields)
        await persist(lambda: self.watcher.publish(seal(message, "/test")))
        return message

    async def expects(self, window: UUID) -> None:
        await self.says(WindowExpected, window, opens_at=datetime.now(UTC) + timedelta(hours=1), confidence=0.9)

    def events(self, kind: type[E], window: UUID) -> list[E]:
        """What the hub has heard of a window."""
        return [event for event in self.heard if isinstance(event, kind) and getattr(event, "window_id", "") == window]

    async def until(self, kind: type[E], window: UUID, times: int = 1) -> E:
        async with asyncio.timeout(120), self.news:
            await self.news.wait_for(lambda: len(self.events(kind, window)) >= times)
        return self.events(kind, window)[-1]

    async def warm(self, window: UUID, times: int = 1) -> None:
        """Return when the node of a window has said so often that it is warm: once in each of its lives."""

        ready = await self.until(NodeReady, window)
        async with asyncio.timeout(120):
            while True:
                if self.log(ready.lease_id).count("warm after") >= times:
                    return
                await asyncio.sleep(0.05)

    def log(self, lease_id: UUID) -> str:
        return (self.nodes / str(lease_id) / "log").read_text()

    def node(self, lease_id: UUID) -> psutil.Process:
        return psutil.Process(json.loads((self.nodes / str(lease_id) / "record.json").read_text())["pid"])

    @property
    def nodes(self) -> Path:
        return self.folder / "provisioner/nodes"


@asynccontextmanager
async def service(name: str, **told: object) -> AsyncIterator[None]:
    environ = {**os.environ, **{f"WINDFALL_{key.upper()}": str(value) for key, value in told.items()}}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", f"windfall.{name}", env=environ)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Field]:
    wiring = RealWiring(tmp_path)
    await wiring.rise([SITE])
    site, hub = wiring.servers[SITE].url, wiring.servers[HUB].url
    coordinator = f"127.0.0.1:{free_port()}"
    data = tmp_path / "data"
    data.mkdir()
    (data / "field-notebook.txt").write_text("The herons are back on the weir. " * 200)
    watcher = NatsBus(site, "energy-watcher", site_streams(SITE), lambda mistake: None)
    trainer = {"trainer_coordinator": coordinator, "trainer_data_dir": data, "trainer_federation": "demo"}
    of_hub = {"sites": SITE, "listen": coordinator, "task_settings": TASK, "round_steps": 5, "micro_batch": 2}
    async with (
        service("federation_coordinator", state_dir=tmp_path / "coordinator", nats_url=hub, **of_hub),
        service(
            "provisioner", state_dir=tmp_path / "provisioner", nats_url=site, site=SITE, on_stop="release", **trainer
        ),
    ):
        place = Field(tmp_path, watcher, NatsBus(hub, "dashboard", hub_streams((SITE,)), lambda mistake: None))
        for kind in (NodeReady, NodeReleased, SiteDrained, SiteJoined, TrainingStarted):
            place.hub.hears(kind, SITE, place.hear)
        for bus in (watcher, place.hub):
            await bus.start()
        yield place
        for bus in (watcher, place.hub):
            await bus.stop()
    await wiring.lie_down()


async def test_a_warm_trainer_trains_when_its_window_opens_and_never_before(place: Field) -> None:
    window = uuid4()
    await place.expects(window)
    ready = await place.until(NodeReady, window)
    await place.warm(window)
    killed = place.node(ready.lease_id)
    killed.kill()
    await place.warm(window, times=2)
    again = place.node(ready.lease_id)
    assert again != killed
    assert again.environ()["WINDFALL_LEASE_TOKEN"] == str(ready.lease_token)
    assert again.environ()["WINDFALL_WINDOW_OPENS_AT"]
    assert not place.events(SiteJoined, window)

    opened = await place.says(WindowOpened, window, intensity_g_per_kwh=20)
    joined, started = await place.until(SiteJoined, window), await place.until(TrainingStarted, window)
    assert opened.at <= joined.at <= started.at
    assert place.node(ready.lease_id) == again, "the node that was warm is the one that trains"
    again.kill()
    await place.until(SiteJoined, window, times=2)
    assert place.node(ready.lease_id).environ()["WINDFALL_WINDOW_OPENS_AT"] == ""
    await place.says(WindowClosed, window, reason="dirty", crossed_at=datetime.now(UTC))
    assert (await place.until(SiteDrained, window)).delivered
    assert (await place.until(NodeReleased, window)).reason == "drained"

    never = uuid4()
    await place.expects(never)
    await place.warm(never)
    await place.says(WindowWithdrawn, never)
    assert (await place.until(SiteDrained, never)).delivered
    assert (await place.until(NodeReleased, never)).reason == "drained"
    assert not place.events(SiteJoined, never)
    assert not place.events(TrainingStarted, never)
    lease = (await place.until(NodeReady, never)).lease_id
    assert "with its engine" in place.log(lease), "the site has been a member before"
