"""A service's memory: all of a decision or none of it, whatever happens to the process and the disk."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, ConfigDict, field_serializer
from pydantic_core import PydanticSerializationError

from windfall.contracts.envelope import Letter, unseal
from windfall.contracts.events import WindowOpened
from windfall.contracts.message import derived_id
from windfall.servicekit import telemetry
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.journal import Journal

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SOURCE = "/windfall/energy-watcher/site-a"


class Count(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    value: int


class Other(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str


def opened(key: UUID | None = None) -> WindowOpened:
    return WindowOpened(
        id=key or uuid4(), at=NOON, site="site-a", window_id=uuid4(), intensity_g_per_kwh=20, expected_close_at=None
    )


def said(journal: Journal) -> list[str]:
    return [waiting.letter.id for waiting in journal.unsaid()]


@pytest.fixture(params=["file", "memory"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    found = Journal(tmp_path / "deep" / "down" / "j.sqlite" if request.param == "file" else None, SOURCE)
    yield found
    found.close()


def test_state_is_what_was_committed_last(journal: Journal) -> None:
    assert journal.load("count", Count) is None
    journal.commit(state={"count": Count(value=1), "other": Other(name="a")})
    journal.commit(state={"count": Count(value=2)})
    assert journal.load("count", Count) == Count(value=2)
    assert journal.load("other", Other) == Other(name="a")


def test_the_outbox_keeps_order_and_forgets_what_was_said(journal: Journal) -> None:
    windows = [opened() for _ in range(5)]
    journal.commit(say=windows[:2])
    journal.commit(say=windows[2:])
    assert said(journal) == [str(window.id) for window in windows]
    first, second = journal.unsaid(limit=2)
    assert [first.letter.id, second.letter.id] == [str(window.id) for window in windows[:2]]
    assert unseal(first.letter) == windows[0]
    assert first.letter.headers["ce-source"] == SOURCE
    journal.mark_said([first.position, second.position])
    assert said(journal) == [str(window.id) for window in windows[2:]]


def test_a_lost_bus_is_told_everything_in_the_old_order(journal: Journal) -> None:
    windows = [opened() for _ in range(3)]
    journal.commit(say=windows)
    journal.mark_said([waiting.position for waiting in journal.unsaid()])
    assert said(journal) == []
    journal.unsay_all()
    assert said(journal) == [str(window.id) for window in windows]


def test_the_same_sentence_is_not_said_again(journal: Journal) -> None:
    window = opened()
    journal.commit(say=[window, window])
    journal.mark_said([waiting.position for waiting in journal.unsaid()])
    journal.commit(say=[window])
    assert said(journal) == []


def test_a_cause_is_remembered(journal: Journal) -> None:
    cause = uuid4()
    assert not journal.heard(cause)
    journal.commit(heard=cause)
    journal.commit(heard=cause)
    assert journal.heard(cause)
    assert not journal.heard(uuid4())


def test_the_span_that_decided_is_the_parent_of_what_is_said(journal: Journal, spans: object) -> None:
    with telemetry.span("decide"):
        expected = telemetry.outgoing_trace()["traceparent"]
        journal.commit(say=[opened()])
    (waiting,) = journal.unsaid()
    assert waiting.letter.headers["traceparent"] == expected


class Unwritable(BaseModel):
    """Breaks in the middle of a commit."""

    value: int = 0

    @field_serializer("value")
    def _broken(self, value: int) -> int:
        raise ZeroDivisionError


def test_a_commit_that_breaks_keeps_nothing_and_the_next_one_works(journal: Journal) -> None:
    cause = uuid4()
    with pytest.raises(PydanticSerializationError):
        journal.commit(state={"count": Count(value=1), "bad": Unwritable()}, say=[opened()], heard=cause)
    assert journal.load("count", Count) is None
    assert said(journal) == []
    assert not journal.heard(cause)
    journal.commit(state={"count": Count(value=2)})
    assert journal.load("count", Count) == Count(value=2)


def test_state_of_another_version_is_a_mistake(journal: Journal) -> None:
    journal.commit(state={"count": Count(value=1)})
    with pytest.raises(Mistake, match="'count' that this version cannot read") as mistake:
        journal.load("count", Other)
    assert mistake.value.exit_code is ExitCode.RESOURCE
    assert "\n" not in str(mistake.value)


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    path, window, cause = tmp_path / "j.sqlite", opened(), uuid4()
    before = Journal(path, SOURCE)
    before.commit(state={"count": Count(value=7)}, say=[window], heard=cause)
    before.close()
    after = Journal(path, SOURCE)
    assert after.load("count", Count) == Count(value=7)
    assert said(after) == [str(window.id)]
    assert after.heard(cause)
    after.close()


def test_a_memory_journal_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    journal = Journal(None, SOURCE)
    journal.commit(state={"count": Count(value=1)})
    journal.close()
    assert list(tmp_path.iterdir()) == []


def test_a_commit_is_on_the_disk_before_it_returns(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite", SOURCE)
    assert journal._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert journal._db.execute("PRAGMA synchronous").fetchone() == (2,), "2 is FULL"
    journal.close()


COMMITTER = """
import sys
from pathlib import Path
from uuid import UUID
from libs.servicekit.tests.test_journal import Count, SOURCE, opened
from windfall.contracts.message import derived_id
from windfall.servicekit.journal import Journal

