"""Programs that hang, crash or babble: nothing of it reaches us but the words that say so."""

import sys
from datetime import timedelta
from pathlib import Path

import pytest

from windfall.profiler.child_process import Heard, hear
from windfall.profiler.discovery.files import read

LONG, SHORT = timedelta(seconds=60), timedelta(seconds=8)


def python(text: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", text]


@pytest.mark.parametrize(
    ("text", "within", "heard"),
    [
        pytest.param("print('well')", LONG, Heard("well\n"), id="well"),
        pytest.param(
            "import sys; print('some'); sys.exit('first\\nlast')",
            LONG,
            Heard("some\n", "last", "ended with code 1"),
            id="fails",
        ),
        pytest.param("import os; os.kill(os.getpid(), 11)", LONG, Heard("", "", "was ended by SIGSEGV"), id="crashes"),
        pytest.param(
            "import time; print('some', flush=True); time.sleep(600)",
            SHORT,
            Heard("some\n", "", "did not answer within 8 s"),
            id="hangs",
        ),
        pytest.param(
            "import time, sys; sys.stderr.write('x' * 10**6 + '\\nlast'); print('well')",
            LONG,
            Heard("well\n", "last"),
            id="complains-at-length",
        ),
    ],
)
async def test_what_is_heard(text: str, within: timedelta, heard: Heard) -> None:
    assert await hear(python(text), within) == heard


async def test_who_says_more_than_is_kept_is_ended() -> None:
    heard = await hear(python("while True: print('x' * 1000)"), LONG, most_bytes=10_000)
    assert len(heard.text) == 10_000
    assert heard.why == "said more than 10000 bytes"


async def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    heard = await hear([str(tmp_path / "none")], LONG)
    assert heard.absent
    assert heard.why == "is not installed"


async def test_a_program_that_may_not_be_started(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    heard = await hear([str(tmp_path / "text")], LONG)
    assert not heard.absent
    assert heard.why == "cannot be started (Permission denied)"


def test_a_line_that_was_cut_is_none() -> None:
    assert Heard('{"a": 1}\n{"b').lines == ['{"a": 1}']


async def test_files_are_read_with_the_reasons_of_those_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one").write_text("1\n")
    (tmp_path / "a" / "folder").mkdir()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "folder")
    files = await read(tmp_path, ["a/*", "a/link@", "b/*"], LONG)
    assert files.texts == {"a/one": "1", "a/link": "a/folder"}
    assert files.unread == {"a/folder": "Is a directory", "a/link": "Is a directory"}
    assert files.why == ""
    assert files.below("a") == ["link", "one"]
