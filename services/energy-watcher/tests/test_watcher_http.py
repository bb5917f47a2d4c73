"""How providers are asked: pace, patience, size, and what a person is told when it goes wrong."""

import asyncio
import gzip
import ssl
import tracemalloc
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from windfall.energy.quotes import Unbelievable
from windfall.energy_watcher.answers import AnswerCache, Body, UtcInstant, ZonedInstant, read
from windfall.energy_watcher.http import Answer, Cures, Denied, HttpClient, Request
from windfall.energy_watcher.pacing import TokenBucket, backoff_s, retry_after
from windfall.energy_watcher.section import HttpSection, Means
from windfall.energy_watcher.testing.fake_providers import FakeProviders, Reply, Trouble, in_json, page, too_many
from windfall.servicekit.errors import ExitCode, Transient

NOON = datetime(2026, 3, 29, 12, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
CURES = Cures("Mend the credential", "Mend the request")
ASKED = Request("/microgrids/site-a")


class Waits(list[float]):
    """Pauses that do not take any time."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


@pytest.fixture
async def there() -> AsyncIterator[FakeProviders]:
    async with FakeProviders(lambda: NOON) as fake:
        yield fake


def client(there: FakeProviders, waits: Waits, buckets: Any = None, **more: Any) -> HttpClient:
    told = HttpSection.model_validate({"url": there.url, **more})
    return HttpClient("the provider", told, Means("site-a", "signal", {}, waits, Random(3)), CURES, buckets)


async def asked(there: FakeProviders, waits: Waits, **more: Any) -> Answer:
    made = client(there, waits, **more)
    try:
        return await made.ask(ASKED)
    finally:
        await made.close()


async def test_trouble_is_tried_again_with_growing_pauses(there: FakeProviders) -> None:
    waits = Waits()
    there.next.extend([Reply(503), Trouble.HANG_UP, too_many()])
    assert (await asked(there, waits)).body
    assert len(waits) == 3
    assert all(0 <= wait <= 2**tried for tried, wait in enumerate(waits))


@pytest.mark.parametrize("trouble", [Reply(500), Reply(599), page(502), Trouble.HANG_UP, too_many("1")])
async def test_trouble_that_stays_is_transient(there: FakeProviders, trouble: Reply | Trouble) -> None:
    there.down = trouble
    with pytest.raises(Transient, match="the provider"):
        await asked(there, Waits())
    assert len(there.asked) == 4


async def test_nobody_there_is_transient(there: FakeProviders) -> None:
    async with FakeProviders(lambda: NOON) as gone:
        url = gone.url
    with pytest.raises(Transient, match="ConnectError"):
        await asked(there, Waits(), url=url)


async def test_a_date_is_honoured_by_their_clock(there: FakeProviders) -> None:
    waits = Waits()
    date = {"Date": "Sun, 29 Mar 2026 12:00:00 GMT", "Retry-After": "Sun, 29 Mar 2026 12:00:09 GMT"}
    there.next.append(Reply(503, headers=date))
    await asked(there, waits)
    assert waits == [9.0]


async def test_no_wait_is_longer_than_its_bound(there: FakeProviders) -> None:
    waits = Waits()
    there.next.append(too_many("21"))
    with pytest.raises(Transient) as failed:
        await asked(there, waits)
    assert failed.value.retry_after == timedelta(seconds=21)
    assert waits == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 418, 301, 308])
async def test_a_refusal_is_not_tried_again(there: FakeProviders, status: int) -> None:
    there.down = in_json(status, {"error": {"code": "E1", "message": "so it is"}})
    with pytest.raises(Denied) as refused:
        await asked(there, Waits())
    assert len(there.asked) == 1
    assert refused.value.status == status
    assert refused.value.exit_code == (ExitCode.SERVER if status in (401, 403) else ExitCode.USAGE)
    assert (refused.value.cure == "Mend the credential") == (status in (401, 403))


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (in_json(404, {"error": "no such\nzone"}), "HTTP 404: no such zone"),
        (in_json(404, {"status": "error", "message": "no zone"}), "HTTP 404: no zone"),
        (in_json(404, {"detail": "Microgrid not found"}), "HTTP 404: Microgrid not found"),
        (in_json(400, {"error": {"code": "400 Bad Request", "message": "no date"}}), "HTTP 400: no date"),
        (in_json(404, {"detail": [{"loc": 1}]}), "no reason given"),
        (in_json(404, 7), "no reason given"),
        (page(404), "HTTP 404: an HTML page"),
        (Reply(403, b"Access denied"), "HTTP 403: something that is not JSON"),
        (in_json(404, {"error": "\x1b[31m" + "long " * 100}), "…"),
    ],
)
async def test_a_refusal_says_what_the_provider_said(there: FakeProviders, reply: Reply, says: str) -> None:
    there.down = reply
    with pytest.raises(Denied) as refused:
        await asked(there, Waits())
    assert says in str(refused.value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


async def test_what_is_hidden_is_never_repeated(there: FakeProviders) -> None:
    made = client(there, Waits())
    made.hide(SecretStr("s3cret-value"))
    there.down = in_json(403, {"error": "the key s3cret-value is not known"})
    with pytest.raises(Denied, match=r"the key \*\*\* is not known"):
        await made.ask(ASKED)
    await made.close()


async def test_an_answer_that_is_too_large_is_refused(there: FakeProviders) -> None:
    there.down = Reply(200, b'{"a": "' + b"x" * 5000 + b'"}')
    with pytest.raises(Unbelievable, match="over 1000 bytes") as refused:
        await asked(there, Waits(), most_bytes=1000)
    assert refused.value.reason == "unreadable"


async def test_a_server_that_drips_is_left(there: FakeProviders) -> None:
    """Each read is answered in time, but the whole never ends."""

    gone = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        try:
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.01)
        except ConnectionError:
            pass
        finally:
            writer.close()
            gone.set()

    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(Transient, match=r"within 3 s"):
            await asked(there, Waits(), url=url, connect_timeout=1.5, read_timeout=1.5, retries=0)
        await gone.wait()


async def test_a_broken_encoding_is_refused(there: FakeProviders) -> None:
    there.down = Reply(200, b"no gzip", {"Content-Encoding": "gzip"})
    with pytest.raises(Unbelievable):
        await asked(there, Waits())


async def test_the_pace_is_kept(there: FakeProviders) -> None:
    waits = Waits()
    buckets = {"/": TokenBucket.full(1000.0, 100.0), "/microgrids": TokenBucket.full(0.5, 2.0)}
    made = client(there, waits, buckets)
    for _ in range(4):
        await made.ask(ASKED)
    await made.close()
    assert len(waits) == 2
    assert 0.0 < waits[0] <= 2.0 < waits[1] <= 4.0


@given(st.lists(st.floats(0.0, 10.0), max_size=50), st.floats(0.1, 20.0), st.integers(1, 20))
def test_a_bucket_never_gives_more_than_it_has(pauses: list[float], per_s: float, burst: int) -> None:
    bucket, at, used = TokenBucket.full(per_s, burst), 0.0, list[float]()
    for pause in pauses:
        at += pause
        bucket, wait_s = bucket.take(at)
        used.append(at + wait_s)
    for first in range(len(used)):
        for last in range(first, len(used)):
            assert last - first + 1 <= burst + (used[last] - used[first]) * per_s + 1e-6


@given(st.integers(0, 60), st.floats(0.1, 100.0), st.integers())
def test_a_pause_is_bounded(tried: int, longest_s: float, seed: int) -> None:
    assert 0.0 <= backoff_s(tried, longest_s, Random(seed)) <= min(longest_s, 2.0**tried)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120),
        (" 0 ", 0),
        ("Sun, 29 Mar 2026 12:01:00 GMT", 60),
        ("Sun, 29 Mar 2026 11:00:00 GMT", 0),
        ("Sun, 29 Mar 2026 12:01:00 -0000", 60),
        ("9" * 400, 86_400 * 365),
        ("soon", None),
        ("Sun, 29 Mar 2026 12:01:00 +99999999999999", None),
        ("-5", None),
        ("1.5", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after(text: str | None, seconds: int | None) -> None:
    expected = None if seconds is None else timedelta(seconds=seconds)
    assert retry_after(text, None, NOON) == expected


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({"url": "http://example.org"}, "plain text to example.org"),
        ({"url": "http://127.0.0.1.example.org"}, "plain text"),
        ({"url": "http://169.254.1.1"}, "plain text"),
        ({"url": "ftp://example.org"}, "not like"),
        ({"url": "https://"}, "not like"),
        ({"url": "https://host:port"}, "not like"),
        ({"url": "https://me:hush-hush@example.org"}, "holds a user or a password"),
        ({"url": "https://example.org/?key=hush-hush"}, "holds a query"),
        ({"url": "https://example.org", "retries": -1}, "retries"),
        ({"url": "https://example.org", "token": "hush-hush"}, "token"),
    ],
)
def test_an_address_that_is_not_taken(told: dict[str, object], says: str) -> None:
    with pytest.raises(ValidationError, match=says) as refused:
        HttpSection.model_validate(told)
    assert "hush-hush" not in str(refused.value)


@pytest.mark.parametrize(
    "told",
    [
        {"url": "https://example.org/prometheus/"},
        {"url": "http://127.0.0.1:9090"},
        {"url": "http://127.1.2.3"},
        {"url": "http://[::1]:9090"},
        {"url": "http://localhost"},
        {"url": "http://meter.site.example", "plain_text": True},
    ],
)
def test_an_address_that_is_taken(told: dict[str, object]) -> None:
    assert HttpSection.model_validate(told).url == told["url"]


async def test_an_etag_saves_the_body(there: FakeProviders) -> None:
    there.etags = True
    made, cache = client(there, Waits()), AnswerCache()
    first = await cache.get(ASKED, NOON, made.ask, lambda _: NOON, HOUR)
    second = await cache.get(ASKED, NOON + HOUR, made.ask, lambda _: NOON + HOUR, HOUR)
    await made.close()
    assert first == second
    assert "if-none-match" not in there.asked[0].headers
    assert there.asked[1].headers["if-none-match"].startswith('"')


async def test_an_answer_is_kept_while_it_is_fresh(there: FakeProviders) -> None:
    made, cache = client(there, Waits()), AnswerCache()

    async def get(now: datetime, since: datetime) -> None:
        await cache.get(ASKED, now, made.ask, lambda _: since, HOUR)

    await asyncio.gather(get(NOON, NOON), get(NOON, NOON))
    await get(NOON + HOUR - timedelta.resolution, NOON)
    assert len(there.asked) == 1, "two at once, and one before the next is due, are one request"
    await get(NOON + HOUR, NOON)
    await get(NOON + HOUR, NOON)
    assert len(there.asked) == 2, "it is late, and one look is one request"
    await get(NOON + 2 * HOUR, NOON + 9 * HOUR)
    await get(NOON + 3 * HOUR, NOON)
    assert len(there.asked) == 4, "what lies ahead is not kept"
    await get(NOON - HOUR, NOON)
    assert len(there.asked) == 5, "the clock was set back"
    for path in range(40):
        await cache.get(Request(f"/microgrids/site-a/{path}"), NOON, made.ask, lambda _: NOON, HOUR)
    assert len(cache._kept) == 16
    await made.close()


async def test_a_certificate_that_nobody_signed_is_a_mistake(there: FakeProviders, tmp_path: Path) -> None:
    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trusted.load_cert_chain(*self_signed(tmp_path))
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=trusted) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(Exception, match="the certificate of the provider is not trusted") as refused:
            await asked(there, Waits(), url=url)
    assert "SSL_CERT_FILE" in str(refused.value)


def self_signed(folder: Path) -> tuple[str, str]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    today = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 7, today - HOUR, today + HOUR)
    (folder / "cert.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(private)
    return str(folder / "cert.pem"), str(folder / "key.pem")


def zipped(megabytes: int, times: int) -> bytes:
    content = b" " * (megabytes << 20)
    for _ in range(times):
        content = gzip.compress(content)
    return content


async def test_an_answer_may_be_compressed(there: FakeProviders) -> None:
    there.down = Reply(200, gzip.compress(b'{"a": 1}'), {"Content-Encoding": "gzip"})
    assert (await asked(there, Waits())).body == {"a": 1}
    assert there.asked[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    ("body", "encoding", "says"),
    [
        (zipped(64, 1), "gzip", "over 1000000 bytes"),
        (zipped(64, 2), "gzip, gzip", "answers in gzip, gzip, which was not asked for"),
        (gzip.compress(b'{"a": 1}')[:-4], "gzip", "half of a gzip file"),
        (b"{}", "br", "answers in br"),
    ],
    ids=["a bomb", "a bomb in a bomb", "cut short", "another encoding"],
)
async def test_what_is_packed_cannot_fill_the_memory(
    there: FakeProviders, body: bytes, encoding: str, says: str
) -> None:
    there.down = Reply(200, body, {"Content-Encoding": encoding})
    tracemalloc.start()
    try:
        with pytest.raises(Unbelievable, match=says):
            await asked(there, Waits(), most_bytes=1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


async def test_an_etag_that_cannot_be_sent_back_is_not(there: FakeProviders) -> None:
    there.down = in_json(200, {"a": 1}, ETag='"\xe9"')
    made, cache = client(there, Waits()), AnswerCache()
    for hour in range(2):
        at = NOON + hour * HOUR
        assert await cache.get(ASKED, at, made.ask, lambda _, at=at: at, HOUR) == {"a": 1}  # type: ignore[misc]
    await made.close()
    assert "if-none-match" not in there.asked[1].headers


@pytest.mark.parametrize("at", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
def test_an_instant_outside_of_the_calendar_is_refused(at: str) -> None:
    class Timed(Body):
        utc: UtcInstant | None = None
        zoned: ZonedInstant | None = None

    for name in ("utc", "zoned"):
        with pytest.raises(Unbelievable, match="before the first year or after the last"):
            read(Timed, {name: at})
