"""A Flower app on this transport in one process: a coordinator and sites on buses and gRPC in memory.

The decisions, the exchange, the Grid, the host and the servicer are the product's own. It is what this package's tests
stand on, and the quickest way to try an app::

    async with LocalFleet(folder, client_app) as fleet:
        await fleet.run(server_app)
"""

from datetime import timedelta
from pathlib import Path
from typing import Any, Self, cast
from uuid import UUID, uuid5

import grpc.aio
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

from windfall.contracts.envelope import unseal
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM, HUB, hub_streams, site_streams
from windfall.flower_adapter.app_folder import AppFolder, RunConfig
from windfall.flower_adapter.blobs import Blobs
from windfall.flower_adapter.client_host import ClientHost
from windfall.flower_adapter.link import NodeLink
from windfall.flower_adapter.messages import MessagesService
from windfall.flower_adapter.node import Node, Terms
from windfall.flower_adapter.office import Office
from windfall.flower_adapter.reception import Caps, Reception
from windfall.flower_adapter.server_host import ServerHost
from windfall.flower_adapter.values import Exchange
from windfall.flower_adapter.wire import register
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.errors import Mistake
from windfall.servicekit.journal import Journal
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.service import Stand
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain
from windfall.servicekit.testing.memory_rpc import MemoryChannel, MemoryServer

APP = "windfall/local"
_WINDOW = UUID("5e1f0000-0000-4000-8000-000000000000")


class LocalFleet:
    """A hub and sites that stand, and a coordinator whose journal and bodies lie in a folder.

    Args:
        folder: what survives of it; another fleet on the same folder goes on where this one was cut.
        client_app: what every site runs.
        sites: their names; all of them are up from the beginning.
    """

    def __init__(
        self,
        folder: Path,
        client_app: ClientApp,
        sites: tuple[str, ...] = ("site-a", "site-b", "site-c"),
        *,
        config: RunConfig | None = None,
        caps: Caps = Caps(1 << 30, 1 << 31, True),
        silence: timedelta = timedelta(seconds=5),
        replay_bytes: int = 1 << 40,
        finish_within: timedelta = timedelta(seconds=5),
    ) -> None:
        self.folder = folder
        self.sites = sites
        self.nodes: dict[str, Node] = {}
        self._client_app = client_app
        self._config = config or {}
        self._caps = caps
        self._finish_within = finish_within
        self._tokens: dict[str, int] = {}
        self._stands: dict[str, Stand] = {}
        self._domains = {name: MemoryDomain(name) for name in (HUB, *sites)}
        for site in sites:
            self._domains[HUB].join(self._domains[site])
        self._server = MemoryServer()
        self.stand = self._stand("federation-coordinator", "local", HUB)
        self.office = Office(
            self.stand,
            Blobs(folder / "bodies"),
            Exchange(federation="local", run_id=7),
            sites,
            silence,
            replay_bytes,
            self._config,
        )
        self.host: ServerHost | None = None
        service = MessagesService(self.office, Reception(self.office, caps), APP, sites, silence / 5)
        register(service, self._server)

    async def __aenter__(self) -> Self:
        self.office.attend()
        await self.stand.rise()
        for site in self.sites:
            await self.up(site)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.office.rest()
        await self._server.kill()
        for site in list(self.nodes):
            await self.kill(site)
        await self.stand.lie_down()

    async def run(self, server_app: ServerApp) -> None:
        """Run a ServerApp to its end. Raises ``Mistake`` when it breaks."""
        app = AppFolder(self.folder, APP, "1", "", "", {})
        model = self.folder / "final.safetensors"
        self.host = ServerHost(self.office, server_app, app, self._config, self._caps.body, model)
        await self.host.run()

    async def up(self, site: str) -> None:
        """Start a site under a new lease."""
        token = self._tokens[site] = self._tokens.get(site, self.office.state.tokens.get(site, 0)) + 1
        stand = self._stand("site-trainer", site, site)
        channel = cast(grpc.aio.Channel, cast(Any, MemoryChannel(self._server)))
        terms = Terms(
            site, "local", uuid5(_WINDOW, f"{site}/{token}"), token, APP, timedelta(seconds=1), self._finish_within
        )
        told: RunConfig = {"partition-id": self.sites.index(site), "num-partitions": len(self.sites)}
        host = ClientHost(self._client_app, told, self.folder / site)
        node = self.nodes[site] = Node(stand, terms, NodeLink(channel, "local", site, self._caps.body), host)
        self._stands[site] = stand
        node.attend()
        await stand.rise()

    async def kill(self, site: str) -> None:
        """End a site without a word, as ``kill -9`` does."""
        del self.nodes[site]
        stand = self._stands.pop(site)
        await stand.bus.stop()
        await stand.cut()

    async def said(self) -> list[Message]:
        """Every event that reached the hub, oldest first."""
        await self.stand.outbox.emptied()
        return [unseal(letter) for letter in self._domains[HUB].letters(EVENTS_STREAM)]

    async def until_up(self, number: int) -> None:
        """Wait until so many sites are members."""
        while len(self.office.state.members) < number:
            await self.office.changed()

    def _stand(self, service: str, whom: str, domain: str) -> Stand:
        path = self.folder / f"{service}.sqlite" if domain == HUB else None
        journal = Journal(path, f"/windfall/{service}/{whom}")
        stand: Stand

        def fail(mistake: Mistake) -> None:
            stand.fail(mistake)

        def lost() -> None:
            stand.outbox.recheck()

        streams = hub_streams(self.sites) if domain == HUB else site_streams(domain)
        bus = MemoryBus(self._domains[domain], service, streams, fail, lost)
        stand = Stand(service, whom, SystemClock(), journal, bus, Outbox(journal, bus))
        return stand
