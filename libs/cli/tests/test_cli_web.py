"""The live page's server: what goes in, what each page is sent, and who may reach it; no browser needed."""

import asyncio
import json
import os
import re
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web

from windfall.cli.dead_letters import DeadLetter
from windfall.cli.recording import Said
from windfall.cli.server import connection, declared, store
from windfall.cli.web.app import POLICY, application
from windfall.cli.web.feed import KEPT_CHANGES, MOST_READERS, Feed, Full
from windfall.cli.web.following import follow, told_by
from windfall.cli.web.listening import Door, door
from windfall.cli.web.picture import KEPT_EVENTS, Picture
from windfall.cli.web.serving import page, trace_template
from windfall.contracts.envelope import Letter
from windfall.contracts.events import (
    LinkDegraded,
    LinkRecovered,
    NodeFailed,
    NodeHindered,
    NodeReady,
    SignalRecovered,
    SignalStale,
    WindowOpened,
)
from windfall.contracts.subjects import HUB
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.natsserver import NatsServer
from windfall.servicekit.testing.authority import Authority

AT = datetime(2026, 1, 1, tzinfo=UTC)
STATIC = files("windfall.cli.web").joinpath("static")


def now() -> tuple[datetime, float]:
    return AT, 1.0


def stale(number: int = 1, site: str = "site-a") -> Said:
    return Said(SignalStale(id=UUID(int=number), at=AT, site=site, last_point_time=None, limit_s=900), "/test")


def fed(recorded: Sequence[Said]) -> tuple[Picture, Feed]:
    picture = Picture()
    feed = Feed(picture, now)
    for said in recorded:
        feed.publish(picture.take(said))
    return picture, feed


