"""A NATS server of the hub's chart with the container beside it, from the very text of both: what a kubelet puts into
their folders counts, and nothing restarts."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client

from tests.charts.nats_fleet import Key, Place, files, key, server
from tests.charts.value_sets import changed, nats_conf, objects
from windfall.servicekit.nats_access import Access
from windfall.servicekit.nats_client import connected
from windfall.servicekit.nats_tls import NatsTls
from windfall.servicekit.testing.authority import Authority
from windfall.servicekit.tls import Tls

SECONDS = 60.0


class Volume:
    """A ConfigMap or Secret as a kubelet mounts it: each file a link through ``..data``, which is replaced at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._version = 0
        folder.mkdir()

    def put(self, content: Mapping[str, bytes]) -> None:
        self._version += 1
        version = self.folder / f"..{self._version}"
        version.mkdir()
        for name, data in content.items():
            (version / name).write_bytes(data)
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        fresh = self.folder / "..data_tmp"
        fresh.symlink_to(version.name)
        fresh.rename(self.folder / "..data")


def containers() -> tuple[dict[str, Any], dict[str, Any]]:
    (found,) = (
        obj for obj in objects("hub/example") if obj["kind"] == "StatefulSet" and obj["metadata"]["name"] == "one-nats"
    )
    nats_, reload = found["spec"]["template"]["spec"]["containers"]
    assert found["spec"]["template"]["spec"]["shareProcessNamespace"] is True
    return nats_, reload


def configuration(users: Mapping[str, Key], leaves: Mapping[str, Key], tenants: Mapping[str, Key]) -> str:
    """nats.conf of one server; each tenant has one user, who may everything there."""

    def public(found: Mapping[str, Key]) -> dict[str, str]:
        return {name: one.public for name, one in found.items()}

    others = {name: {"users": public({"admin": one}), "maxBytes": "1GB"} for name, one in tenants.items()}
    said = {"replicas": 1, "users": public(users), "leaves": public(leaves), "tenants": others}
    return nats_conf(changed("hub/example", {"nats": said}))


@asynccontextmanager
async def told_to_reload(place: Place, *folders: Path) -> AsyncIterator[None]:
    """The container beside it; it looks more often than there."""
    (shell, option, script, name, *there) = containers()[1]["command"]
    assert (len(there), script.count("sleep 5")) == (len(folders), 1)
    script = place.placed(script, folders[-1]).replace("sleep 5", "sleep 0.1")
    running = await asyncio.create_subprocess_exec(
        *(shell, option, script, name, *folders), env={"PATH": os.defpath}, start_new_session=True
    )
    try:
        yield
        assert running.returncode is None
    finally:
        running.terminate()
        await running.wait()


async def eventually(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS):
        while not await true():  # noqa: ASYNC110 - a server says nothing of what it has read
            await asyncio.sleep(0.05)


async def let_in(url: str, tls: Tls, who: Key) -> Client | None:
    access = Access(NatsTls(tls.authority, tls.certificate, tls.key), handshake_first=True, nkey=who.file)
    try:
        return await connected(url, access, allow_reconnect=False, error_cb=_unheard)
    except (nats.errors.Error, OSError):
        return None


async def admitted(url: str, tls: Tls, who: Key) -> Client:
    """It, as soon as it is; who comes in the very moment of a reload is sent away, and comes again."""
    async with asyncio.timeout(SECONDS):
        while (client := await let_in(url, tls, who)) is None:  # noqa: ASYNC110 - nobody says when to come again
            await asyncio.sleep(0.05)
    return client


async def _unheard(error: Exception) -> None:
    """Being refused is what is tried."""


def shown(url: str, tls: Tls) -> str:
    """The certificate that a server shows now."""
    return ssl.get_server_certificate(("127.0.0.1", int(url.rpartition(":")[2])), ca_certs=str(tls.authority))


async def test_new_keys_and_certificates_count_while_the_server_runs(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    tls, place = authority.issue("first"), Place.free(tmp_path / "hub")
    config, secret = Volume(tmp_path / "config"), Volume(tmp_path / "secret")
    names = ("old", "new", "admin", "quebec", "texas", "lab")
    old, new, admin, quebec, texas, lab = (key(tmp_path, name) for name in names)

    def configure(users: Mapping[str, Key], leaves: Mapping[str, Key], **tenants: Key) -> None:
        text = place.placed(configuration(users, leaves, tenants), secret.folder)
        config.put({"nats.conf": text.encode()})

    def certify(with_: Tls) -> None:
        secret.put({name: path.read_bytes() for name, path in files(with_).items()})

    configure({"federation-coordinator": old}, {"quebec": quebec})
    certify(tls)
    log = config.folder / "nats.log"
    site = Place.free(tmp_path / "site")
    joined = {"nats": {"hub": f"tls://localhost:{place.leaf}"}}
    leaf = site.put(nats_conf(changed("site/example", joined)), tls)
    assert containers()[0]["command"] == ["nats-server", "-c", "/etc/nats/nats.conf"]
    # The other container may well be there first.
    async with (
        told_to_reload(place, config.folder, secret.folder),
        server(config.folder / "nats.conf", "hub-0"),
        server(leaf, "quebec-0", quebec.seed),
    ):
        assert await let_in(place.url, tls, admin) is None
        standing = await admitted(place.url, tls, old)

        async def site_is_there() -> bool:
            return b"Leafnode connection created" in log.read_bytes()

        await eventually(site_is_there)

        configure({"federation-coordinator": old, "admin": admin}, {"quebec": quebec, "texas": texas}, lab=lab)
        await (await admitted(place.url, tls, admin)).close()
        tenant = await admitted(place.url, tls, lab)
        assert (await tenant.jetstream(timeout=SECONDS).account_info()).limits.max_storage == 1 << 30

        before, following = await asyncio.to_thread(shown, place.url, tls), authority.issue("second")
        certify(following)

        async def another_is_shown() -> bool:
            return await asyncio.to_thread(shown, place.url, tls) != before

        await eventually(another_is_shown)
        assert standing.is_connected

        # Who is not named any more is shown the door.
        configure({"federation-coordinator": new, "admin": admin}, {"quebec": quebec, "texas": texas})

        async def gone() -> bool:
            return not standing.is_connected and not tenant.is_connected

        await eventually(gone)
        await (await admitted(place.url, following, new)).close()
        said = log.read_text(encoding="utf-8")
        assert said.count("Server is ready") == 1
        assert "FTL" not in said and "Failed to reload" not in said and "Leafnode connection closed" not in said
