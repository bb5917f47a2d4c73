"""Where a document leads to is there: pages, places in them, pictures, and files that it names."""

import re
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.documents.page import ROOT, documents, page

PAGES = documents()
NAMED = re.compile(r"(?:libs|services|tests|deploy|docs|proto)/[\w./-]+")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    lost = []
    for link in page(path).links:
        url = urlsplit(link)
        if url.scheme:
            continue
        target = (path.parent / url.path).resolve() if url.path else path
        there = target.exists() and target.is_relative_to(ROOT)
        if not there or (url.fragment and target.suffix == ".md" and url.fragment not in page(target).anchors):
            lost.append(link)
    assert not lost


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_files_that_a_page_names_are_there(path: Path) -> None:
    named = {code for code in page(path).code if NAMED.fullmatch(code)}
    assert not sorted(name for name in named if not (ROOT / name).exists())


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_tests_that_a_page_names_are_there(path: Path) -> None:
    there = {found.name for folder in ("libs", "services", "tests") for found in (ROOT / folder).rglob("test_*.py")}
    named = {word for code in page(path).code for word in re.findall(r"\btest_\w+\.py\b", code)}
    assert named <= there
