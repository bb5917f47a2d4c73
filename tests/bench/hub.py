"""A hub for measurements: a real bus and a real coordinator process, which can be killed and started again."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from windfall.servicekit.natsserver import NatsServer, ServerPlan, free_port

FEDERATION = "bench"


class Hub:
    """Enter it to start both. The coordinator answers once it has imported what it needs: callers ask until it does.

    Args:
        told: the coordinator's settings, over those that measurements share.
        sites: whose leaves connect; none when sites are bare clients.
    """

    def __init__(self, folder: Path, told: Mapping[str, str], sites: Sequence[str] = ()) -> None:
        self.port = free_port()
        self.leaf_port = free_port()
        self.server = NatsServer(ServerPlan("hub", free_port(), folder / "store", leaf_port=self.leaf_port), folder)
        self.state_dir = folder / "coordinator"
        self._told = {
            "WINDFALL_NATS_URL": self.server.url,
            "WINDFALL_STATE_DIR": str(self.state_dir),
            "WINDFALL_FEDERATION": FEDERATION,
            "WINDFALL_LISTEN": f"127.0.0.1:{self.port}",
            "WINDFALL_SITES": ",".join(sites),
            "WINDFALL_LOG_LEVEL": "WARNING",
            **told,
        }
        self._life = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self.server.start()
        self._life.push_async_callback(self.server.stop)
        await self.start()
        self._life.push_async_callback(self.end)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._life.aclose()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the coordinator, again on the same port and the same disk."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "windfall.federation_coordinator", env={**os.environ, **self._told}
        )

    async def kill(self) -> None:
        """As -9 does."""
        self._process.kill()
        await self._process.wait()

    async def end(self) -> None:
        """As an operator does."""
        if self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()
