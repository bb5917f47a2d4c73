"""Two tenants at one hub, each with a site, at real servers: what one says does not exist for the other, but for the
facts that are lent by name. Both call their site the same, so that whatever is mixed up would arrive.
"""

import asyncio
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nats.errors
import nats.js.errors
import pytest
from nats.aio.client import Client
from nats.js.api import StreamConfig

from tests.keyed_servers import SECONDS, running
from tests.test_permissions_matrix import GOLDEN, KEPT, Tried, wholes
from windfall.contracts.envelope import seal
from windfall.contracts.events import EVENTS, WindowClosed, WindowOpened
from windfall.contracts.permissions import inbox_of, services_at
from windfall.contracts.subjects import (
    DELIVERED,
    EVENTS_STREAM,
    HUB,
    dead_subject,
    hub_streams,
    log_asked,
    log_told,
    site_streams,
    subject_for,
)
from windfall.contracts.tenancy import DEFAULT, Loan, Tenant
from windfall.servicekit import nats_rules, nkey
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.jetstream import declare_stream
from windfall.servicekit.keyed_server import Hub, KeyedServer, LeafDoor, configuration
from windfall.servicekit.lending import lend
from windfall.servicekit.nats_access import Access
from windfall.servicekit.nats_client import connected
from windfall.servicekit.natsserver import free_port
from windfall.servicekit.testing.authority import Authority
from windfall.servicekit.tls import Tls

SITE, LAB = "site-a", "lab"
TENANTS = (DEFAULT, LAB)
MIB = 1024**2
ROOM = 512 * MIB
LENT = Loan.read(f"{LAB}:window.opened.{SITE}")


@dataclass
class Fleet:
    """The hub, a site of each tenant, and everybody's key by tenant, domain and name."""

    hub: KeyedServer
    sites: dict[str, KeyedServer]
    tenant: Tenant
    seeds: dict[tuple[str, str, str], Path]
    stack: AsyncExitStack

    async def client(self, tenant: str, domain: str, name: str, tried: Tried | None = None) -> Client:
        server = self.hub if domain == HUB else self.sites[tenant]
        access = Access(nkey=self.seeds[tenant, domain, name], inbox=inbox_of(domain, name))
        made = await connected(
            server.url, access, error_cb=(tried or Tried()).hear, allow_reconnect=False, connect_timeout=SECONDS
        )
        self.stack.push_async_callback(made.close)
        return made

    async def admins(self) -> dict[tuple[str, str], Client]:
        places = itertools.product(TENANTS, (HUB, SITE))
        return {place: await self.client(*place, nats_rules.ADMIN) for place in places}

    async def let(self, *tenants: Tenant, loans: tuple[Loan, ...] = ()) -> None:
        """Have the hub's server go by these, as it runs."""
        assert isinstance(self.hub.way, LeafDoor)
        self.hub = replace(self.hub, way=replace(self.hub.way, tenants=tenants, loans=loans))
        log = self.hub.folder / "nats.log"
        before = log.stat().st_size
        self.hub.config.write_text(configuration(self.hub), encoding="utf-8")
        os.kill(int(self.hub.pid_file.read_text(encoding="ascii")), signal.SIGHUP)
        async with asyncio.timeout(SECONDS):
            while b"Reloaded server configuration" not in log.read_bytes()[before:]:  # noqa: ASYNC110 - a file
                await asyncio.sleep(0.01)


@asynccontextmanager
async def fleet(folder: Path, tls: Tls) -> AsyncIterator[Fleet]:
    """A hub of one tenant, to which another has come while it ran; and the site of each."""
    seeds, public = {}, {}
    for tenant, domain in itertools.product(TENANTS, (HUB, SITE)):
        for name in (*services_at(domain), nats_rules.ADMIN, *(["leaf"] if domain == SITE else [])):
            made, path = nkey.new(), folder / f"{tenant}-{domain}-{name}.nk"
            path.write_text(made.seed, encoding="ascii")
            seeds[tenant, domain, name], public[tenant, domain, name] = path, made.public

    def users(tenant: str, domain: str) -> dict[str, str]:
        names = (*services_at(domain), nats_rules.ADMIN)
        return {name: public[tenant, domain, name] for name in names}

    door = LeafDoor(f"127.0.0.1:{free_port()}", {SITE: public[DEFAULT, SITE, "leaf"]})
    hub = KeyedServer(HUB, free_port(), folder / "hub", users(DEFAULT, HUB), tls, door)
    sites = {}
    for tenant in TENANTS:
        way = Hub(
            f"localhost:{door.listen.rpartition(':')[2]}", seeds[tenant, SITE, "leaf"].read_text(encoding="ascii")
        )
        sites[tenant] = KeyedServer(SITE, free_port(), folder / tenant, users(tenant, SITE), tls, way)
    lab = Tenant(LAB, users(LAB, HUB), {SITE: public[LAB, SITE, "leaf"]}, ROOM)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(hub))
        made_of = Fleet(hub, sites, lab, seeds, stack)
        first = await made_of.client(DEFAULT, HUB, nats_rules.ADMIN)
        await made_of.let(lab, loans=(LENT,))
        for tenant in TENANTS:
            await stack.enter_async_context(running(sites[tenant]))
        # Nobody who was there noticed.
        await first.flush()
        assert first.is_connected
        yield made_of


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path, Authority(tmp_path, "authority").issue("both")) as made:
        yield made