journal = Journal(Path(sys.argv[1]), SOURCE)
value = (journal.load("count", Count) or Count(value=0)).value
while True:
    value += 1
    cause = derived_id(str(value), "cause", "site-a")
    journal.commit(state={"count": Count(value=value)}, say=[opened(derived_id(cause, "said", "site-a"))], heard=cause)
    # Told only after the commit: whatever was told must be found again.
    sys.stdout.write(f"{value}\\n")
    sys.stdout.flush()
"""


def test_a_kill_between_two_commits_leaves_all_of_one_or_none(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    root = Path(__file__).parents[3]
    told = 0
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", COMMITTER, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        assert child.stdout is not None
        for _ in range(40):
            told = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split()
        child.wait()
        child.stdout.close()
        told = int(rest[-1]) if rest else told
        journal = Journal(path, SOURCE)
        count = journal.load("count", Count)
        assert count is not None
        # The last commit may have been kept without being told of.
        assert count.value in (told, told + 1)
        causes = [derived_id(str(value), "cause", "site-a") for value in range(1, count.value + 1)]
        assert all(journal.heard(cause) for cause in causes)
        assert not journal.heard(derived_id(str(count.value + 1), "cause", "site-a"))
        waiting = journal.unsaid(limit=100_000)
        assert [entry.letter.id for entry in waiting] == [str(derived_id(cause, "said", "site-a")) for cause in causes]
        journal.close()


def test_a_full_disk_is_a_mistake_and_keeps_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite", SOURCE)
    journal.commit(state={"count": Count(value=1)}, say=[opened()])
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count = {pages}")
    cause = uuid4()
    with pytest.raises(Mistake, match="full") as mistake:
        journal.commit(state={"count": Count(value=2), "big": Other(name="x" * 100_000)}, say=[opened()], heard=cause)
    assert mistake.value.exit_code is ExitCode.DISK_FULL
    assert journal.load("count", Count) == Count(value=1)
    assert journal.load("big", Other) is None
    assert len(said(journal)) == 1
    assert not journal.heard(cause)
    journal._db.execute(f"PRAGMA max_page_count = {pages + 1000}")
    journal.commit(state={"count": Count(value=3)}, heard=cause)
    assert journal.load("count", Count) == Count(value=3)
    journal.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False, capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("a small disk can only be mounted by root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def filled(disk: Path) -> Path:
    """Take all the room that is left."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


def test_a_really_full_disk_is_a_mistake_and_the_journal_goes_on_when_there_is_room(small_disk: Path) -> None:
    journal = Journal(small_disk / "j.sqlite", SOURCE)
    journal.commit(state={"count": Count(value=0)})
    ballast = filled(small_disk)
    value = 0
    with pytest.raises(Mistake) as mistake:
        while True:
            journal.commit(state={"count": Count(value=value + 1)}, say=[opened()])
            value += 1
    assert mistake.value.exit_code is ExitCode.DISK_FULL
    assert journal.load("count", Count) == Count(value=value)
    assert len(journal.unsaid(limit=10_000)) == value
    ballast.unlink()
    journal.commit(state={"count": Count(value=value + 1)})
    journal.close()
    filled(small_disk)
    with pytest.raises(Mistake, match="full") as mistake:
        Journal(small_disk / "j.sqlite", SOURCE)
    assert mistake.value.exit_code is ExitCode.DISK_FULL
    ballast.unlink()
    again = Journal(small_disk / "j.sqlite", SOURCE)
    assert again.load("count", Count) == Count(value=value + 1)
    again.close()


