"""What joins the services of a fleet: buses and gRPC, in memory or for real."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, cast

import grpc.aio
import nats

from windfall.contracts.envelope import Letter
from windfall.contracts.subjects import EVENTS_STREAM, HUB, StreamSpec
from windfall.servicekit.bus import Bus
from windfall.servicekit.errors import Mistake
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.natsserver import NatsServer, ServerPlan, free_port
from windfall.servicekit.rpc import Registration, RpcServer, connect, serve
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain
from windfall.servicekit.testing.memory_rpc import MemoryChannel, MemoryServer


class Wiring(Protocol):
    """One hub and its sites."""

    async def rise(self, sites: Sequence[str]) -> None: ...

    async def lie_down(self) -> None: ...

    def bus(
        self,
        domain: str,
        service: str,
        streams: Sequence[StreamSpec],
        fail: Callable[[Mistake], None],
        lost: Callable[[], None],
    ) -> Bus: ...

    async def serve(self, register: Registration) -> None:
        """Serve the coordinator's gRPC, on the same address each time."""

    async def cut_service(self) -> None:
        """End it with every call that runs."""

    def channel(self, site: str) -> grpc.aio.Channel: ...

    async def letters(self, domain: str) -> list[Letter]:
        """What a domain's EVENTS hold, oldest first."""


class MemoryWiring:
    """The doubles that ship."""

    def __init__(self) -> None:
        self.domains: dict[str, MemoryDomain] = {}
        self.server = MemoryServer()
        self.channels: dict[str, MemoryChannel] = {}

    async def rise(self, sites: Sequence[str]) -> None:
        self.domains = {name: MemoryDomain(name) for name in (HUB, *sites)}
        for site in sites:
            self.domains[HUB].join(self.domains[site])

    async def lie_down(self) -> None:
        await self.server.kill()

    def bus(
        self,
        domain: str,
        service: str,
        streams: Sequence[StreamSpec],
        fail: Callable[[Mistake], None],
        lost: Callable[[], None],
    ) -> Bus:
        return MemoryBus(self.domains[domain], service, streams, fail, lost)

    async def serve(self, register: Registration) -> None:
        self.server.down = False
        register(self.server)

    async def cut_service(self) -> None:
        await self.server.kill()

    def channel(self, site: str) -> grpc.aio.Channel:
        channel = self.channels[site] = MemoryChannel(self.server)
        return cast(grpc.aio.Channel, cast(Any, channel))

    async def letters(self, domain: str) -> list[Letter]:
        return self.domains[domain].letters(EVENTS_STREAM)


class RealWiring:
    """A hub server, a leaf server for each site, and gRPC over loopback."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._address = f"127.0.0.1:{free_port()}"
        self._service: RpcServer | None = None
        self.servers: dict[str, NatsServer] = {}

    async def rise(self, sites: Sequence[str]) -> None:
        leaf_port = free_port()
        for name in (HUB, *sites):
            folder = self._folder / f"nats-{name}"
            plan = ServerPlan(
                name,
                free_port(),
                folder / "store",
                leaf_port=leaf_port if name == HUB else None,
                hub_leaf_port=None if name == HUB else leaf_port,
            )
            self.servers[name] = NatsServer(plan, folder)
            await self.servers[name].start()

    async def lie_down(self) -> None:
        for server in self.servers.values():
            await server.stop()

    def bus(
        self,
        domain: str,
        service: str,
        streams: Sequence[StreamSpec],
        fail: Callable[[Mistake], None],
        lost: Callable[[], None],
    ) -> Bus:
        return NatsBus(self.servers[domain].url, service, streams, fail, lost)

    async def serve(self, register: Registration) -> None:
        self._service = await serve(self._address, [register])

    async def cut_service(self) -> None:
        if self._service is not None:
            await self._service.stop(timedelta(0))

    def channel(self, site: str) -> grpc.aio.Channel:
        return connect(self._address)

    async def letters(self, domain: str) -> list[Letter]:
        client = await nats.connect(self.servers[domain].url)
        try:
            jetstream = client.jetstream()
            state = (await jetstream.stream_info(EVENTS_STREAM)).state
            found = [
                await jetstream.get_msg(EVENTS_STREAM, sequence)
                for sequence in range(max(1, state.first_seq), state.last_seq + 1)
            ]
        finally:
            await client.close()
        return [Letter(raw.subject or "", raw.headers or {}, raw.data or b"") for raw in found]