@asynccontextmanager
async def served(feed: Feed, beat: timedelta = timedelta(seconds=30)) -> AsyncIterator[str]:
    runner = web.AppRunner(application(feed, loopback=True, beat=beat), shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        feed.end()
        await runner.cleanup()


async def frame(response: aiohttp.ClientResponse) -> tuple[str, str, Any]:
    """The next frame: its id, its kind, its data."""
    text = (await response.content.readuntil(b"\n\n")).decode()
    fields = dict(line.split(": ", 1) for line in text.splitlines() if line)
    return fields["id"], fields["event"], json.loads(fields["data"])


# --- the picture ------------------------------------------------------------------------------------------------------


def test_a_whole_run(recorded: Sequence[Said]) -> None:
    picture, _ = fed(recorded)
    told: Any = json.loads(json.dumps(picture.snapshot()))
    assert sorted(told["rows"]["sites"]) == ["site-a", "site-b", "site-c"]
    assert [one["state"] for one in told["rows"]["windows"].values()] == ["closed"] * 4
    round_of = told["rows"]["rounds"]["demo/2"]
    assert round_of["state"] == "completed"
    assert (round_of["loss_nats"], round_of["held_out_nats"]) == pytest.approx((3.4, 3.5))
    assert {one["site"] for parts in told["parts"].values() for one in parts} == {"site-a", "site-b", "site-c"}
    assert all(one["until"] > one["since"] for one in told["rows"]["trained"].values())
    assert told["rows"]["totals"]["site-a"]["contributions"] == 2
    assert len(told["events"]) == len(recorded)


def test_what_is_said_again_counts_once(recorded: Sequence[Said]) -> None:
    picture, feed = fed(recorded)
    before = feed.snapshot()
    for said in recorded:
        assert picture.take(said) is None
    assert feed.snapshot() == before


def test_a_trouble_stands_until_it_is_over() -> None:
    picture = Picture()
    lease = {"site": "site-a", "window_id": UUID(int=1), "lease_id": UUID(int=2), "lease_token": 1}
    link = {"site": "site-a", "target": "hub", "part": "rtt_ms", "value": 90, "low": 1, "high": 9, "because": "far"}

    def troubles(*said: Any) -> list[str]:
        for number, (kind, fields) in enumerate(said):
            picture.take(Said(kind(id=UUID(int=hash((kind, number)) % 2**64), at=AT, **fields), "/test"))
        found: Any = picture.snapshot()["rows"]
        return sorted(found["troubles"])

    silent = {"site": "site-a", "last_point_time": None, "limit_s": 900}
    assert troubles((SignalStale, silent), (LinkDegraded, link), (NodeHindered, {**lease, "because": "full"})) == [
        "link/site-a/hub-rtt_ms",
        "node/site-a/",
        "signal/site-a/",
    ]
    recovered = {"site": "site-a", "point_time": AT}
    assert troubles((NodeFailed, {**lease, "reason": "no"}), (SignalRecovered, recovered)) == [
        "link/site-a/hub-rtt_ms",
        "node/site-a/",
    ]
    ready = {**lease, "node": "site-a-1", "backend": "process"}
    assert troubles((NodeReady, ready), (LinkRecovered, link)) == []


def test_dead_letters_come_and_go() -> None:
    picture = Picture()
    dead = [DeadLetter(number, "provisioner", "no such", Letter("windfall.v1.a.b.c", {}, b"")) for number in (1, 2)]
    assert "no such" in (picture.bury(dead, 2) or "")
    assert picture.bury(dead, 2) is None
    assert json.loads(picture.bury(dead[1:], 1) or "")["rows"]["troubles"] == {"dead letter/1": None}


def test_it_does_not_grow_with_what_is_said() -> None:
    picture = Picture()
    for number in range(KEPT_EVENTS + 50):
        picture.take(stale(number))
    told: Any = picture.snapshot()
    assert len(told["events"]) == KEPT_EVENTS
    assert len(told["rows"]["troubles"]) == len(told["rows"]["sites"]) == 1


# --- the stream -------------------------------------------------------------------------------------------------------


async def test_everything_and_then_what_changes(recorded: Sequence[Said]) -> None:
    picture, feed = fed(recorded)
    async with served(feed) as url, aiohttp.ClientSession() as session, session.get(f"{url}/events") as response:
        assert response.content_type == "text/event-stream"
        first, kind, told = await frame(response)
        assert (kind, told["clock"]["now"]) == ("snapshot", AT.isoformat())
        feed.publish(picture.take(stale()))
        second, kind, told = await frame(response)
        assert (kind, told[0]["rows"]["sites"]["site-a"]["window"]) == ("changes", "stale")
        assert int(second.split("-")[1]) == int(first.split("-")[1]) + 1
        feed.end()
        assert {(await frame(response))[1], (await frame(response))[1]} == {"clock", "end"}
        assert await response.content.read() == b""


async def test_who_comes_back_gets_what_it_missed(recorded: Sequence[Said]) -> None:
    picture, feed = fed(recorded)
    async with served(feed) as url, aiohttp.ClientSession() as session:
        async with session.get(f"{url}/events") as response:
            last, _, _ = await frame(response)
        for number in (1, 2):
            feed.publish(picture.take(stale(number)))
        for path, headers in (("/events", {"Last-Event-ID": last}), (f"/events?after={last}", {})):
            async with session.get(url + path, headers=headers) as response:
                _, kind, told = await frame(response)
                assert (kind, [one["event"]["id"][-1] for one in told]) == ("changes", ["1", "2"])
        for unknown in ("another-5", f"{last.split('-')[0]}-99999", "nonsense"):
            async with session.get(f"{url}/events", headers={"Last-Event-ID": unknown}) as response:
                assert (await frame(response))[1] == "snapshot"


async def test_silence_has_a_beat(recorded: Sequence[Said]) -> None:
    _, feed = fed(recorded)
    async with (
        served(feed, timedelta(milliseconds=10)) as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}/events") as response,
    ):
        assert (await frame(response))[1] == "snapshot"
        assert (await frame(response))[1:] == ("clock", {"now": AT.isoformat(), "speed": 1.0})


async def test_a_slow_page_costs_no_memory_and_is_given_a_fresh_picture() -> None:
    picture, feed = fed(())
    with feed.reader(None) as reader:
        assert b"event: snapshot" in await reader.frame()
        for number in range(KEPT_CHANGES + 5):
            feed.publish(picture.take(stale(number)))
            assert reader.waiting <= KEPT_CHANGES
        assert reader.waiting == 0
        assert b"event: snapshot" in await reader.frame()
        feed.publish(picture.take(stale(10**6)))
        assert b"event: changes" in await reader.frame()


