"""What a service may say and hear, tried for every service and every subject at real servers.

What is expected is told here from the contracts' sentences alone, not from the permissions that are made of them.
"""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.keyed_servers import PLACES, SECONDS, SITE, Servers, keyed
from windfall.contracts.commands import COMMANDS, SiteCommand
from windfall.contracts.envelope import seal
from windfall.contracts.events import EVENTS, SiteEvent
from windfall.contracts.message import Message
from windfall.contracts.permissions import COMES_AND_GOES, inbox_of, services_at
from windfall.contracts.speaking import OPERATOR, hears, says
from windfall.contracts.subjects import (
    HUB,
    KINDS,
    dead_subject,
    hub_streams,
    is_command,
    log_asked,
    log_told,
    site_streams,
    stream_for,
    subject_for,
)
from windfall.servicekit import nats_rules
from windfall.servicekit.jetstream import declare_stream
from windfall.servicekit.leadership import Lease
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.nats_client import connected
from windfall.servicekit.nats_register import NatsRegister
from windfall.servicekit.testing.kube_played.persistence import persist

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "libs/contracts/tests/golden"
OTHER = "site-b"
EVERYBODY = sorted({service for _, service in PLACES})
KEPT = [kind for kind in (*EVENTS, *COMMANDS)]


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Servers]:
    async with keyed(tmp_path) as both:
        yield both


class Tried:
    """A client of one service, and what its server refused it."""

    def __init__(self) -> None:
        self.refused: list[str] = []
        self._heard = asyncio.Event()

    async def hear(self, error: Exception) -> None:
        self.refused.append(str(error))
        self._heard.set()

    async def until(self, subject: str) -> None:
        """Wait for a refusal. The client's flush alone is no answer: its PING may overtake what it has not sent yet."""
        async with asyncio.timeout(SECONDS):
            while not self.refuses(subject):
                self._heard.clear()
                await self._heard.wait()

    def refuses(self, subject: str) -> bool:
        # The client writes them small.
        return any(f'"{subject.lower()}"' in refusal for refusal in self.refused)


@asynccontextmanager
async def client(servers: Servers, domain: str, service: str) -> AsyncIterator[tuple[Any, Tried]]:
    tried = Tried()
    made = await connected(
        servers.url(domain),
        servers.access(domain, service),
        error_cb=tried.hear,
        allow_reconnect=False,
        connect_timeout=SECONDS,
    )
    try:
        yield made, tried
    finally:
        await made.close()


def wholes(kind: type[Message]) -> tuple[str, ...]:
    """Whom a sentence may be about, of those that are tried."""
    return (SITE, OTHER) if issubclass(kind, SiteEvent | SiteCommand) else ("demo",)


def sentences(domain: str, service: str) -> Iterator[tuple[str, bool]]:
    """Every subject that carries a sentence, and whether this service may say it here."""
    for kind in KEPT:
        for whom in wholes(kind):
            yield subject_for(kind, whom), service in says(kind) and (domain == HUB or whom == SITE)
    for other in EVERYBODY:
        yield dead_subject(other, "windfall.v1.window.opened.site-a"), other == service


def requests(domain: str, service: str) -> Iterator[tuple[str, bool]]:
    """What may be asked of JetStream: about consumers, the own ones alone; of streams, nothing that takes away."""
    streams = {stream_for(kind) for kind in KEPT if service in hears(kind)}
    for stream, other in itertools.product(("EVENTS", "COMMANDS", "ORDERS", "DEAD"), EVERYBODY):
        named = service in COMES_AND_GOES and stream == "EVENTS" and other not in services_at(domain)
        own = (stream in streams and other == service) or named
        for verb in ("CONSUMER.INFO", "CONSUMER.MSG.NEXT", "CONSUMER.DURABLE.CREATE", "CONSUMER.CREATE"):
            yield f"$JS.API.{verb}.{stream}.{other}", own
        yield f"$JS.ACK.{stream}.{other}.1.1.1.1.0", own
        for verb in ("CONSUMER.DELETE", "CONSUMER.PAUSE"):
            yield f"$JS.API.{verb}.{stream}.{other}", False
    for verb in ("DELETE", "PURGE", "MSG.DELETE", "MSG.GET", "SNAPSHOT", "RESTORE"):
        for stream in ("EVENTS", "COMMANDS", "DEAD"):
            yield f"$JS.API.STREAM.{verb}.{stream}", False
    for other in EVERYBODY:
        # Each tells its own log, and asks for nobody's.
        yield log_told(other, "0" * 32), other == service and other != OPERATOR
        yield log_asked(other), False
    yield "$KV.WINDFALL_LEASES.federation-coordinator.demo", service == "federation-coordinator"
    for subject in ("$SYS.REQ.SERVER.PING", "$JS.API.ACCOUNT.PURGE.WINDFALL", "anything", "_INBOX.hub.spy", ">"):
        yield subject, False


@pytest.mark.parametrize(("domain", "service"), PLACES)
async def test_a_service_says_what_is_its_own_and_nothing_else(servers: Servers, domain: str, service: str) -> None:
    if service in COMES_AND_GOES:
        tries = [one for one in (*sentences(domain, service), *requests(domain, service)) if not _fellow(one[0])]
    else:
        tries = [*sentences(domain, service), *requests(domain, service)]
    async with client(servers, domain, service) as (speaker, tried):
        for subject, _ in tries:
            await speaker.publish(subject, b"{}", reply=f"{inbox_of(domain, service)}.none")
            await speaker.flush()
        last, may = tries[-1]
        assert not may
        await tried.until(last)
        wrong = [subject for subject, may in tries if tried.refuses(subject) == may]
    assert not wrong, (domain, service, wrong)
    assert any(may for _, may in tries) and len(tries) > 200


