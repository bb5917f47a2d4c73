"""The API's reference is generated from the docstrings without a warning. ``make reference`` builds all of it."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.documents.page import ROOT

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
(MODULES,) = re.findall(r"^REFERENCE := (.*)$", MAKEFILE, flags=re.MULTILINE)
LIGHT = ("windfall.contracts", "!windfall.contracts.v1", "windfall.energy", "windfall.energy_watcher.provider")
"""What needs no torch; the rest is ``make reference``'s."""


def build(folder: Path, *modules: str) -> None:
    command = [sys.executable, "-W", "error", "-m", "pdoc", "--docformat", "google", "--output-directory", str(folder)]
    subprocess.run([*command, *modules], check=True, cwd=ROOT)


@pytest.mark.skipif(find_spec("pdoc") is None, reason="no pdoc here: `make setup` installs it")
def test_the_reference_is_built_without_a_warning(tmp_path: Path) -> None:
    build(tmp_path, *LIGHT)
    page = (tmp_path / "windfall" / "contracts" / "events.html").read_text(encoding="utf-8")
    assert "a value of a site's signal, said by a person" in page.replace("&#39;", "'").replace("&#x27;", "'")
    assert not (tmp_path / "windfall" / "contracts" / "v1.html").exists()


def test_every_package_that_people_import_is_in_it() -> None:
    named = {word.split(".")[1] for word in MODULES.split() if not word.startswith("!")}
    assert named == {"contracts", "energy", "lowcomm", "tasks", "servicekit", "energy_watcher", "flower_adapter"}
