"""A service's log is read at its own server, and nothing of it is to be had at the hub's: on a real pair that knows
everybody by nkeys."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.commanded import ran
from tests.keyed_servers import SECONDS, SITE, Servers, keyed
from windfall.cli.logs.addressing import addressees
from windfall.cli.logs.asking import Asking, follow, read
from windfall.cli.logs.showing import Told, in_order
from windfall.contracts.logs import LogAsk, LogWish
from windfall.contracts.subjects import HUB, SITE_SERVICES, log_asked
from windfall.servicekit import nats_rules
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.log_answers import LogAnswers
from windfall.servicekit.log_ring import LogRing
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.nats_client import connected

PATIENCE = timedelta(seconds=SECONDS)
SECRET = "zebra-quark-7c1e-murmurs"
ALL = LogWish()


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Servers]:
    async with keyed(tmp_path) as both:
        yield both


@asynccontextmanager
async def standing(servers: Servers, domain: str, service: str, whom: str) -> AsyncIterator[logging.Logger]:
    """What of a service answers, with its own key; and its log."""
    ring, logger = LogRing(), logging.Logger(f"windfall.{service}")
    logger.addHandler(ring)
    bus = NatsBus(servers.url(domain), service, (), _not_expected, access=servers.access(domain, service))
    answers = LogAnswers(ring, service, whom, bus.tell)
    bus.asked(log_asked(service), answers.hear)
    telling = asyncio.create_task(answers.run())
    await bus.start()
    try:
        yield logger
    finally:
        await bus.stop()
        telling.cancel()
        await asyncio.wait([telling])


def _not_expected(mistake: Exception) -> None:
    raise AssertionError(str(mistake))


def as_person(monkeypatch: pytest.MonkeyPatch, servers: Servers, domain: str, name: str = nats_rules.ADMIN) -> str:
    """Show this key from here on; where to."""
    monkeypatch.setenv("WINDFALL_NATS_NKEY_FILE", str(servers.seeds[domain, name]))
    return servers.url(domain)


def messages(told: Any) -> list[str]:
    return [one.line.message for one in told]


async def until(true: Callable[[], bool], changed: asyncio.Event) -> None:
    async with asyncio.timeout(SECONDS):
        while not true():
            changed.clear()
            await changed.wait()


async def test_a_log_is_read_where_it_is_written_and_nothing_of_it_crosses_to_the_hub(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_hub: list[Msg] = []

    async def overheard(message: Msg) -> None:
        at_hub.append(message)

    spy = await connected(servers.url(HUB), servers.access(HUB, nats_rules.ADMIN))
    async with (
        standing(servers, SITE, "provisioner", SITE) as provisioner,
        standing(servers, SITE, "profiler", SITE) as profiler,
        standing(servers, HUB, "federation-coordinator", "demo") as coordinator,
    ):
        await _joined(spy)
        ask = LogAsk(token="0" * 32).model_dump_json().encode()
        for service in SITE_SERVICES:
            # Before anybody at the hub listens to everything, and so to this.
            with pytest.raises(nats.errors.NoRespondersError):
                await spy.request(log_asked(service), ask, timeout=SECONDS)
        await spy.subscribe(">", cb=overheard)
        await spy.flush()
        for number in range(3000):
            provisioner.info("line %d: %s", number, SECRET)
        profiler.warning("a link is slow")
        coordinator.info("round 1 begins")

        url = as_person(monkeypatch, servers, SITE)
        told, gone, wrong = await read(url, ["provisioner@site-a", "profiler"], ALL, None, PATIENCE)
        assert (len(told), gone, wrong) == (3001, [], [])
        assert sorted({(one.service, one.whom) for one in told}) == [("profiler", SITE), ("provisioner", SITE)]
        told, _, _ = await read(url, [], ALL, 2, PATIENCE)
        assert messages(in_order(told)) == [f"line 2998: {SECRET}", f"line 2999: {SECRET}", "a link is slow"]
        told, _, _ = await read(url, [], LogWish(severity=logging.WARNING), None, PATIENCE)
        assert messages(told) == ["a link is slow"]

        # The hub reads its own log, and of the site's it can neither ask nor overhear anything.
        url = as_person(monkeypatch, servers, HUB)
        assert messages((await read(url, [], ALL, None, PATIENCE))[0]) == ["round 1 begins"]
        (_, _, (wrong_one,)) = await read(url, ["federation-coordinator@dema"], ALL, None, PATIENCE)
        assert str(wrong_one) == "no federation-coordinator of 'dema' answers. Did you mean demo?"
        with pytest.raises(Mistake, match="the log of provisioner stays at site-a, and this is the server of the hub"):
            await read(url, ["provisioner@site-a"], ALL, None, PATIENCE)
    await spy.flush()
    told_at_hub = {one.subject for one in at_hub if one.subject.startswith("windfall.logs.told.")}
    assert told_at_hub and all(".federation-coordinator." in one for one in told_at_hub)
    assert not any(SECRET.encode() in one.data for one in at_hub)
    await spy.close()


async def _joined(at_hub: Client) -> None:
    """Until the hub reaches the site: what it may ask is answered."""
    async with asyncio.timeout(SECONDS):
        while True:
            with suppress(nats.errors.NoRespondersError):
                await at_hub.request(f"$JS.{SITE}.API.INFO", b"", timeout=SECONDS)
                return
            await asyncio.sleep(0.02)


async def test_who_follows_sees_what_comes_and_who_ends_and_who_begins(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windfall.cli.logs.asking.AGAIN", timedelta(seconds=0.2))
    url = as_person(monkeypatch, servers, SITE)
    seen: list[Told] = []
    said: list[str] = []
    changed = asyncio.Event()

    def show(one: Told) -> None:
        seen.append(one)
        changed.set()

    def complain(text: str) -> None:
        said.append(text)
        changed.set()

    following = asyncio.create_task(follow(url, ["site-trainer"], ALL, 1, PATIENCE, show, complain))
    await until(lambda: len(said) == 1, changed)
    assert said[0].startswith("no site-trainer answers at site-a: none runs") and "windfall get windows" in said[0]
    async with standing(servers, SITE, "site-trainer", SITE) as trainer:
        trainer.info("first")
        await until(lambda: len(seen) == 1, changed)
        for number in range(500):
            trainer.info("step %d", number)
        await until(lambda: len(seen) == 501, changed)
    await until(lambda: len(said) == 2, changed)
    async with standing(servers, SITE, "site-trainer", SITE) as trainer:
        trainer.info("again")
        await until(lambda: len(seen) == 502, changed)
    assert messages(seen) == ["first", *(f"step {number}" for number in range(500)), "again"]
    assert len({one.process for one in seen}) == 2
    following.cancel()
    await asyncio.wait([following])


async def test_who_may_not_ask_and_who_is_not_there_is_told_in_a_line(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = as_person(monkeypatch, servers, SITE)
    code, out, err = await ran("logs", "provisioner", url=url)
    assert (code, out) == (ExitCode.SERVER, "") and err.count("\n") == 1
    assert "no provisioner answers at site-a" in err and "journalctl" in err
    async with standing(servers, SITE, "provisioner", SITE) as provisioner:
        provisioner.info("ready \x1b[31m")
        code, out, err = await ran("logs", "provisioner@site-a", "--tail", "1", url=url)
        assert (code, err) == (0, "") and out.endswith(" INFO    provisioner@site-a ready \\x1b[31m\n")
    # Of services none reads another's, nor its own.
    client = await connected(servers.url(SITE), servers.access(SITE, "profiler"), error_cb=_nothing)
    asking = Asking(client, SITE, addressees(["provisioner"], SITE), ALL, None, follow=False)
    with pytest.raises(Mistake, match="our key may not ask for logs at site-a"):
        await asking.listen()
        await asking.ask()
    await client.close()


async def _nothing(_: Exception) -> None:
    """What the server refuses is looked for elsewhere."""
