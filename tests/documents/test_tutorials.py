"""Every tutorial is done from its first line to its last: real servers, real processes, and a double of Kubernetes'."""

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.documents.page import ROOT, Page, page
from tests.documents.terminal import Desk, Differs, Printed
from windfall.servicekit.natsserver import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TUTORIALS: Final = sorted((ROOT / "docs" / "tutorials").glob("*.md"))


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_does_what_it_says(path: Path, tmp_path: Path) -> None:
    tutorial = page(path)
    if tutorial.trains and not os.environ.get("WINDFALL_TUTORIALS"):
        pytest.skip(f"it trains, {tutorial.trains}: `make tutorials` does it")
    if absent := [name for name in tutorial.needs if not shutil.which(name)]:
        pytest.skip(f"no {' and no '.join(absent)} here")
    names = {name: str(free_port()) if value == "port" else value for name, value in tutorial.tested_with.items()}
    with Desk(tmp_path / "desk", environ(tmp_path)) as desk:
        (desk.folder / "deploy").symlink_to(ROOT / "deploy")
        work_through(tutorial, names, desk)


def work_through(tutorial: Page, names: Mapping[str, str], desk: Desk) -> None:
    """Do what the page says.

    Raises:
        Differs: it is not as the page says; with the line.
    """
    last: Printed | None = None
    for snippet in tutorial.snippets:
        text = known_here(snippet.text, names)
        try:
            match snippet.role:
                case "file":
                    desk.write(snippet.options["file"], text)
                case "type":
                    last = desk.type(text, int(snippet.options.get("ends", "0")))
                case "terminal":
                    last = desk.open(text)
                case "output":
                    compare(last, text)
                case "shown":
                    last = None
        except Differs as differs:
            where = f"{tutorial.path.relative_to(ROOT)}:{snippet.line}"
            raise Differs(f"{where}: {differs}\n\n{desk.others()}") from None


def compare(printed: Printed | None, wanted: str) -> None:
    if printed is None:
        return
    lines = [line for line in wanted.splitlines() if line.strip()]
    if (line := printed.until(lines)) is not None:
        raise Differs(f"it does not print {line!r}, but:\n" + "\n".join(printed.lines))


def known_here(text: str, names: Mapping[str, str]) -> str:
    """The page's text with its names as they are on this machine."""
    for name, here in names.items():
        text = text.replace(name, here)
    return text


def environ(folder: Path) -> dict[str, str]:
    """A person's shell after ``make setup`` with ``.venv/bin`` in front; what is installed goes to a folder beside."""
    installed = folder / "installed"
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], str(programs(folder))]),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "1",
        "PIP_TARGET": str(installed),
        "PIP_NO_DEPS": "true",
        # pip reads this the other way round: 0 is to build without isolation, and so without a network.
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_DISABLE_PIP_VERSION_CHECK": "true",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PYTHONPATH": str(installed),
        "PYTHONUNBUFFERED": "1",
    }


def programs(folder: Path) -> Path:
    """What stands in for a program that a page needs and this machine may lack, on the same engine."""
    there = folder / "programs"
    there.mkdir(exist_ok=True)
    helm = there / "helm"
    helm.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("helm.py")} "$@"\n', encoding="utf-8")
    helm.chmod(0o755)
    return there


def test_there_is_no_snippet_of_which_nobody_knows_what_to_do_with_it() -> None:
    """A snippet is typed, saved or compared, or the page says why it is only shown."""
    strange = [
        f"{path.name}:{snippet.line}: a fence of {snippet.language or 'nothing'}"
        for path in TUTORIALS
        for snippet in page(path).snippets
        if snippet.role == "shown" and snippet.not_run is None
    ]
    assert not strange


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```sh\nexit 3\n```\n", "page.md:2: it ends with 3 instead of 0"),
        ("```sh\necho one two\n```\n\n```text output\none three\n```\n", "page.md:6: it does not print 'one three'"),
        ("```sh terminal\necho up; exit 1\n```\n\n```text output\nready\n```\n", "it does not print 'ready'"),
        ("```sh\nnohup sleep 600 >/dev/null 2>&1 &\n```\n", "1 processes go on running"),
    ],
    ids=["code", "output", "terminal", "left"],
)
def test_a_page_that_lies_is_found_out(text: str, complaint: str, tmp_path: Path) -> None:
    path = ROOT / "page.md"
    lie = tmp_path / "page.md"
    lie.write_text(text, encoding="utf-8")
    told = page(lie)
    told = Page(**{**vars(told), "path": path})
    with pytest.raises(Differs) as caught, Desk(tmp_path / "desk", environ(tmp_path)) as desk:
        work_through(told, {}, desk)
    assert complaint in str(caught.value)


def test_a_terminal_remembers_what_was_typed_in_it(tmp_path: Path) -> None:
    lines = "```sh\nexport SUN=noon\nmkdir deep && cd deep\n```\n\n```text file=note\n$SUN\n```\n\n"
    lines += "```sh ends=4\necho it is $SUN in $(basename $PWD); test -f note && exit 4\n```\n\n"
    lines += "```text output\nit is … in deep\n```\n"
    (tmp_path / "page.md").write_text(lines, encoding="utf-8")
    with Desk(tmp_path / "desk", environ(tmp_path)) as desk:
        work_through(Page(**{**vars(page(tmp_path / "page.md")), "path": ROOT / "page.md"}), {}, desk)
