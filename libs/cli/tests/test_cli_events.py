"""A person reads and says events, and handles dead letters, on a real server."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from windfall.cli import dead_letters, events
from windfall.cli.recording import Said, line
from windfall.cli.server import connection, declared, last_sequence, letters, store
from windfall.contracts.commands import StopFederation
from windfall.contracts.envelope import MESSAGE_ID, Letter, seal
from windfall.contracts.events import WindowOpened
from windfall.contracts.subjects import COMMANDS_STREAM, EVENTS_STREAM, HUB, dead_subject
from windfall.servicekit.bus import DEAD_REASON
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.natsserver import NatsServer

OPENED = {
    "site": "site-a",
    "window_id": str(UUID(int=5)),
    "intensity_g_per_kwh": 45.0,
    "expected_close_at": "2026-01-01T04:00:00+00:00",
}


@pytest.fixture
async def url(nats_server: NatsServer) -> AsyncIterator[str]:
    """A site's server with its streams."""
    await declared([nats_server.plan])
    yield nats_server.url


@pytest.fixture
async def hub_url(nats_server: NatsServer) -> AsyncIterator[str]:
    """A server that also takes what federations say."""
    await declared([replace(nats_server.plan, domain=HUB)])
    yield nats_server.url


async def _tailed(url: str, count: int, topic: str | None = None, site: str | None = None) -> list[Said]:
    shown: list[Said] = []
    await events.tail(url, topic, site, True, count, shown.append)
    return shown


async def test_what_is_published_is_tailed(url: str) -> None:
    message = events.sentence("window.opened", json.dumps(OPENED))
    assert await events.publish(url, message)
    assert not await events.publish(url, message), "a second copy is kept once"
    (said,) = await _tailed(url, 1)
    assert said.message == message
    assert said.source == events.SOURCE


async def test_tail_hears_what_is_said_later(url: str) -> None:
    shown: list[Said] = []
    following = asyncio.create_task(events.tail(url, "window.*", "site-a", True, 1, shown.append))
    await events.publish(
        url, events.sentence("signal.recovered", '{"site": "site-a", "point_time": "2026-01-01T00:00Z"}')
    )
    await events.publish(url, events.sentence("window.opened", json.dumps(OPENED)))
    await following
    assert [said.message.topic for said in shown] == ["window.opened"]


async def test_tail_outlives_the_server(nats_server: NatsServer, url: str) -> None:
    shown: list[Said] = []
    following = asyncio.create_task(events.tail(url, None, None, True, 2, shown.append))
    await events.publish(url, events.sentence("window.opened", json.dumps(OPENED)))
    await nats_server.kill()
    await nats_server.start()
    await events.publish(url, events.sentence("window.opened", json.dumps(OPENED)))
    await following
    assert len({said.message.id for said in shown}) == 2


async def test_a_recording_is_said_again_once(hub_url: str, recorded: Sequence[Said], tmp_path: Path) -> None:
    recording = tmp_path / "events.jsonl"
    recording.write_text("".join(f"{line(said)}\n" for said in recorded))
    assert await events.replay(hub_url, recording) == (len(recorded), 0)
    assert await events.replay(hub_url, recording) == (0, len(recorded))
    assert await _tailed(hub_url, len(recorded)) == list(recorded)


async def test_a_bad_recording_says_nothing(url: str, recorded: Sequence[Said], tmp_path: Path) -> None:
    recording = tmp_path / "events.jsonl"
    recording.write_text(f"{line(recorded[0])}\nnonsense\n")
    with pytest.raises(Mistake, match="line 2"):
        await events.replay(url, recording)
    async with connection(url) as client:
        assert await last_sequence(client, EVENTS_STREAM) == 0


async def test_nonsense_on_a_subject_is_told_and_passed_over(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with connection(url) as client:
        await store(client, Letter("windfall.v1.window.opened.site-a", {}, b"nonsense"))
    await events.publish(url, events.sentence("window.opened", json.dumps(OPENED)))
    assert len(await _tailed(url, 2)) == 1
    assert "windfall.v1.window.opened.site-a is no event" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("topic", "body", "reason"),
    [
        ("window.opened", "{", "not JSON"),
        ("window.opened", "[]", "not an object"),
        ("window.opened", "{}", "refused: window.opened: site: Field required"),
        ("window.opened", json.dumps({**OPENED, "intensity_g_per_kwh": -1}), "intensity_g_per_kwh"),
        ("window.opened", json.dumps({**OPENED, "expected_close_at": "2026-01-01T04:00:00"}), "expected_close_at"),
        ("window.opened", json.dumps({**OPENED, "site": "Site A"}), "site"),
        ("window.shut", json.dumps(OPENED), "unknown topic 'window.shut'"),
    ],
    ids=["no-json", "no-object", "empty", "negative", "naive", "bad-name", "unknown-topic"],
)
def test_a_bad_sentence_is_refused_with_the_reason(topic: str, body: str, reason: str) -> None:
    with pytest.raises(Mistake, match=reason) as refused:
        events.sentence(topic, body)
    assert refused.value.exit_code == ExitCode.USAGE


