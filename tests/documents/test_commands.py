"""Every command that a document names can be typed."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.documents.commands import typed, wrong
from tests.documents.page import ROOT, documents, page
from windfall.cli.__main__ import windfall

PAGES = [path for path in documents() if "adr" not in path.parts]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, flags=re.MULTILINE))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_windfall_has_the_commands_and_options_that_a_page_types(path: Path) -> None:
    said = {told for words in typed(page(path), "windfall") if (told := wrong(windfall, words))}
    assert not said


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_make_has_the_targets_that_a_page_types(path: Path) -> None:
    named = {word for words in typed(page(path), "make") for word in words[:1] if re.fullmatch(r"[a-z][a-z-]*", word)}
    benches = {f"bench-{found.stem.removeprefix('bench_')}" for found in (ROOT / "tests/bench").glob("bench_*.py")}
    assert named <= TARGETS | benches


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_what_a_page_has_pytest_run_is_there(path: Path) -> None:
    words = [
        word for words in typed(page(path), "pytest") for word in words if "/" in word and not word.startswith("-")
    ]
    assert not [word for word in words if not (ROOT / word.partition("::")[0]).exists()]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_modules_that_a_page_starts_are_there(path: Path) -> None:
    words = [words[1] for words in typed(page(path), "python") if words[0] == "-m" and "<" not in words[1]]
    assert not [module for module in words if find_spec(module) is None]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("simulate --trace FILE.csv --policy all", None),
        ("demo [--fast] [--trace FILE.csv]", None),
        ("get|describe|watch sites|rounds", None),
        ("get|ponder sites", "`windfall` has no 'ponder'"),
        ("events publish window.opened --forever", "`windfall events publish` has no option --forever"),
        ("simulate --policy everything", "`windfall simulate --policy` cannot be 'everything'"),
    ],
)
def test_a_command_that_there_is_not_is_found_out(words: str, says: str | None) -> None:
    assert wrong(windfall, words.split()) == says
