"""Many letters stored as one by a real server, and one by one where it cannot."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import nats
import pytest
from nats.js import JetStreamContext

from windfall.contracts.envelope import Letter, seal
from windfall.contracts.events import WindowOpened
from windfall.contracts.subjects import EVENTS_STREAM, site_streams
from windfall.servicekit import batch
from windfall.servicekit.batch import by_stream
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.natsserver import NatsServer
from windfall.servicekit.testing.fixtures import started_server

SITE = "site-a"
STREAMS = site_streams(SITE)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def said(count: int) -> list[Letter]:
    return [
        seal(
            WindowOpened(
                id=uuid4(),
                at=NOON + timedelta(minutes=minute),
                site=SITE,
                window_id=uuid4(),
                intensity_g_per_kwh=20,
                expected_close_at=None,
            ),
            "/windfall/test",
        )
        for minute in range(count)
    ]


@asynccontextmanager
async def standing(server: NatsServer) -> AsyncIterator[NatsBus]:
    bus = NatsBus(server.url, "energy-watcher", STREAMS, print)
    await bus.start()
    try:
        yield bus
    finally:
        await bus.stop()


async def kept(server: NatsServer) -> tuple[list[str], set[str]]:
    """Which letters the server holds, in its order, and under which batches they came."""
    client = await nats.connect(server.url)
    jetstream = client.jetstream()
    state = (await jetstream.stream_info(EVENTS_STREAM)).state
    found = [await jetstream.get_msg(EVENTS_STREAM, number) for number in range(1, state.last_seq + 1)]
    await client.close()
    headers = [message.headers or {} for message in found]
    return [one["Nats-Msg-Id"] for one in headers], {one.get("Nats-Batch-Id", "") for one in headers}


async def forbid(server: NatsServer) -> None:
    """Streams as a version of ours made them that knew of no batches."""
    client = await nats.connect(server.url)
    jetstream: JetStreamContext = client.jetstream()
    config = (await jetstream.stream_info(EVENTS_STREAM)).config
    await jetstream.update_stream(config.evolve(allow_atomic=False))
    await client.close()


async def test_what_is_said_at_once_is_one_batch(tmp_path: Path) -> None:
    letters = said(50)
    async with started_server(tmp_path) as server, standing(server) as bus:
        await bus.publish_all(letters)
        ids, batches = await kept(server)
    assert ids == [letter.id for letter in letters]
    assert len(batches) == 1 and "" not in batches


async def test_what_is_refused_as_a_batch_is_stored_word_by_word(tmp_path: Path) -> None:
    letters = said(6)
    async with started_server(tmp_path) as server, standing(server) as bus:
        await bus.publish(letters[1])
        await bus.publish_all(letters[:3])
        await forbid(server)
        await bus.publish_all(letters[3:5])
        ids, batches = await kept(server)
        assert ids == [letters[place].id for place in (1, 0, 2, 3, 4)]
        assert batches == {""}
        # Whoever starts next brings the stream in line.
        async with standing(server) as newer:
            await newer.publish_all(letters[4:])
            await newer.publish_all(said(2))
        assert len((await kept(server))[1]) == 2


async def test_an_older_server_is_told_word_by_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # It would take each word of a batch for itself and acknowledge the last one alone.
    monkeypatch.setattr(batch, "_SINCE", (99, 0))
    letters = said(3)
    async with started_server(tmp_path) as server, standing(server) as bus:
        await bus.publish_all(letters)
        assert await kept(server) == ([letter.id for letter in letters], {""})


def test_streams_have_batches_of_their_own() -> None:
    opened, release = "windfall.v1.window.opened.site-a", "windfall.v1.command.provisioner.node-release.site-a"
    fact, order, other = (Letter(subject, {}, b"") for subject in (opened, release, "elsewhere"))
    assert by_stream([fact, order, other, fact], STREAMS) == [[fact, fact], [order], [other]]
