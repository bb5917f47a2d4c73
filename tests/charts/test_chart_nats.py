"""NATS as the charts configure it: the real server takes each configuration, and a hub and a leaf that run from them
let through what crosses between domains, and nothing else."""

import asyncio
import json
import os
import re
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import nats
import nats.errors
import nats.js.errors
import pytest
from nats.aio.client import Client

from tests.charts.nats_fleet import Fleet, Place, cluster, fleet, key
from tests.charts.value_sets import SETS, nats_conf, objects, values
from windfall.contracts.subjects import COMMANDS_STREAM, EVENTS_STREAM, HUB, StreamSpec, hub_streams, site_streams
from windfall.contracts.tenancy import Loan, Tenant
from windfall.servicekit.jetstream import declare_stream
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.nats_access import Access
from windfall.servicekit.nats_client import KeyClient, connected
from windfall.servicekit.nats_rules import accounts
from windfall.servicekit.nats_tls import NatsTls
from windfall.servicekit.natsserver import closed_to_the_hub, find_binary
from windfall.servicekit.testing.authority import Authority

SECONDS = 60.0
FACT = "windfall.v1.window.opened.quebec"
ORDER = "windfall.v1.command.provisioner.release.quebec"
CONFIGURED = [name for name in SETS if not name.endswith("/own-nats")]


@pytest.mark.parametrize("name", CONFIGURED)
def test_the_real_server_takes_the_configuration(name: str, tmp_path: Path) -> None:
    place = Place.free(tmp_path / "server")
    config = place.put(nats_conf(objects(name)), Authority(tmp_path, "authority").issue("server"))
    environment = {"SERVER_NAME": "one-nats-0", "LEAF_SEED": key(tmp_path, "leaf").seed, "PATH": os.defpath}
    said = subprocess.run(
        [find_binary(), "-t", "-c", config], capture_output=True, text=True, env=environment, check=False
    )
    assert said.returncode == 0 and "is valid" in said.stderr, said.stderr


def test_a_site_is_as_closed_to_the_hub_as_on_one_machine() -> None:
    config = nats_conf(objects("site/example"))
    for subject in ("windfall.>", "$JS.ACK.>", *closed_to_the_hub("quebec")):
        assert f'"{subject}"' in config


def test_tenants_may_what_they_may_on_one_machine() -> None:
    given = values("hub/tenants")["nats"]
    tenants = [Tenant(name, one["users"], one["leaves"]) for name, one in given["tenants"].items()]
    loans = [Loan.read(f"{one['borrower']}:{one['fact']}.{one['whom']}", one["lender"]) for one in given["loans"]]
    there = nats_conf(objects("hub/tenants"))
    here = accounts(HUB, given["users"], given["leaves"], None, tenants, loans)
    assert rights_in(there) == rights_in(here) and len(rights_in(here)) == 4
    (opened, closed), (exports,) = re.findall(r'\{"accounts".*?\}', there), re.findall(r"exports: (.*)", here)
    assert sorted([json.loads(opened), json.loads(closed)], key=str) == sorted(json.loads(exports), key=str)
    assert [json.loads(each) for each in re.findall(r"imports: (.*)", there)] == [
        json.loads(each) for each in re.findall(r"imports: (.*)", here)
    ]
    (told,) = (
        each["value"]
        for obj in objects("hub/tenants")
        if obj["metadata"]["name"] == "one-federation-coordinator" and obj["kind"] == "StatefulSet"
        for each in obj["spec"]["template"]["spec"]["containers"][0]["env"]
        if each["name"] == "WINDFALL_LENDS"
    )
    assert [Loan.read(each) for each in told.split(",")] == loans


def rights_in(text: str) -> dict[str, Any]:
    """Of each user but ``admin``, by key."""
    found = re.findall(r'"?nkey"?: "?(U\w+)"?,?\s+(?:"?allowed_connection_types"?: \["LEAFNODE"\],?\s+)?'
                       r'"?permissions"?: (\{.*\})', text)  # fmt: skip
    whole = {key: rights if rights.count("{") == rights.count("}") else rights[:-1] for key, rights in found}
    return {key: json.loads(rights, object_hook=_ordered) for key, rights in whole.items()}


def _ordered(part: dict[str, Any]) -> dict[str, Any]:
    return {key: sorted(value) if isinstance(value, list) else value for key, value in part.items()}


def test_what_is_acknowledged_is_on_disk_everywhere() -> None:
    assert all("sync_interval: always" in nats_conf(objects(name)) for name in CONFIGURED)


# --- a hub and a leaf that run ----------------------------------------------------------------------------------------


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path) as made:
        yield made


