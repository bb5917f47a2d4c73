"""Crash points: where they are named a process dies as by ``kill -9``, and nowhere else."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from windfall.servicekit import crashpoint
from windfall.servicekit.errors import Mistake

OWN = {"merge.base-written": "The next base lies under its name."}

PROGRAM = """
import atexit, sys
from windfall.servicekit.crashpoint import arm, reach

atexit.register(print, "left in good order", flush=True)
arm(sys.argv[1], {"merge.base-written": ""})
try:
    for turn in range(3):
        print(turn, flush=True)
        reach("merge.base-written")
finally:
    print("tidied up", flush=True)
"""


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    crashpoint.arm("", {})


@pytest.mark.parametrize(
    ("told", "printed", "ended"),
    [
        ("merge.base-written", "0", -signal.SIGKILL),
        (" outbox.unsaid, merge.base-written:3,", "0 1 2", -signal.SIGKILL),
        ("merge.base-written:4", "0 1 2 tidied up left in good order", 0),
        ("", "0 1 2 tidied up left in good order", 0),
    ],
)
def test_it_dies_where_it_is_told_to_and_nothing_is_tidied_up(told: str, printed: str, ended: int) -> None:
    run = subprocess.run([sys.executable, "-c", PROGRAM, told], capture_output=True, text=True)
    assert (run.stdout.split(), run.returncode) == (printed.split(), ended)


@pytest.mark.parametrize(
    ("told", "said"), [("merge.nowhere", "never comes by"), ("outbox.unsaid:0", "Count"), ("outbox.unsaid:x", "Count")]
)
def test_a_place_that_does_not_exist_is_a_mistake(told: str, said: str) -> None:
    with pytest.raises(Mistake, match=said):
        crashpoint.arm(told, OWN)


def test_every_place_of_the_kit_is_in_its_code_and_the_other_way_round() -> None:
    folder = Path(crashpoint.__file__).parent
    reached = {name for path in folder.glob("*.py") for name in re.findall(r'reach\("([a-z.-]+)"\)', path.read_text())}
    assert reached == set(crashpoint.KIT)
