"""One token, one run: also for two commands at once, and after one that was killed."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from windfall.cli.once import Outcome, folder, once
from windfall.cli.preparation import Asked, same_run
from windfall.servicekit.errors import Mistake

ASKED = {"--flower-app": "/apps/adding", "-c": "num-server-rounds=3"}
SECONDS = 60.0
_HOLDER = """
import sys, time
from windfall.cli.once import Outcome, once
def work():
    print("working", flush=True)
    sys.stdin.readline()
    return Outcome(lines=("three rounds",))
asked = {"-c": "num-server-rounds=3", "--flower-app": "/apps/adding"}
once({"XDG_STATE_HOME": sys.argv[1]}, "nightly", asked, work, print)
"""


def never() -> Outcome:
    raise AssertionError("it was started twice")


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"XDG_STATE_HOME": str(tmp_path)}


def test_what_has_ended_is_told_again_and_not_started(environ: dict[str, str]) -> None:
    told: list[str] = []
    first = Outcome(lines=("3 rounds", "report  runs/1/report.html"), failed="the app has not come to its end")
    assert once(environ, "nightly", ASKED, lambda: first, told.append) == first
    assert told == []
    assert once(environ, "nightly", ASKED, never, told.append) == first
    assert told == ["the run nightly has ended before: nothing is started"]
    assert once(environ, "other", ASKED, lambda: Outcome(lines=()), told.append) == Outcome(lines=())


def test_a_token_stands_for_one_run_alone(environ: dict[str, str]) -> None:
    once(environ, "nightly", ASKED, lambda: Outcome(lines=()), print)
    with pytest.raises(Mistake, match=r"given to another run \(-c was .*=3. and is .*=4.\)"):
        once(environ, "nightly", {**ASKED, "-c": "num-server-rounds=4"}, never, print)
    for token in ("", "../nightly", "a b", "x" * 65):
        with pytest.raises(Mistake, match="cannot be a token"):
            once(environ, token, ASKED, never, print)


def test_what_came_to_nothing_is_done_anew_also_otherwise(environ: dict[str, str]) -> None:
    def fails() -> Outcome:
        raise Mistake("there is no app", "Name one")

    told: list[str] = []
    with pytest.raises(Mistake, match="there is no app"):
        once(environ, "nightly", {}, fails, told.append)
    assert once(environ, "nightly", ASKED, lambda: Outcome(lines=("done",)), told.append).lines == ("done",)
    assert told == ["the run nightly was broken off: it begins anew"]


@pytest.mark.parametrize("killed", [False, True])
def test_who_comes_while_it_runs_waits_for_it_and_takes_over_when_it_is_killed(
    environ: dict[str, str], tmp_path: Path, killed: bool
) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdin is not None
    assert holder.stdout.readline() == "working\n"
    found: list[Outcome] = []
    told: list[str] = []
    waits = threading.Event()

    def say(text: str) -> None:
        told.append(text)
        waits.set()

    second = threading.Thread(
        target=lambda: found.append(once(environ, "nightly", ASKED, lambda: Outcome(lines=("anew",)), say))
    )
    second.start()
    assert waits.wait(SECONDS)
    assert told == ["the run nightly is under way: waiting for it"]
    if killed:
        holder.kill()
    else:
        holder.stdin.write("\n")
        holder.stdin.flush()
    holder.wait(SECONDS)
    second.join(SECONDS)
    holder.stdin.close()
    holder.stdout.close()
    last = "was broken off: it begins anew" if killed else "has ended before: nothing is started"
    assert told[1:] == [f"the run nightly {last}"]
    assert found == [Outcome(lines=("anew",) if killed else ("three rounds",))]


def test_where_tokens_stand_and_what_makes_two_runs_the_same(tmp_path: Path) -> None:
    assert folder({"HOME": "/home/u", "XDG_STATE_HOME": "relative"}) == Path("/home/u/.local/state/windfall/runs")
    asked = Asked(flower_app=tmp_path, config=("a=1",), out=tmp_path / "one", port=4222)
    assert same_run(asked) == same_run(Asked(flower_app=tmp_path, config=("a=1",), out=tmp_path / "two"))
    assert same_run(asked) != same_run(Asked(flower_app=tmp_path, config=("a=2",)))