async def test_a_page_that_reads_nothing_for_a_while_ends_with_the_newest() -> None:
    picture, feed = fed(())
    async with served(feed) as url:
        port = int(url.rpartition(":")[2])
        with socket.socket() as slow:
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            slow.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(slow, ("127.0.0.1", port))
            await loop.sock_sendall(slow, f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            total = 8 * KEPT_CHANGES
            for number in range(total):
                feed.publish(picture.take(stale(number, f"site-{number % 50}")))
                if number % 100 == 0:
                    await asyncio.sleep(0)
            newest = f"-{total}\nevent: ".encode()
            got = b""
            while newest not in got:
                got = got[-100:] + await loop.sock_recv(slow, 1 << 16)


async def test_pages_are_counted(recorded: Sequence[Said]) -> None:
    _, feed = fed(recorded)
    async with served(feed) as url, aiohttp.ClientSession() as session:
        many = [feed.reader(None) for _ in range(MOST_READERS)]
        for one in many:
            one.__enter__()
        async with session.get(f"{url}/events") as response:
            assert (response.status, response.headers["Retry-After"]) == (503, "30")
        with pytest.raises(Full), feed.reader(None):
            pass
        for one in many:
            one.__exit__(None, None, None)
        assert feed.readers == 0


# --- the files --------------------------------------------------------------------------------------------------------


async def test_every_answer_is_protected(recorded: Sequence[Said]) -> None:
    _, feed = fed(recorded)
    async with served(feed) as url, aiohttp.ClientSession() as session:
        for path, status in {"/": 200, "/page.js": 200, "/page.css": 200, "/events": 200, "/../app.py": 404}.items():
            async with session.get(url + path) as response:
                assert response.status == status
                assert response.headers["Content-Security-Policy"] == POLICY
                assert response.headers["X-Content-Type-Options"] == "nosniff"
                assert "Access-Control-Allow-Origin" not in response.headers
        async with session.get(url) as response:
            etag = response.headers["ETag"]
        async with session.get(url, headers={"If-None-Match": etag}) as response:
            assert response.status == 304
        async with session.post(f"{url}/events") as response:
            assert response.status == 405
        async with session.get(url, headers={"Host": "elsewhere.example"}) as response:
            assert response.status == 421


def test_nothing_is_inline_and_nothing_from_elsewhere() -> None:
    html = STATIC.joinpath("index.html").read_text()
    assert not re.search(r"<script(?![^>]* src=)|<style|\son\w+=|\sstyle=", html)
    for one in STATIC.iterdir():
        text = one.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|url\(|@import", text), one.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", text), one.name


# --- who may reach it -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:8400", "[::1]:8400"])
def test_loopback_is_free(listen: str) -> None:
    here = door(listen, None, None, None)
    assert here.loopback and not here.warning
    assert here.url(8400) == f"http://{listen.rpartition(':')[0]}:8400/"


def test_beyond_loopback_it_takes_tls_or_a_word(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match=r"0\.0\.0\.0:8400 is not loopback and there is no TLS"):
        door("0.0.0.0:8400", None, None, None)
    assert door("0.0.0.0:8400", None, None, None, insecure=True).warning.startswith("INSECURE")
    tls = Authority(tmp_path, "authority").issue("page")
    assert "anybody" in door("0.0.0.0:8400", tls.certificate, tls.key, None).warning
    assert not door("0.0.0.0:8400", tls.certificate, tls.key, tls.authority).warning
    with pytest.raises(Mistake, match="--tls-certificate and --tls-key together"):
        door("0.0.0.0:8400", tls.certificate, None, None)
    with pytest.raises(Mistake, match="cannot be used"):
        door("0.0.0.0:8400", tls.key, tls.key, None)


@pytest.mark.parametrize("listen", ["8400", "here", "127.0.0.1:", "127.0.0.1:99999", ":8400"])
def test_what_is_no_address(listen: str) -> None:
    with pytest.raises(Mistake, match="is no address"):
        door(listen, None, None, None)


def test_where_traces_are() -> None:
    assert trace_template("http://jaeger:16686/") == "http://jaeger:16686/trace/{trace_id}"
    assert trace_template("https://tempo/x?id={trace_id}") == "https://tempo/x?id={trace_id}"
    with pytest.raises(Mistake, match="is no web address"):
        trace_template("javascript:alert(1)")


# --- on a server ------------------------------------------------------------------------------------------------------


@pytest.fixture
async def hub(nats_server: NatsServer, recorded: Sequence[Said]) -> AsyncIterator[str]:
    """A hub that has heard the recorded run, and one letter that is no sentence."""
    await declared([replace(nats_server.plan, domain=HUB)])
    async with connection(nats_server.url) as client:
        for said in recorded:
            await store(client, said.letter())
        await store(client, Letter("windfall.v1.window.opened.site-a", {}, b"nonsense"))
    yield nats_server.url


async def test_over_tls_only_who_has_a_certificate(hub: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    tls, mine = authority.issue("page"), authority.issue("me")
    opened = door("127.0.0.1:0", tls.certificate, tls.key, tls.authority)
    async with connection(hub) as client, page(client, opened) as (url, _), aiohttp.ClientSession() as session:
        known = ssl.create_default_context(cafile=str(tls.authority))
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await session.get(url, ssl=known)
        known.load_cert_chain(mine.certificate, mine.key)
        async with session.get(url, ssl=known) as response:
            assert (url.startswith("https://"), response.status) == (True, 200)


async def test_a_long_history_is_read_from_near_its_end(hub: str, recorded: Sequence[Said]) -> None:
    picture = Picture()
    feed = Feed(picture, now)
    async with connection(hub) as client:
        following = asyncio.ensure_future(follow(client, picture, feed, history=10))
        with feed.reader(None) as reader:
            newest = str(recorded[-1].message.id).encode()
            while newest not in await reader.frame():
                assert not following.done()
        following.cancel()
    told: Any = picture.snapshot()
    assert sorted(told["rows"]["sites"]) == ["site-a", "site-b", "site-c"]
    assert len(told["events"]) < len(recorded)
    assert told_by(picture) == (recorded[-1].message.at, 0.0)


async def test_an_address_in_use_is_one_line(hub: str) -> None:
    async with connection(hub) as client, page(client, Door("127.0.0.1", 0)) as (url, _):
        taken = int(url.rstrip("/").rpartition(":")[2])
        with pytest.raises(Mistake, match=rf"cannot listen on 127.0.0.1:{taken}.*--listen") as mistake:
            async with page(client, Door("127.0.0.1", taken)):
                pass
        assert mistake.value.exit_code == ExitCode.RESOURCE


async def test_the_command(hub: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "windfall.cli", "web", "--listen", "127.0.0.1:0", "--trace-url", "http://jaeger"),
        env={**os.environ, "WINDFALL_NATS_URL": hub},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    line = (await process.stderr.readline()).decode()
    url = re.search(r"http://127\.0\.0\.1:\d+/", line)
    assert url, line
    async with aiohttp.ClientSession() as session, session.get(f"{url[0]}events") as response:
        _, kind, told = await frame(response)
        assert (kind, told["about"]) == ("snapshot", {"trace_url": "http://jaeger/trace/{trace_id}"})
        opened = WindowOpened(
            id=UUID(int=77), at=AT, site="site-z", window_id=UUID(int=78), intensity_g_per_kwh=1, expected_close_at=None
        )
        async with connection(hub) as client:
            await store(client, Said(opened, "/test").letter())
        while "site-z" not in json.dumps(told):
            _, _, told = await frame(response)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0


async def test_the_command_without_a_server() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "windfall.cli", "web", "--server", "nats://127.0.0.1:1"),
        stderr=asyncio.subprocess.PIPE,
    )
    _, error = await process.communicate()
    assert (process.returncode, error.count(b"\n")) == (ExitCode.SERVER, 1)
