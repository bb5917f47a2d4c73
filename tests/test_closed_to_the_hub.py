"""What a hub may ask of a site's server: the facts that may leave, and nothing else."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest
from nats.aio.client import Client

from tests.wiring import RealWiring
from windfall.cli.server import declared
from windfall.contracts.subjects import COMMANDS_STREAM, DEAD_STREAM, EVENTS_STREAM, HUB

SITE = "site-a"
SECONDS = 60.0
API = f"$JS.{SITE}.API"


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Client]:
    """A client of the hub's server, of which a site's is a leaf."""
    wiring = RealWiring(tmp_path)
    await wiring.rise((SITE,))
    await declared([server.plan for server in wiring.servers.values()])
    client = await nats.connect(wiring.servers[HUB].url)
    try:
        async with asyncio.timeout(SECONDS):
            while await asked(client, f"{API}.INFO", {}) is None:  # noqa: ASYNC110 - a leaf says nothing when it comes
                await asyncio.sleep(0.05)
        yield client
    finally:
        await client.close()
        await wiring.lie_down()


async def asked(hub: Client, subject: str, body: dict[str, Any], within_s: float = 1) -> dict[str, Any] | None:
    """The site's answer; none when nobody answers."""
    try:
        reply = await hub.request(subject, json.dumps(body).encode(), timeout=within_s)
    except (nats.errors.NoRespondersError, TimeoutError, nats.errors.TimeoutError):
        return None
    answer: dict[str, Any] = json.loads(reply.data)
    return answer


async def test_the_hub_reads_the_facts_of_a_site(hub: Client) -> None:
    about = await asked(hub, f"{API}.INFO", {}, SECONDS)
    assert about is not None and about["domain"] == SITE
    reading = {"stream_name": EVENTS_STREAM, "config": {"deliver_subject": hub.new_inbox(), "ack_policy": "none"}}
    made = await asked(hub, f"{API}.CONSUMER.CREATE.{EVENTS_STREAM}", reading, SECONDS)
    assert made is not None and made["stream_name"] == EVENTS_STREAM


async def test_the_hub_reads_nothing_else_and_changes_nothing(hub: Client) -> None:
    for stream in (COMMANDS_STREAM, DEAD_STREAM):
        reading = {"stream_name": stream, "config": {"deliver_subject": hub.new_inbox(), "ack_policy": "none"}}
        for way in (f"CREATE.{stream}", f"CREATE.{stream}.spy", f"CREATE.{stream}.spy.windfall.>"):
            assert await asked(hub, f"{API}.CONSUMER.{way}", reading) is None, way
        named = {"stream_name": stream, "config": {"durable_name": "spy", "ack_policy": "none"}}
        for way in (f"DURABLE.CREATE.{stream}.spy", f"MSG.NEXT.{stream}.provisioner", f"LIST.{stream}"):
            assert await asked(hub, f"{API}.CONSUMER.{way}", named) is None, way
    for way in ("NAMES", "LIST", f"INFO.{EVENTS_STREAM}", f"PURGE.{EVENTS_STREAM}", f"DELETE.{EVENTS_STREAM}"):
        assert await asked(hub, f"{API}.STREAM.{way}", {}) is None, way
    for way in (f"STREAM.MSG.GET.{COMMANDS_STREAM}", f"DIRECT.GET.{COMMANDS_STREAM}"):
        assert await asked(hub, f"{API}.{way}", {"seq": 1}) is None, way
    assert await asked(hub, f"{API}.STREAM.CREATE.SPY", {"name": "SPY", "subjects": [">"]}) is None


async def test_the_hub_learns_nothing_of_who_is_connected_at_a_site(hub: Client) -> None:
    inbox = hub.new_inbox()
    answers = await hub.subscribe(inbox)
    for what in ("ACCOUNT.PING.CONNZ", "ACCOUNT.PING.STATZ", "SERVER.PING.CONNZ", "USER.INFO"):
        await hub.publish(f"$SYS.REQ.{what}", b"{}", reply=inbox)
    # Asked last and answered by the site: whatever it had to say before has been said.
    assert await asked(hub, f"{API}.INFO", {}, SECONDS) is not None
    await hub.flush()
    told = [json.loads(answers._pending_queue.get_nowait().data) for _ in range(answers.pending_msgs)]
    assert SITE not in {one.get("server", {}).get("name") for one in told}