async def test_an_unknown_site_is_named(url: str) -> None:
    with pytest.raises(Mistake, match=r"unknown site 'site-z'\. Did you mean site-a\?"):
        await events.tail(url, None, "site-z", True, 1, lambda said: None)


async def test_an_unknown_topic_is_named(url: str) -> None:
    with pytest.raises(Mistake, match=r"unknown topic 'window.opend'\. Did you mean window\.opened\?"):
        await events.tail(url, "window.opend", None, True, 1, lambda said: None)


async def test_a_command_that_no_stream_takes_is_a_mistake(url: str) -> None:
    order = StopFederation(id=UUID(int=1), at=datetime.now(UTC), federation="demo")
    with pytest.raises(Mistake, match="no stream of this server takes") as refused:
        await events.publish(url, order)
    assert refused.value.exit_code == ExitCode.SERVER


async def test_a_server_without_streams_is_a_mistake(nats_server: NatsServer) -> None:
    with pytest.raises(Mistake, match="the server has no stream EVENTS") as refused:
        await events.tail(nats_server.url, None, None, False, 1, lambda said: None)
    assert refused.value.exit_code == ExitCode.SERVER


async def test_a_server_too_old_is_refused() -> None:
    async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"old","version":"2.9.10","proto":1,"max_payload":1048576,"headers":true}\r\n')
        while row := await reader.readline():
            if row.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(old, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Mistake, match=r"2\.9\.10, which is too old\. Run nats-server 2\.10\.0 or newer") as refused:
            await events.publish(f"nats://127.0.0.1:{port}", events.sentence("window.opened", json.dumps(OPENED)))
    assert refused.value.exit_code == ExitCode.SERVER


async def _bury(url: str, *messages: WindowOpened) -> None:
    async with connection(url) as client:
        for message in messages:
            letter = seal(message, "/windfall/energy-watcher/site-a")
            await store(client, letter)
            headers = {**letter.headers, MESSAGE_ID: f"dead-{message.id}", DEAD_REASON: "no such window"}
            await store(client, Letter(dead_subject("provisioner", letter.subject), headers, letter.body))


def _opened(number: int) -> WindowOpened:
    message = events.sentence("window.opened", json.dumps({**OPENED, "id": str(UUID(int=number))}))
    assert isinstance(message, WindowOpened)
    return message


async def test_dead_letters_are_listed_replayed_and_dropped(url: str) -> None:
    assert await dead_letters.listed(url) == ()
    await _bury(url, _opened(1), _opened(2), _opened(3))
    first, second, third = await dead_letters.listed(url)
    assert (first.consumer, first.reason) == ("provisioner", "no such window")
    assert (await dead_letters.one(url, second.sequence)).letter.body == second.letter.body

    assert await dead_letters.replay(url, first.sequence) == 1
    said = await _tailed(url, 4)
    assert said[-1].message.id == UUID(int=1), "the stream takes it although it knew the first copy"
    assert await dead_letters.drop(url, second.sequence) == 1
    assert [dead.sequence for dead in await dead_letters.listed(url)] == [third.sequence]
    assert await dead_letters.replay(url, None) == 1
    assert await dead_letters.listed(url) == ()
    with pytest.raises(Mistake, match="there is no dead letter 1"):
        await dead_letters.one(url, 1)


async def test_reading_begins_where_it_is_told(url: str) -> None:
    await _bury(url, _opened(1), _opened(2))
    async with connection(url) as client:
        async for stored in letters(client, EVENTS_STREAM, start=2):
            assert stored.sequence == 2
            break
        assert await last_sequence(client, COMMANDS_STREAM) == 0


async def test_a_store_that_was_lost_is_read_from_its_beginning_even_when_it_holds_more_than_before(url: str) -> None:
    async with connection(url) as client, asyncio.timeout(120):
        jetstream = client.jetstream()
        for number in (1, 2):
            await store(client, seal(_opened(number), "/test"))
        reading = letters(client, EVENTS_STREAM)
        assert [(await anext(reading)).letter.id for _ in range(2)] == [str(UUID(int=1)), str(UUID(int=2))]
        config = (await jetstream.stream_info(EVENTS_STREAM)).config
        await jetstream.delete_stream(EVENTS_STREAM)
        await jetstream.add_stream(config)
        for number in range(1, 6):
            await store(client, seal(_opened(number), "/test"))
        heard = [(await anext(reading)).letter.id for _ in range(5)]
        assert heard == [str(UUID(int=number)) for number in range(1, 6)]
        await reading.aclose()
