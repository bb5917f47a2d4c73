"""What is committed is said: in order, until it is acknowledged, and again when the bus forgot."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from windfall.contracts.envelope import Letter, seal
from windfall.contracts.events import WindowOpened
from windfall.servicekit.errors import ExitCode, Mistake, Poison, Transient
from windfall.servicekit.journal import Journal
from windfall.servicekit.outbox import Outbox
from windfall.servicekit.testing.virtual import run_virtual

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


class Mouth:
    """A bus's speaking half that can be told to fail."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.identity = "first"
        self.failures: list[Exception] = []
        self.lost: dict[str, Exception] = {}
        """What becomes of a letter the next time that it is said, by its id."""
        self.looks = 0
        self.batches: list[int] = []
        """How many letters were to be stored at once, whenever something was said."""

    async def publish(self, letter: Letter) -> None:
        self.batches.append(1)
        await self._take(letter)

    async def publish_all(self, letters: Sequence[Letter]) -> None:
        self.batches.append(len(letters))
        for letter in letters:
            await self._take(letter)

    async def _take(self, letter: Letter) -> None:
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        if letter.id in self.lost:
            raise self.lost.pop(letter.id)
        self.said.append(letter.id)

    async def store_identity(self) -> str:
        self.looks += 1
        if self.identity == "":
            raise Transient("nobody answers")
        return self.identity


def windows(count: int) -> list[WindowOpened]:
    return [
        WindowOpened(
            id=uuid4(), at=NOON, site="site-a", window_id=uuid4(), intensity_g_per_kwh=20, expected_close_at=None
        )
        for _ in range(count)
    ]


def ids(said: list[WindowOpened]) -> list[str]:
    return [str(window.id) for window in said]


Scene = Callable[[Journal, Mouth, Outbox], Awaitable[None]]


def play(scene: Scene, journal: Journal | None = None) -> Mouth:
    """A scene with a running outbox, on virtual time."""

    async def run() -> Mouth:
        memory = journal or Journal(None, "/windfall/test")
        mouth = Mouth()
        outbox = Outbox(memory, mouth)
        pumping = asyncio.create_task(outbox.run())
        async with asyncio.timeout(3600):
            await scene(memory, mouth, outbox)
        pumping.cancel()
        await asyncio.gather(pumping, return_exceptions=True)
        if journal is None:
            memory.close()
        return mouth

    return run_virtual(run())


async def lost(journal: Journal, mouth: Mouth, outbox: Outbox, before: list[WindowOpened]) -> None:
    """Everything is said, and then its store is another one."""
    journal.commit(say=before)
    outbox.wake()
    await outbox.emptied()
    mouth.identity, mouth.said, mouth.batches = "second", [], []


def test_everything_is_said_in_order_and_marked() -> None:
    sentences = windows(250)

    async def scene(journal: Journal, mouth: Mouth, outbox: Outbox) -> None:
        journal.commit(say=sentences[:100])
        outbox.wake()
        journal.commit(say=sentences[100:])
        outbox.wake()
        await outbox.emptied()
        assert journal.unsaid() == ()

    assert play(scene).said == ids(sentences)


def test_what_was_unsaid_before_the_start_is_said() -> None:
    sentences = windows(3)

    async def scene(journal: Journal, mouth: Mouth, outbox: Outbox) -> None:
        await outbox.emptied()

    journal = Journal(None, "/windfall/test")
    journal.commit(say=sentences)
    assert play(scene, journal).said == ids(sentences)
    journal.close()


def test_a_silent_bus_is_tried_until_it_hears_and_nothing_overtakes() -> None:
    sentences = windows(4)

    async def scene(journal: Journal, mouth: Mouth, outbox: Outbox) -> None:
        mouth.failures = [Transient("away"), Transient("away", timedelta(minutes=5)), Transient("away")]
        journal.commit(say=sentences)
        outbox.wake()
        await outbox.emptied()
        # Half a second, five minutes as it was told, half a second.
        assert asyncio.get_running_loop().time() == pytest.approx(301)

    assert play(scene).said == ids(sentences)


def test_a_sentence_that_can_never_be_said_does_not_stop_the_rest(caplog: pytest.LogCaptureFixture) -> None:
    sentences = windows(3)

    async def scene(journal: Journal, mouth: Mouth, outbox: Outbox) -> None:
        mouth.failures = [Poison("too large")]
        journal.commit(say=sentences)
        outbox.wake()
        await outbox.emptied()
        assert journal.unsaid() == ()

    assert play(scene).said == ids(sentences[1:])
    assert "too large" in caplog.text


def test_waiting_is_said_aloud_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scene(journal: Journal, mouth: Mouth, outbox: Outbox) -> None:
        mouth.failures = [Transient("away") for _ in range(50)]
        journal.commit(say=windows(1))
        outbox.wake()
        await outbox.emptied()

    play(scene)
    assert [record.levelname for record in caplog.records if "outbox waits" in record.message] == ["WARNING"]


