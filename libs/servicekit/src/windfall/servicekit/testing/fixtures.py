"""Pytest fixtures over the real parts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from windfall.servicekit.natsserver import NatsServer, ServerPlan, free_port
from windfall.servicekit.tls import Tls


@asynccontextmanager
async def started_server(folder: Path, domain: str = "site-a", tls: Tls | None = None) -> AsyncIterator[NatsServer]:
    """A real JetStream server of its own."""
    server = NatsServer(ServerPlan(domain, free_port(), folder / "jetstream", tls=tls), folder)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A real JetStream server whose domain is called ``site-a``."""
    async with started_server(tmp_path / "nats") as server:
        yield server
