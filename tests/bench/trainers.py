"""Real trainer processes for measurements, each with the bus of its own site, a leaf of the hub's."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar
from uuid import uuid4

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.bench.hub import FEDERATION, Hub
from windfall.contracts.envelope import Letter, unseal
from windfall.contracts.message import Message
from windfall.contracts.subjects import subject_for
from windfall.servicekit.natsserver import NatsServer, ServerPlan, free_port

M = TypeVar("M", bound=Message)
TEXT = Path(__file__).parents[2] / "libs/cli/src/windfall/cli/data/tinyshakespeare.txt"


class Trainer:
    """One site. Enter it to start its bus; then start trainers on it, one after the other.

    Args:
        coordinator: ``host:port``, of the hub or of a link to it.
        program: what runs, as arguments to the interpreter.
    """

    def __init__(
        self,
        folder: Path,
        hub: Hub,
        site: str,
        coordinator: str = "",
        told: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "windfall.site_trainer"),
    ) -> None:
        folder.mkdir(parents=True)
        self.site = site
        self.window = uuid4()
        self.server = NatsServer(
            ServerPlan(site, free_port(), folder / "store", hub_leaf_port=hub.leaf_port), folder / "nats"
        )
        data = folder / "data"
        data.mkdir()
        (data / "text.txt").symlink_to(TEXT)
        self._program = program
        self._leases = 0
        self._told = {
            "WINDFALL_SITE": site,
            "WINDFALL_NATS_URL": self.server.url,
            "WINDFALL_STATE_DIR": str(folder / "state"),
            "WINDFALL_FEDERATION": FEDERATION,
            "WINDFALL_COORDINATOR": coordinator or hub.address,
            "WINDFALL_DATA_DIR": str(data),
            "WINDFALL_WINDOW_ID": str(self.window),
            "WINDFALL_LOG_LEVEL": "WARNING",
            "OMP_NUM_THREADS": "1",
            **(told or {}),
        }
        self.process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self.server.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.returncode is None:
            await self.kill()
        await self.server.stop()

    async def start(self) -> None:
        """Under a new lease."""
        self._leases += 1
        lease = {"WINDFALL_LEASE_TOKEN": str(self._leases)}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, *self._program, env={**os.environ, **self._told, **lease}
        )

    async def kill(self) -> None:
        """As -9 does."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()

    async def drain(self) -> None:
        """As SIGTERM does; waits for its end."""
        assert self.process is not None
        self.process.terminate()
        await self.process.wait()


class Ear:
    """What is said on a bus, as it is said."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def on(self, kind: type[M], whom: str = "*") -> "asyncio.Queue[M]":
        """Everything of a kind from now on."""
        heard: asyncio.Queue[M] = asyncio.Queue()

        async def hear(message: Msg) -> None:
            event = unseal(Letter(message.subject, message.headers or {}, message.data))
            assert isinstance(event, kind)
            heard.put_nowait(event)

        await self._client.subscribe(subject_for(kind, whom), cb=hear)
        await self._client.flush()
        return heard


@asynccontextmanager
async def listening(place: Hub | Trainer) -> AsyncIterator[Ear]:
    """On its bus."""
    client = await nats.connect(place.server.url)
    try:
        yield Ear(client)
    finally:
        await client.close()


@asynccontextmanager
async def trainers(
    folder: Path, hub: Hub, sites: Sequence[str], told: Mapping[str, str] | None = None
) -> AsyncIterator[list[Trainer]]:
    """A trainer process at each site."""
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(Trainer(folder / site, hub, site, told=told)) for site in sites]
        await asyncio.gather(*(one.start() for one in found))
        yield found