class Refusals:
    """What a server would not let a client do."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self._one = asyncio.Event()

    async def hear(self, error: Exception) -> None:
        self.said.append(str(error))
        self._one.set()

    async def next(self) -> str:
        async with asyncio.timeout(SECONDS):
            await self._one.wait()
        self._one.clear()
        return self.said[-1]


async def client(running: Fleet, who: str, at: str, refusals: Refusals | None = None) -> Client:
    domain = "hub" if at == running.hub else "quebec"
    heard = (refusals or Refusals()).hear
    access = running.access(who, domain)
    return await connected(at, access, error_cb=heard, allow_reconnect=False, connect_timeout=SECONDS)


async def declared(client: Client, specs: tuple[StreamSpec, ...]) -> None:
    for spec in specs:
        await declare_stream(client.jetstream(), spec)


async def eventually(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS):
        while not await true():  # noqa: ASYNC110 - a server says nothing when a stream grows
            await asyncio.sleep(0.05)


async def test_facts_reach_the_hub_and_orders_the_site(running: Fleet) -> None:
    hub = await client(running, "federation-coordinator", running.hub)
    admin = await client(running, "hub-admin", running.hub)
    site = await client(running, "energy-watcher", running.site)
    await declared(site, site_streams("quebec"))
    await declared(hub, hub_streams(("quebec",)))
    # More than flow control lets through at once.
    for number in range(200):
        await site.jetstream().publish(FACT, b"f" * 2000, headers={"Nats-Msg-Id": f"f{number}"})
        await admin.jetstream().publish(ORDER, b"o" * 2000, headers={"Nats-Msg-Id": f"o{number}"})

    async def crossed() -> bool:
        there = (await hub.jetstream().stream_info(EVENTS_STREAM)).state.messages
        here = (await site.jetstream().stream_info(COMMANDS_STREAM)).state.messages
        return (there, here) == (200, 200)

    await eventually(crossed)
    # How a stream's source that is silent is woken.
    for asking, domain in ((hub, "quebec"), (site, "hub")):
        about = json.loads((await asking.request(f"$JS.{domain}.API.INFO", b"", timeout=SECONDS)).data)
        assert about["domain"] == domain
    await hub.close()
    await admin.close()
    await site.close()


@pytest.mark.parametrize(
    "subject",
    [
        "windfall.v1.window.opened.texas",
        "$JS.hub.API.STREAM.NAMES",
        "$JS.hub.API.CONSUMER.CREATE.ORDERS.spy.windfall.v1.command.*.*.texas",
        "$JS.hub.API.CONSUMER.CREATE.EVENTS",
        "$JS.API.STREAM.DELETE.EVENTS",
        "$JS.API.STREAM.PURGE.EVENTS",
        "$SYS.REQ.SERVER.PING",
    ],
)
async def test_a_service_of_a_site_may_not(running: Fleet, subject: str) -> None:
    refusals = Refusals()
    site = await client(running, "site-trainer", running.site, refusals)
    await site.publish(subject, b"{}")
    await site.flush()
    assert "permissions violation" in await refusals.next()
    await site.close()


async def test_nor_may_it_listen(running: Fleet) -> None:
    for subject in ("windfall.>", "_INBOX.>", "_DELIVERED.>", "$JS.>", ">"):
        refusals = Refusals()
        site = await client(running, "site-trainer", running.site, refusals)
        await site.subscribe(subject)
        await site.flush()
        assert "permissions violation" in await refusals.next()
        await site.close()


async def test_whoever_owns_a_site_s_server_reads_nothing_of_the_hub_s_and_of_other_sites(running: Fleet) -> None:
    """An owner may do anything at their own server; the hub's lets that through which concerns their site."""
    hub = await client(running, "hub-admin", running.hub)
    await declared(hub, hub_streams(("quebec", "texas")))
    owner = await client(running, "admin", running.site)
    heard: list[str] = []

    async def hear(message: Any) -> None:
        heard.append(message.subject)

    for subject in ("_INBOX.hub.>", "_DELIVERED.>", "$JS.hub.>", "windfall.>", "$JS.texas.>", "secret.>", "$JS.S.>"):
        await owner.subscribe(subject, cb=hear)
    await owner.flush()
    said = ("_INBOX.hub.abc", "_DELIVERED.hub.texas.abc", "_DELIVERED.texas.hub.abc", "windfall.v1.x.y.texas",
            "$JS.texas.API.INFO", "secret.one")  # fmt: skip
    for subject in said:
        await hub.publish(subject, b"x")
    # Comes last, on a way that is open: whatever was let through before it has been heard.
    await owner.subscribe("_INBOX.quebec.last", cb=hear)
    await owner.flush()

    async def came() -> bool:
        await hub.publish("_INBOX.quebec.last", b"")
        await hub.flush()
        await owner.flush()
        return "_INBOX.quebec.last" in heard

    await eventually(came)
    assert set(heard) == {"_INBOX.quebec.last"}
    # And what they say of another site, or ask of the hub, does not get there.
    before = (await hub.jetstream().stream_info(EVENTS_STREAM)).state.messages
    for subject in ("windfall.v1.window.opened.texas", "_DELIVERED.hub.texas.abc", "$JS.hub.API.STREAM.PURGE.EVENTS"):
        await owner.publish(subject, b"{}")
    await owner.flush()
    for asked in ("STREAM.NAMES", "STREAM.INFO.EVENTS", "CONSUMER.NAMES.ORDERS"):
        with pytest.raises((nats.errors.NoRespondersError, nats.errors.TimeoutError)):
            await owner.request(f"$JS.hub.API.{asked}", b"", timeout=1)
    assert (await hub.jetstream().stream_info(EVENTS_STREAM)).state.messages == before
    await hub.close()
    await owner.close()