def subjects() -> Iterator[str]:
    """Whatever is said or asked here, whoever may."""
    for kind in KEPT:
        yield from (subject_for(kind, whom) for whom in wholes(kind))
    for domain in (HUB, SITE):
        for service in services_at(domain):
            yield dead_subject(service, "windfall.v1.window.opened.site-a")
            yield f"{inbox_of(domain, service)}.answer"
            yield from (log_asked(service), log_told(service, "0" * 32))
    yield from (
        f"{DELIVERED}.{HUB}.{SITE}.x",
        f"{DELIVERED}.{SITE}.{HUB}.x",
        "$KV.WINDFALL_LEASES.x",
        "$JSC.x",
        "other",
    )
    yield from (f"windfall.lent.{tenant}.window.closed.{SITE}" for tenant in TENANTS)


async def reached(client: Client) -> None:
    """Return when whatever was said at the other end of a leaf has come as far as this client, as far as it may."""
    for domain in (HUB, SITE):
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    await client.request(f"$JS.{domain}.API.INFO", b"", timeout=2)
                    break
                except (nats.errors.Error, TimeoutError):
                    await asyncio.sleep(0.05)


async def test_nothing_that_one_tenant_says_is_heard_by_the_other(two: Fleet) -> None:
    admins = await two.admins()
    heard: dict[str, list[tuple[str, bytes]]] = {tenant: [] for tenant in TENANTS}
    for (tenant, _), admin in admins.items():
        # Both ways of the leaf are open, before anything is said.
        await reached(admin)

        async def hear(message: Any, tenant: str = tenant) -> None:
            heard[tenant].append((message.subject, message.data))

        await admin.subscribe(">", cb=hear)
        await admin.flush()
    said = list(subjects())
    for (tenant, _), admin in admins.items():
        for subject in said:
            await admin.publish(subject, tenant.encode())
    for admin in admins.values():
        await admin.flush()
    for _ in range(2):
        for admin in admins.values():
            await reached(admin)
            await admin.flush()
    for tenant in TENANTS:
        mine = {subject for subject, text in heard[tenant] if text == tenant.encode()}
        assert mine >= set(said) and len(said) > 100
        others = sorted({subject for subject, text in heard[tenant] if text in map(str.encode, TENANTS)} - mine)
        foreign = [subject for subject, text in heard[tenant] if text != tenant.encode() and text.decode() in TENANTS]
        assert not others and not foreign, (tenant, foreign)


async def test_streams_answers_and_room_are_each_tenants_own(two: Fleet) -> None:
    admins = await two.admins()
    for domain, specs in ((SITE, site_streams(SITE)), (HUB, hub_streams((SITE,)))):
        await reached(admins[DEFAULT, HUB])
        for spec in specs:
            await declare_stream(admins[DEFAULT, domain].jetstream(), spec)
    # The lab asks the same names, and gets its own hub's and its own site's answers.
    for domain in (HUB, SITE):
        await reached(admins[LAB, domain])
        told = {
            tenant: json.loads((await admins[tenant, HUB].request(f"$JS.{domain}.API.INFO", b"", timeout=SECONDS)).data)
            for tenant in TENANTS
        }
        assert told[DEFAULT]["streams"] > 0 and told[LAB]["streams"] == 0
    with pytest.raises(nats.js.errors.NotFoundError):
        await admins[LAB, HUB].jetstream().stream_info(EVENTS_STREAM)
    # And of the server itself, nothing.
    for subject in ("$SYS.REQ.SERVER.PING", "$SYS.REQ.SERVER.PING.JSZ", "$SYS.REQ.ACCOUNT.WINDFALL.CONNZ"):
        with pytest.raises((nats.errors.NoRespondersError, nats.errors.TimeoutError)):
            await admins[LAB, HUB].request(subject, b"", timeout=1)
    jetstream = admins[LAB, HUB].jetstream()
    for spec in hub_streams((SITE,)):
        await declare_stream(jetstream, spec)
    with pytest.raises(nats.js.errors.APIError, match="insufficient storage"):
        await jetstream.add_stream(StreamConfig("MORE", subjects=["more"], max_bytes=128 * MIB))
    with pytest.raises(nats.js.errors.APIError, match="max bytes"):
        await jetstream.add_stream(StreamConfig("ALL", subjects=["all"]))
    # What a site says comes to its own tenant's hub.
    opened = golden(WindowOpened)
    await admins[LAB, SITE].jetstream().add_stream(StreamConfig("EVENTS", subjects=[opened.subject], max_bytes=MIB))
    await admins[LAB, SITE].jetstream().publish(opened.subject, opened.body, headers=dict(opened.headers))
    await messages(admins[LAB, HUB], 1)
    assert (await admins[DEFAULT, HUB].jetstream().stream_info(EVENTS_STREAM)).state.messages == 0
    # Who leaves is cut off at once; the other is not.
    await two.let()
    async with asyncio.timeout(SECONDS):
        while admins[LAB, HUB].is_connected:  # noqa: ASYNC110 - the client says nothing when it may not come back
            await asyncio.sleep(0.01)
    await admins[DEFAULT, HUB].flush()