def test_a_new_store_is_told_everything_again() -> None:
    before, after = windows(3), windows(1)

    async def scene(journal: Journal, mouth: Mouth, outbox: Outbox) -> None:
        journal.commit(say=before)
        outbox.wake()
        await outbox.emptied()
        mouth.identity = "second"
        journal.commit(say=after)
        outbox.recheck()
        await outbox.emptied()

    assert play(scene).said == ids([*before, *before, *after])


def test_what_a_new_store_is_told_again_goes_in_batches_and_what_is_new_word_by_word() -> None:
    before, after = windows(250), windows(3)

    async def scene(journal: Journal, mouth: Mouth, outbox: Outbox) -> None:
        journal.commit(say=before)
        outbox.wake()
        await outbox.emptied()
        assert mouth.batches == [1] * 250
        mouth.identity, mouth.batches = "second", []
        outbox.recheck()
        journal.commit(say=after[:1])
        await outbox.emptied()
        journal.commit(say=after[1:])
        outbox.wake()
        await outbox.emptied()
        assert mouth.batches == [100, 100, 50, 1, 1, 1]

    assert play(scene).said == ids([*before, *before, *after])


def test_a_batch_that_was_not_acknowledged_is_said_once_more_before_what_is_new() -> None:
    before, after = windows(5), windows(1)
    said = ids(before)

    async def scene(journal: Journal, mouth: Mouth, outbox: Outbox) -> None:
        await lost(journal, mouth, outbox, before)
        mouth.lost = {said[2]: Transient("away")}
        outbox.recheck()
        journal.commit(say=after)
        await outbox.emptied()

    # What was stored before it went wrong comes twice, under ids that the store knows.
    assert play(scene).said == [*said[:2], *said, *ids(after)]


def test_of_a_batch_only_what_can_never_be_said_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    before = windows(4)
    said = ids(before)

    async def scene(journal: Journal, mouth: Mouth, outbox: Outbox) -> None:
        await lost(journal, mouth, outbox, before)
        mouth.failures = [Poison("one of them is too large")]
        mouth.lost = {said[1]: Poison("too large")}
        outbox.recheck()
        await outbox.emptied()
        assert journal.unsaid() == ()

    assert play(scene).said == [said[0], said[2], said[3]]
    assert [record.message.rpartition(": ")[2] for record in caplog.records if record.levelname == "ERROR"] == [
        "too large"
    ]


def test_a_batch_is_no_longer_than_a_client_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    before = windows(4)
    room = 2 * len(seal(before[0], "/windfall/test").body)
    monkeypatch.setattr("windfall.servicekit.outbox._BATCH_BYTES", room)

    async def scene(journal: Journal, mouth: Mouth, outbox: Outbox) -> None:
        await lost(journal, mouth, outbox, before)
        outbox.recheck()
        await outbox.emptied()
        assert mouth.batches == [2, 2]

    play(scene)


def test_the_same_store_is_told_nothing_again() -> None:
    before = windows(3)

    async def scene(journal: Journal, mouth: Mouth, outbox: Outbox) -> None:
        journal.commit(say=before)
        outbox.wake()
        await outbox.emptied()
        outbox.recheck()
        await outbox.emptied()
        assert mouth.looks == 2

    assert play(scene).said == ids(before)


def test_a_store_that_changed_while_the_service_was_down_is_told_everything(tmp_path: Path) -> None:
    sentences = windows(2)

    async def first(journal: Journal, mouth: Mouth, outbox: Outbox) -> None:
        journal.commit(say=sentences)
        outbox.wake()
        await outbox.emptied()

    async def second(journal: Journal, mouth: Mouth, outbox: Outbox) -> None:
        mouth.identity = "second"
        outbox.wake()
        await outbox.emptied()

    journal = Journal(tmp_path / "j.sqlite", "/windfall/test")
    assert play(first, journal).said == ids(sentences)
    journal.close()
    journal = Journal(tmp_path / "j.sqlite", "/windfall/test")
    # Its identity is still the first one's: that this outbox looks before its first word is what is tested.
    assert play(second, journal).said == ids(sentences)
    journal.close()


def test_nothing_is_said_into_a_store_that_cannot_be_recognised() -> None:
    sentences = windows(1)

    async def scene(journal: Journal, mouth: Mouth, outbox: Outbox) -> None:
        mouth.identity = ""
        journal.commit(say=sentences)
        outbox.wake()
        await asyncio.sleep(60)
        assert mouth.said == []
        mouth.identity = "first"
        await outbox.emptied()

    assert play(scene).said == ids(sentences)


def test_empty_means_that_what_was_committed_is_said() -> None:
    async def scene(journal: Journal, mouth: Mouth, outbox: Outbox) -> None:
        await outbox.emptied()
        sentences = windows(1)
        journal.commit(say=sentences)
        outbox.wake()
        await outbox.emptied()
        assert mouth.said == ids(sentences)

    play(scene)


def test_a_journal_that_breaks_ends_the_outbox() -> None:
    async def scene() -> None:
        journal = Journal(None, "/windfall/test")
        outbox = Outbox(journal, Mouth())
        journal.commit(say=windows(1))
        journal._db.execute("DROP TABLE outbox")
        with pytest.raises(Mistake) as mistake:
            await outbox.run()
        assert mistake.value.exit_code is ExitCode.RESOURCE
        journal.close()

    run_virtual(scene())
