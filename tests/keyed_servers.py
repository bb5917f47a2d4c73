"""A hub's server and the leaf of one site, which know everybody by nkeys, as real processes."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from windfall.contracts.permissions import inbox_of, services_at
from windfall.contracts.subjects import HUB
from windfall.servicekit import nats_rules, nkey
from windfall.servicekit.keyed_server import Hub, KeyedServer, LeafDoor, configuration
from windfall.servicekit.nats_access import Access
from windfall.servicekit.natsserver import find_binary, free_port
from windfall.servicekit.testing.authority import Authority

SITE = "site-a"
SECONDS = 60.0
PLACES = [(domain, service) for domain in (HUB, SITE) for service in services_at(domain)]


@dataclass(frozen=True)
class Servers:
    """A hub and the leaf of one site, and everybody's key."""

    hub: KeyedServer
    site: KeyedServer
    seeds: dict[tuple[str, str], Path]

    def url(self, domain: str) -> str:
        return (self.hub if domain == HUB else self.site).url

    def access(self, domain: str, service: str) -> Access:
        return Access(nkey=self.seeds[domain, service], inbox=inbox_of(domain, service))


@asynccontextmanager
async def running(server: KeyedServer) -> AsyncIterator[None]:
    """The real server, from when it is ready until the block ends."""
    server.folder.mkdir(parents=True)
    server.config.write_text(configuration(server), encoding="utf-8")
    log = server.folder / "nats.log"
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            find_binary(), "-c", server.config, stdout=output, stderr=output, start_new_session=True
        )
    ended = asyncio.create_task(process.wait())
    try:
        async with asyncio.timeout(SECONDS):
            while b"Server is ready" not in log.read_bytes():
                assert not ended.done(), log.read_text(encoding="utf-8")
                await asyncio.wait([ended], timeout=0.02)
        yield
    finally:
        if not ended.done():
            os.kill(process.pid, signal.SIGTERM)
        await ended


@asynccontextmanager
async def keyed(tmp_path: Path) -> AsyncIterator[Servers]:
    """Both, the site's joined to the hub's."""
    tls = Authority(tmp_path, "authority").issue("both")
    seeds, public = {}, {}
    for domain, name in [*PLACES, (HUB, nats_rules.ADMIN), (SITE, nats_rules.ADMIN), (SITE, "leaf")]:
        made, path = nkey.new(), tmp_path / f"{domain}-{name}.nk"
        path.write_text(made.seed, encoding="ascii")
        seeds[domain, name], public[domain, name] = path, made.public

    def users(domain: str) -> dict[str, str]:
        return {name: key for (where, name), key in public.items() if where == domain and name != "leaf"}

    door = LeafDoor(f"127.0.0.1:{free_port()}", {SITE: public[SITE, "leaf"]})
    hub = KeyedServer(HUB, free_port(), tmp_path / "hub", users(HUB), tls, door)
    seed = seeds[SITE, "leaf"].read_text(encoding="ascii")
    address = f"localhost:{door.listen.rpartition(':')[2]}"
    site = KeyedServer(SITE, free_port(), tmp_path / "site", users(SITE), tls, Hub(address, seed))
    async with running(hub), running(site):
        yield Servers(hub, site, seeds)
