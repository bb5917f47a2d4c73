"""What a process keeps of its log, and how it is told to whoever asks."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import format_trace_id

from windfall.contracts.logs import LogAsk, LogTold, LogWish
from windfall.contracts.subjects import log_told
from windfall.servicekit.log_answers import MOST_ASKERS, LogAnswers
from windfall.servicekit.log_ring import LONGEST, LogRing, before_the_last, fitting, matches
from windfall.servicekit.scrubbing import BLOT, scrubbed

SECONDS = 60.0
TOKEN = "a" * 32


def logging_into(ring: LogRing) -> logging.Logger:
    logger = logging.Logger("windfall.test")
    logger.addHandler(ring)
    return logger


def test_what_is_kept_is_bounded_by_its_bytes() -> None:
    ring = LogRing(most_bytes=10_000)
    log = logging_into(ring)
    for number in range(1000):
        log.info("line %d %s", number, "x" * 100)
    kept = ring.kept()
    assert 40 < len(kept) < 100 and kept[-1].number == 1000
    assert [one.number for one in kept] == list(range(kept[0].number, 1001))
    lines, dropped, newest = ring.after(10, 5)
    assert [one.number for one in lines] == list(range(kept[0].number, kept[0].number + 5))
    assert (dropped, newest) == (kept[0].number - 11, 1000)
    log.info("y" * 50_000)
    assert len(ring.kept()[-1].message) == LONGEST


def test_a_line_is_kept_scrubbed_with_its_trace_and_its_stack() -> None:
    ring = LogRing()
    log = logging_into(ring)
    seed = "SUAM" + "A" * 54
    with TracerProvider(shutdown_on_exit=False).get_tracer("test").start_as_current_span("round") as span:
        try:
            raise ValueError("nats://me:hunter2@hub:4222")
        except ValueError:
            log.exception("broke with %s and \udc80", seed)
    log.info("%d is no number", "one")
    first, second = ring.kept()
    assert first.trace_id == format_trace_id(span.get_span_context().trace_id)
    assert first.message == f"broke with {BLOT} and ?" and "hunter2" not in first.stack and "ValueError" in first.stack
    assert (second.message, second.trace_id) == ("%d is no number", "")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("tls://user:pa55@hub.example.org:4222 is away", f"tls://{BLOT}@hub.example.org:4222 is away"),
        ("Authorization: Bearer abcdefghijklmnop.q", f"Authorization: {BLOT}"),
        ("GET /v3?token=abc&region=CAISO", f"GET /v3?{BLOT}&region=CAISO"),
        ("-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----", BLOT),
        ("eyJhbGciOi.eyJzdWIi.c2ln", BLOT),
        ("the bearer of a basic token at nats://hub:4222", "the bearer of a basic token at nats://hub:4222"),
    ],
)
def test_what_is_secret_is_blotted_out_and_nothing_else(text: str, clean: str) -> None:
    assert scrubbed(text) == clean


def test_lines_are_chosen_by_time_level_trace_and_number() -> None:
    ring = LogRing()
    log = logging_into(ring)
    for number in range(10):
        log.log(logging.WARNING if number % 2 else logging.INFO, "line %d", number)
    lines = ring.kept()
    warnings = LogWish(severity=logging.WARNING)
    assert [one.number for one in lines if matches(one, warnings)] == [2, 4, 6, 8, 10]
    assert not any(matches(one, LogWish(trace="ab")) for one in lines)
    assert not any(matches(one, LogWish(since=datetime.now(UTC) + timedelta(hours=1))) for one in lines)
    assert before_the_last(lines, warnings, 2) == 7
    assert before_the_last(lines, warnings, 0) == before_the_last(lines, LogWish(trace="ab"), None) == 10
    assert before_the_last(lines, LogWish(), None) == before_the_last((), LogWish(), None) == 0
    taken, place = fitting(lines, warnings, 1)
    assert ([one.number for one in taken], place) == ([2], 3)


class Wire:
    """Where a service tells what it is asked for, and a server that may be away."""

    def __init__(self) -> None:
        self.told: dict[str, list[LogTold]] = {}
        self.away = False
        self._changed = asyncio.Event()

    async def tell(self, subject: str, body: bytes) -> bool:
        # As a real server's answer does.
        await asyncio.sleep(0)
        if not self.away:
            self.told.setdefault(subject, []).append(LogTold.model_validate_json(body))
        self._changed.set()
        return not self.away

    def numbers(self, token: str = TOKEN) -> list[int]:
        return [line.number for batch in self.of(token) for line in batch.lines]

    def of(self, token: str = TOKEN) -> list[LogTold]:
        return self.told.get(log_told("profiler", token), [])

    async def until(self, count: int, token: str = TOKEN) -> None:
        async with asyncio.timeout(SECONDS):
            while len(self.numbers(token)) < count:
                self._changed.clear()
                await self._changed.wait()

    async def answered(self, token: str) -> LogTold:
        async with asyncio.timeout(SECONDS):
            while not self.of(token):
                self._changed.clear()
                await self._changed.wait()
        return self.of(token)[-1]


@asynccontextmanager
async def answering(ring: LogRing) -> AsyncIterator[tuple[LogAnswers, Wire]]:
    wire = Wire()
    answers = LogAnswers(ring, "profiler", "site-a", wire.tell)
    running = asyncio.create_task(answers.run())
    try:
        yield answers, wire
    finally:
        running.cancel()
        await asyncio.wait([running])


def ask(token: str = TOKEN, **more: object) -> bytes:
    return LogAsk.model_validate({"token": token, **more}).model_dump_json().encode()


async def test_who_follows_is_told_what_comes_from_any_thread_and_what_was_lost_on_the_way() -> None:
    ring = LogRing()
    log = logging_into(ring)
    async with answering(ring) as (answers, wire):
        for number in range(5):
            log.info("line %d", number)
        answers.hear(ask(tail=2, follow=True))
        await wire.until(2)
        await asyncio.to_thread(log.info, "from a thread")
        await wire.until(3)
        assert wire.numbers() == [4, 5, 6] and wire.of()[0].whole
        wire.away = True
        log.info("nobody heard this")
        await asyncio.to_thread(log.info, "nor this")
        wire.away = False
        process = wire.of()[0].process
        answers.hear(ask(tail=2, follow=True, seen={process: 6}))
        await wire.until(5)
        assert wire.numbers() == [4, 5, 6, 7, 8]
        # Who asks again after another process told it all of its own, has heard nothing of this one.
        answers.hear(ask("b" * 32, seen={"another": 3}))
        await wire.until(8, "b" * 32)


async def test_who_is_too_slow_is_told_how_many_lines_are_gone() -> None:
    ring = LogRing(most_bytes=2000)
    log = logging_into(ring)
    async with answering(ring) as (answers, wire):
        log.info("first")
        answers.hear(ask(follow=True))
        await wire.until(1)
        for number in range(100):
            log.info("line %d", number)
        await wire.until(2)
        kept = ring.kept()
        assert sum(one.dropped for one in wire.of()) == kept[0].number - 2
        assert wire.numbers() == [1, *(one.number for one in kept)]


async def test_who_is_not_meant_or_one_too_many_is_told_so() -> None:
    async with answering(LogRing()) as (answers, wire):
        answers.hear(ask(whom="site-b"))
        assert (await wire.answered(TOKEN)).refused == "this is profiler of site-a"
        for number in range(MOST_ASKERS):
            answers.hear(ask(f"{number:032x}", follow=True))
            assert (await wire.answered(f"{number:032x}")).whole
        answers.hear(ask("f" * 32, follow=True))
        assert "others follow it already" in (await wire.answered("f" * 32)).refused
        answers.hear(b"{")
        answers.hear(b'{"token": "windfall.>"}')
        assert len(wire.told) == MOST_ASKERS + 2