async def test_what_is_lent_by_name_reaches_the_borrower_and_nothing_else_does(two: Fleet) -> None:
    admins = await two.admins()
    await reached(admins[DEFAULT, HUB])
    for spec in site_streams(SITE):
        await declare_stream(admins[DEFAULT, SITE].jetstream(), spec)
    for tenant in TENANTS:
        for spec in hub_streams((SITE,)[: tenant == DEFAULT]):
            await declare_stream(admins[tenant, HUB].jetstream(), spec)
    for letter in (golden(WindowClosed), golden(WindowOpened)):
        await admins[DEFAULT, SITE].jetstream().publish(letter.subject, letter.body, headers=dict(letter.headers))
    access = Access(
        nkey=two.seeds[DEFAULT, HUB, "federation-coordinator"], inbox=inbox_of(HUB, "federation-coordinator")
    )
    lending = asyncio.create_task(lend(two.hub.url, access, LAB, [LENT], SystemClock()))
    try:
        await messages(admins[DEFAULT, HUB], 2)
        await messages(admins[LAB, HUB], 1)
    finally:
        lending.cancel()
        await asyncio.gather(lending, return_exceptions=True)
    (kept,) = [await admins[LAB, HUB].jetstream().get_msg(EVENTS_STREAM, 1)]
    assert (kept.subject, kept.data) == (LENT.subject, golden(WindowOpened).body)
    assert {key: (kept.headers or {})[key] for key in golden(WindowOpened).headers} == golden(WindowOpened).headers

    # Its coordinator may lend what is lent and no more; the borrower's lends nothing, nor do other services.
    for tenant, may in ((DEFAULT, {LENT.lent_as}), (LAB, set())):
        tried = Tried()
        speaker = await two.client(tenant, HUB, "federation-coordinator", tried)
        tries = [f"windfall.lent.{other}.{kind.topic}.{SITE}" for kind in EVENTS for other in TENANTS]
        for subject in (*tries, "$SYS.last"):
            await speaker.publish(subject, b"{}", reply=f"{inbox_of(HUB, 'federation-coordinator')}.none")
        await tried.until("$SYS.last")
        assert {subject for subject in tries if not tried.refuses(subject)} == may
    # Whoever may do everything within a tenant has no way out but that one.
    for subject in (f"windfall.lent.{LAB}.window.closed.{SITE}", f"windfall.lent.{DEFAULT}.window.opened.{SITE}"):
        with pytest.raises(nats.js.errors.NoStreamResponseError):
            await admins[DEFAULT, HUB].jetstream().publish(subject, b"{}")


KEY, OTHER_KEY = "U" + "A" * 55, "U" + "B" * 55


@pytest.mark.parametrize(
    ("tenants", "loans", "why"),
    [
        ([Tenant("lab", {}), Tenant("lab", {})], [], "two tenants have one name"),
        ([Tenant("lab", {"admin": KEY})], [], "two have one key"),
        ([Tenant("lab", {}, {"quebec": KEY})], [], "two have one key"),
        ([Tenant("lab", {"profiler": OTHER_KEY})], [], "is no service of the hub"),
        ([], [LENT], "there is no tenant 'lab'"),
    ],
)
def test_rules_that_would_mix_tenants_up_are_refused(tenants: list[Tenant], loans: list[Loan], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        nats_rules.accounts(HUB, {"admin": KEY}, {}, None, tenants, loans)


@pytest.mark.parametrize(
    "text", ["", "lab", "lab:window.opened.*", "lab:*.*.quebec", "*:window.opened.quebec", "LAB:window.opened.quebec",
             "default:window.opened.quebec", "lab:provisioner.release.quebec", "lab:window.opened."]
)  # fmt: skip
def test_no_loan_is_of_many_or_for_many(text: str) -> None:
    with pytest.raises(ValueError, match=r"lends|is no name"):
        Loan.read(text)


@pytest.mark.parametrize("name", [DEFAULT, "WINDFALL", "SYS", "a.b", "*", ""])
def test_no_tenant_is_called_like_an_account_that_is_there(name: str) -> None:
    with pytest.raises(ValueError, match=r"is no name|cannot be called"):
        Tenant(name, {})


def golden(kind: type[Any]) -> Any:
    """The contracts' example of a sentence about the site, sealed."""
    body = json.loads((GOLDEN / f"{kind.topic}.json").read_text(encoding="utf-8"))["body"]
    return seal(kind.model_validate({**body, "site": SITE}), "/windfall/test")


async def messages(admin: Client, count: int) -> None:
    """Wait until the tenant's hub has kept so many facts."""
    async with asyncio.timeout(SECONDS):
        while (await admin.jetstream().stream_info(EVENTS_STREAM)).state.messages != count:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