def test_a_disk_that_is_full_at_start_is_a_mistake(small_disk: Path) -> None:
    filled(small_disk)
    with pytest.raises(Mistake) as mistake:
        Journal(small_disk / "j.sqlite", SOURCE)
    assert mistake.value.exit_code is ExitCode.DISK_FULL


def test_a_folder_that_cannot_be_made_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(Mistake, match="WINDFALL_STATE_DIR") as mistake:
        Journal(tmp_path / "file" / "j.sqlite", SOURCE)
    assert mistake.value.exit_code is ExitCode.RESOURCE


def test_a_file_that_is_no_journal_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    path.write_bytes(b"this was never a database" * 1000)
    with pytest.raises(Mistake, match="cannot be used") as mistake:
        Journal(path, SOURCE)
    assert mistake.value.exit_code is ExitCode.RESOURCE
    assert path.read_bytes().startswith(b"this was never")


def test_a_damaged_file_is_a_mistake_at_once(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    journal = Journal(path, SOURCE)
    for _ in range(300):
        journal.commit(say=[opened()], heard=uuid4())
    journal.close()
    content = bytearray(path.read_bytes())
    # Every page but the first, which holds the schema: what a bad sector leaves.
    for page in range(4096, len(content), 4096):
        content[page : page + 64] = os.urandom(64)
    path.write_bytes(content)
    with pytest.raises(Mistake, match="cannot be used") as mistake:
        Journal(path, SOURCE)
    assert mistake.value.exit_code is ExitCode.RESOURCE
    assert "\n" not in str(mistake.value)


def test_damage_that_comes_later_is_a_mistake_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    journal = Journal(path, SOURCE)
    journal.commit(state={"count": Count(value=1)})
    rival = sqlite3.connect(path)
    rival.execute("DROP TABLE state")
    rival.commit()
    rival.close()
    with pytest.raises(Mistake, match="cannot be used"):
        journal.load("count", Count)
    with pytest.raises(Mistake, match="cannot be used"):
        journal.commit(state={"count": Count(value=2)})
    journal.close()


async def test_a_journal_may_be_used_from_a_thread(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite", SOURCE)
    await asyncio.to_thread(journal.commit, state={"count": Count(value=1)})
    assert journal.load("count", Count) == Count(value=1)
    journal.close()


def test_a_letter_comes_out_of_the_outbox_as_it_went_in(journal: Journal) -> None:
    window = opened()
    journal.commit(say=[window])
    (waiting,) = journal.unsaid()
    assert isinstance(waiting.letter, Letter)
    assert waiting.letter.body == window.model_dump_json().encode()


# --- fencing ----------------------------------------------------------------------------------------------------------


def test_who_slept_through_its_lease_cannot_commit(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    old, new = Journal(path, "/test", shared=True), Journal(path, "/test", shared=True)
    try:
        assert old.fenced_at == 0
        old.fence(3)
        old.commit(heard=uuid4())
        new.fence(4)
        late = uuid4()
        for attempt in (lambda: old.commit(heard=late), lambda: old.mark_said([1]), old.unsay_all):
            with pytest.raises(Mistake, match="has taken over"):
                attempt()
        assert not new.heard(late)
        new.commit(heard=late)
        assert new.heard(late)
    finally:
        old.close()
        new.close()


@pytest.mark.parametrize("token", [2, 3])
def test_a_token_that_is_not_higher_is_refused(token: int, tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    one, two = Journal(path, "/test", shared=True), Journal(path, "/test", shared=True)
    try:
        one.fence(3)
        with pytest.raises(Mistake, match="has taken over"):
            two.fence(token)
        one.commit(heard=uuid4())
    finally:
        one.close()
        two.close()


def test_a_shared_journal_needs_no_shared_memory_and_goes_on_from_one_that_was_not(tmp_path: Path) -> None:
    path, message = tmp_path / "journal.sqlite", uuid4()
    for shared in (False, True, False):
        journal = Journal(path, "/test", shared=shared)
        assert journal.heard(message) is (shared or journal.fenced_at > 0)
        journal.commit(heard=message)
        if shared:
            journal.fence(journal.fenced_at + 1)
            assert {one.name for one in tmp_path.iterdir()} == {"journal.sqlite"}
        journal.close()


def test_what_keeps_the_next_decision_from_the_disk_is_seen_before_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "service.sqlite"
    journal = Journal(path, "/windfall/test")
    assert journal.trouble() == ""
    path.unlink()
    assert journal.trouble() == f"the journal {path} is gone"
    journal.close()
    assert Journal(None, "/windfall/test").trouble() == ""
