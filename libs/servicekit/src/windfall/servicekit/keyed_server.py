"""The configuration of a nats-server that knows its users by nkeys, and that sites join over mutual TLS.

Clients speak to it over loopback alone, so without TLS; whatever leaves the machine is a leaf connection, which begins
with TLS. The charts' configuration differs in that pods come from elsewhere.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from windfall.contracts.tenancy import Loan, Tenant
from windfall.servicekit.nats_rules import ACCOUNT, accounts
from windfall.servicekit.natsserver import denied
from windfall.servicekit.tls import Tls

_STORE_GIB: Final = 2
TENANTS_GIB: Final = 14
"""What all tenants of a hub may store together, beside the default one. Fixed: a server that runs does not take less
than it had."""


@dataclass(frozen=True)
class LeafDoor:
    """Where a hub lets sites in."""

    listen: str
    """``host:port``."""
    keys: Mapping[str, str]
    """The public nkey of each site that may."""
    warden: str | None = None
    """Of whoever has this changed while the server runs."""
    tenants: Sequence[Tenant] = ()
    """Who else is at this hub, beside whose these keys and the server's users are."""
    loans: Sequence[Loan] = ()
    """What tenants let each other hear."""


@dataclass(frozen=True)
class Hub:
    """How a site finds its hub, and by which key the hub knows it."""

    address: str
    """``host:port`` of its leaf door."""
    seed: str = field(repr=False)


@dataclass(frozen=True)
class KeyedServer:
    """One server: its clients on loopback, and one way out of the machine."""

    domain: str
    port: int
    folder: Path
    """Store, pid and configuration."""
    users: Mapping[str, str]
    """The public nkeys of services, and of ``admin``."""
    tls: Tls
    way: LeafDoor | Hub

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def config(self) -> Path:
        return self.folder / "nats.conf"

    @property
    def pid_file(self) -> Path:
        return self.folder / "nats.pid"


def configuration(server: KeyedServer) -> str:
    """Its whole file. A site's holds the seed of its leaf, and must be kept from others."""
    door = server.way if isinstance(server.way, LeafDoor) else LeafDoor("", {})
    return f"""server_name: "{server.domain}"
listen: 127.0.0.1:{server.port}
pid_file: "{server.pid_file}"
jetstream {{
  store_dir: "{server.folder / "jetstream"}"
  domain: "{server.domain}"
  # Acknowledged is on disk.
  sync_interval: always
  max_memory_store: 64MB
  max_file_store: {_STORE_GIB + (TENANTS_GIB if isinstance(server.way, LeafDoor) else 0)}GB
}}
leafnodes {{
  {_leafnodes(server)}
}}
{accounts(server.domain, server.users, door.keys, door.warden, door.tenants, door.loans)}"""


def _leafnodes(server: KeyedServer) -> str:
    files = server.tls
    shown = f'cert_file: "{files.certificate}", key_file: "{files.key}", ca_file: "{files.authority}"'
    if isinstance(server.way, LeafDoor):
        tls = f"tls {{ {shown}, verify: true, handshake_first: true }}"
        return f'listen: "{server.way.listen}"\n  no_advertise: true\n  {tls}'
    remote = [
        f'url: "tls://{server.way.address}"',
        f"nkey: {server.way.seed}",
        f"account: {ACCOUNT}",
        f"tls {{ {shown}, handshake_first: true }}",
        denied(server.domain),
    ]
    return f"reconnect: 1\n  remotes: [ {{ {', '.join(remote)} }} ]"