async def refused(url: str, options: dict[str, Any]) -> None:
    """Whoever knocks like this is not let in."""
    knocking = KeyClient()
    try:
        with pytest.raises((nats.errors.Error, OSError, TimeoutError)):
            await knocking.connect(url, allow_reconnect=False, connect_timeout=2, error_cb=Refusals().hear, **options)
    finally:
        await knocking.close()


async def test_nobody_gets_in_without_key_certificate_and_tls(running: Fleet, tmp_path: Path) -> None:
    access = running.access("energy-watcher", "quebec")
    options = access.options(running.site)
    believing = Access(NatsTls(running.tls.authority), handshake_first=True, nkey=access.nkey)
    (tmp_path / "strange").mkdir()
    alien = Authority(tmp_path / "strange", "alien").issue("both")
    theirs = Access(
        NatsTls(running.tls.authority, alien.certificate, alien.key), handshake_first=True, nkey=access.nkey
    )
    await refused(running.site, {name: value for name, value in options.items() if name != "nkeys_seed"})
    await refused(running.site, {**options, "nkeys_seed": str(key(tmp_path, "nobody").file)})
    await refused(running.site, {**options, "nkeys_seed": str(running.keys["federation-coordinator"].file)})
    await refused(running.site, believing.options(running.site))
    await refused(running.site, theirs.options(running.site))
    await refused(running.site.replace("tls://", "nats://"), {"nkeys_seed": options["nkeys_seed"]})
    # The key by which a site's server joins opens no client's door.
    await refused(running.hub, running.access("quebec", "hub").options(running.hub))


async def test_a_server_says_nothing_before_tls(running: Fleet) -> None:
    """So nobody on the way can tell a client that it goes without: whoever says something in plain text is not it."""
    for url in (running.hub, running.site):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"CONNECT {}\r\nPING\r\n")
        assert b"INFO" not in await reader.read()
        writer.close()
        await writer.wait_closed()
    assert running.access("provisioner", "quebec").options(running.site)["tls_handshake_first"] is True


async def test_a_kubelet_that_shows_no_certificate_hears_how_a_server_is(running: Fleet) -> None:
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    (pod,) = (
        obj for obj in objects("hub/example") if obj["kind"] == "StatefulSet" and obj["metadata"]["name"] == "one-nats"
    )
    container = pod["spec"]["template"]["spec"]["containers"][0]
    paths = {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert len(paths) == 2

    def ask(url: str) -> int:
        with urlopen(url, context=unverified, timeout=SECONDS) as answer:
            return int(answer.status)

    for url in running.monitors:
        for path in paths:
            assert await asyncio.to_thread(ask, url + path) == 200


async def test_a_cluster_of_three_keeps_three_copies_of_what_had_one(tmp_path: Path) -> None:
    async with cluster(tmp_path) as running:
        first = running.hub.split(",")[0]
        access = running.access("federation-coordinator", "hub")
        client = await connected(first, access, allow_reconnect=False, connect_timeout=SECONDS)
        jetstream = client.jetstream(timeout=5)

        async def one() -> bool:
            # A cluster that has just met has no leader yet.
            try:
                return await declare_stream(jetstream, hub_streams(())[0])
            except (nats.js.errors.ServiceUnavailableError, TimeoutError, nats.errors.Error):
                return False

        await eventually(one)
        bus = NatsBus(first, "federation-coordinator", hub_streams(()), lambda mistake: None, access=access, replicas=3)
        await bus.start()
        for spec in hub_streams(()):
            assert (await jetstream.stream_info(spec.name)).config.num_replicas == 3
        await bus.stop()
        await client.close()


def test_three_servers_keep_three_copies() -> None:
    (told,) = (
        {each["name"]: each.get("value") for each in obj["spec"]["template"]["spec"]["containers"][0]["env"]}
        for obj in objects("hub/minimal")
        if obj["kind"] == "StatefulSet" and obj["metadata"]["name"] == "one-federation-coordinator"
    )
    assert told["WINDFALL_NATS_REPLICAS"] == "3"
    assert nats_conf(objects("hub/minimal")).count("nats-route://") == 3