def _fellow(subject: str) -> bool:
    """Of another that comes and goes: a process names its consumer as it likes, and these may."""
    return subject.startswith(("$JS.API.CONSUMER", "$JS.ACK")) and any(f".{one}" in subject for one in COMES_AND_GOES)


@pytest.mark.parametrize(("domain", "service"), PLACES)
async def test_a_service_listens_where_its_answers_come_and_nowhere_else(
    servers: Servers, domain: str, service: str
) -> None:
    forbidden = {subject_for(kind, whom) for kind in KEPT for whom in wholes(kind)}
    forbidden |= {">", "windfall.>", "windfall.v1.*.*.*", "windfall.dead.>", "$JS.>", "$SYS.>", "$KV.>", "_INBOX.>"}
    forbidden |= {f"{inbox_of(domain, other)}.>" for other in EVERYBODY if other != service}
    forbidden |= {f"_INBOX.{domain}.>", "_DELIVERED.>", f"_DELIVERED.{HUB}.{SITE}.>"}
    forbidden |= {"windfall.logs.>", "windfall.logs.asked.*", log_told("*", "*"), log_told(service, "*")}
    forbidden |= {log_asked(other) for other in EVERYBODY if other != service or other == OPERATOR}
    own, last = [f"{inbox_of(domain, service)}.answer"], "$JS.>"
    if service != OPERATOR:
        own.append(log_asked(service))
    async with client(servers, domain, service) as (listener, tried):
        for subject in (*(forbidden - {last}), *own, last):
            await listener.subscribe(subject)
            await listener.flush()
        await tried.until(last)
        assert {subject for subject in (*forbidden, *own) if tried.refuses(subject)} == forbidden


def golden(kind: type[Message]) -> Message:
    return kind.model_validate(json.loads((GOLDEN / f"{kind.topic}.json").read_text(encoding="utf-8"))["body"])


async def test_whoever_hears_a_sentence_gets_it_and_whoever_says_it_is_acknowledged(servers: Servers) -> None:
    """All services at once, as they really stand on the bus, with nothing but what they are permitted."""
    streams = {HUB: hub_streams((SITE,)), SITE: site_streams(SITE)}
    async with AsyncExitStack() as stack:
        admins = {}
        for domain in (HUB, SITE):
            admins[domain], _ = await stack.enter_async_context(client(servers, domain, nats_rules.ADMIN))
            for spec in streams[domain]:
                await declare_stream(admins[domain].jetstream(), spec)
        heard: set[tuple[str, str, str]] = set()
        expected: set[tuple[str, str, str]] = set()
        changed = asyncio.Event()
        buses: dict[tuple[str, str], NatsBus] = {}
        for domain, service in PLACES:
            own = () if service == "operator" else streams[domain]
            bus = NatsBus(servers.url(domain), service, own, _not_expected, access=servers.access(domain, service))
            for kind in KEPT:
                if service in hears(kind):

                    async def hear(message: Message, domain: str = domain, service: str = service) -> None:
                        heard.add((domain, service, type(message).topic))
                        changed.set()

                    # A site's trainer follows events; a command is one process's.
                    register = bus.follows if service in COMES_AND_GOES and not is_command(kind) else bus.hears
                    register(kind, "*", hear)
                    expected.add((domain, service, kind.topic))
            await bus.start()
            stack.push_async_callback(bus.stop)
            buses[domain, service] = bus
        for kind in KEPT:
            message = golden(kind)
            speakers = [(domain, service) for domain, service in PLACES if service in says(kind)]
            for place in speakers[:1]:
                letter = seal(message, "/windfall/test")
                await persist(partial(buses[place].publish, letter))
            if not speakers:
                domain = SITE if kind.topic == "signal.observed" or not is_command(kind) else HUB
                letter = seal(message, "/windfall/test")
                await admins[domain].jetstream().publish(letter.subject, letter.body, headers=dict(letter.headers))
        async with asyncio.timeout(SECONDS):
            while heard != expected:
                changed.clear()
                if heard != expected:
                    await changed.wait()


def _not_expected(mistake: Exception) -> None:
    raise AssertionError(str(mistake))


def test_what_is_generated_is_what_stands_there() -> None:
    """``python -m windfall.servicekit.nats_rules chart`` and ``… matrix`` write them anew."""
    template = ROOT / "deploy/charts/shared/_nats-permissions.tpl"
    assert template.read_text(encoding="utf-8") == nats_rules.chart()
    page = (ROOT / "docs/permissions.md").read_text(encoding="utf-8")
    assert page.endswith(f"\n\n{nats_rules.matrix()}")


def test_every_sentence_has_somebody_who_says_it() -> None:
    known = {*EVERYBODY, "windfall"}
    assert all(says(kind) and set(says(kind)) <= known for kind in KINDS.values())


async def test_a_coordinator_that_stands_by_may_hold_the_lease(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windfall.servicekit.nats_register._TIMEOUT", timedelta(seconds=SECONDS))
    access = servers.access(HUB, "federation-coordinator")
    register = await NatsRegister.connected(servers.url(HUB), "federation-coordinator.demo", access)
    assert await register.read() is None
    revision = await register.write(Lease("one", 1), None)
    await register.write(Lease("one", 1), revision)
    found = await register.read()
    assert found is not None and found.lease == Lease("one", 1)
    await register.close()
