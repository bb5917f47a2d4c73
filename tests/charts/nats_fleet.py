"""A hub and a site's leaf from the configuration that the charts render, on loopback with keys and certificates of the
test's own.

Only places are put in: ports, folders, and the names under which the servers find each other.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.charts.value_sets import changed, nats_conf
from windfall.contracts.permissions import services_at
from windfall.servicekit import nkey
from windfall.servicekit.nats_access import Access
from windfall.servicekit.nats_tls import NatsTls
from windfall.servicekit.natsserver import find_binary, free_port
from windfall.servicekit.testing.authority import Authority
from windfall.servicekit.tls import Tls


@dataclass(frozen=True)
class Key:
    """An nkey of a user: the file with its seed, and what the server knows it by."""

    file: Path
    public: str

    @property
    def seed(self) -> str:
        return self.file.read_text(encoding="ascii")


def key(folder: Path, name: str) -> Key:
    made = nkey.new()
    path = folder / f"{name}.nk"
    path.write_text(made.seed, encoding="ascii")
    return Key(path, made.public)


@dataclass(frozen=True)
class Place:
    """Where one server of a rendered configuration stands here."""

    folder: Path
    client: int
    monitor: int
    cluster: int
    leaf: int

    @classmethod
    def free(cls, folder: Path) -> "Place":
        folder.mkdir(parents=True)
        return cls(folder, free_port(), free_port(), free_port(), free_port())

    @property
    def url(self) -> str:
        return f"tls://localhost:{self.client}"

    @property
    def health(self) -> str:
        return f"https://127.0.0.1:{self.monitor}"

    def put(self, text: str, tls: Tls) -> Path:
        """The configuration with its places put in."""
        folder = self.folder / "tls"
        folder.mkdir(exist_ok=True)
        for name, path in files(tls).items():
            shutil.copy(path, folder / name)
        path = self.folder / "nats.conf"
        path.write_text(self.placed(text, folder), encoding="utf-8")
        return path

    def placed(self, text: str, tls: Path) -> str:
        """A text of the chart's with this server's places, and the folder of its certificate."""
        places = {
            "0.0.0.0:4222": f"127.0.0.1:{self.client}",
            "0.0.0.0:8222": f"127.0.0.1:{self.monitor}",
            "0.0.0.0:6222": f"127.0.0.1:{self.cluster}",
            "0.0.0.0:7422": f"127.0.0.1:{self.leaf}",
            "/etc/nats-tls": str(tls),
            "/run/nats": str(self.folder),
            "store_dir: /data": f"store_dir: {self.folder}/data",
        }
        for there, here in places.items():
            text = text.replace(there, here)
        return text


def files(tls: Tls) -> Mapping[str, Path]:
    """What a Secret of a certificate holds."""
    return {"tls.crt": tls.certificate, "tls.key": tls.key, "ca.crt": tls.authority}


@asynccontextmanager
async def server(config: Path, name: str, seed: str = "") -> AsyncIterator[None]:
    """The real server on this configuration, from when it is ready until the block ends."""
    log = config.with_name("nats.log")
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            find_binary(),
            "-c",
            config,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={"SERVER_NAME": name, **({"LEAF_SEED": seed} if seed else {})},
        )
    try:
        async with asyncio.timeout(60):
            while b"Server is ready" not in log.read_bytes():
                if process.returncode is not None:
                    raise AssertionError(log.read_text(encoding="utf-8"))
                await asyncio.wait([asyncio.create_task(process.wait())], timeout=0.02)
        yield
    finally:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGTERM)
        await process.wait()


@dataclass(frozen=True)
class Fleet:
    """A hub and the leaf of quebec, and what a client needs to be let in."""

    hub: str
    site: str
    monitors: tuple[str, ...]
    """Where each server is asked for its health."""
    keys: Mapping[str, Key]
    tls: Tls

    def access(self, name: str, domain: str) -> Access:
        tls = NatsTls(self.tls.authority, self.tls.certificate, self.tls.key)
        access = Access(tls, handshake_first=True, nkey=self.keys[name].file, inbox=f"_INBOX.{domain}")
        return access.of(name) if name in services_at(domain) else access


@asynccontextmanager
async def cluster(folder: Path) -> AsyncIterator[Fleet]:
    """The three servers of a hub, as one URL each, separated by commas."""
    tls = Authority(folder, "authority").issue("all")
    places = [Place.free(folder / f"hub-{index}") for index in range(3)]
    keys = {"federation-coordinator": key(folder, "federation-coordinator")}
    users = {name: each.public for name, each in keys.items()}
    text = nats_conf(changed("hub/example", {"nats": {"users": users}}))
    for index, place in enumerate(places):
        text = text.replace(f"one-nats-{index}.one-nats-pods.windfall.svc:6222", f"127.0.0.1:{place.cluster}")
    async with AsyncExitStack() as running:
        # One after the other, as pods come: each finds those that are there.
        for index, place in enumerate(places):
            await running.enter_async_context(server(place.put(text, tls), f"hub-{index}"))
        yield Fleet(",".join(place.url for place in places), "", tuple(place.health for place in places), keys, tls)


@asynccontextmanager
async def fleet(folder: Path, change: dict[str, Any] | None = None) -> AsyncIterator[Fleet]:
    """Both of them, joined.

    Args:
        folder: where they keep everything.
        change: of the site's values.
    """
    authority = Authority(folder, "authority")
    tls = authority.issue("both")
    hub, site = Place.free(folder / "hub"), Place.free(folder / "site")
    users = ("energy-watcher", "provisioner", "profiler", "site-trainer", "admin")
    keys = {name: key(folder, name) for name in ("federation-coordinator", "hub-admin", "quebec", "texas", *users)}
    speaks = {"federation-coordinator": keys["federation-coordinator"].public, "admin": keys["hub-admin"].public}
    leaves = {name: keys[name].public for name in ("quebec", "texas")}
    hub_values = {"nats": {"replicas": 1, "users": speaks, "leaves": leaves}}
    site_values = {
        "nats": {"hub": f"tls://localhost:{hub.leaf}", "users": {name: keys[name].public for name in users}},
        **(change or {}),
    }
    hub_config = hub.put(nats_conf(changed("hub/example", hub_values)), tls)
    site_config = site.put(nats_conf(changed("site/example", site_values)), tls)
    async with server(hub_config, "hub-0"), server(site_config, "quebec-0", keys["quebec"].seed):
        yield Fleet(hub.url, site.url, (hub.health, site.health), keys, tls)
