"""A machine that is slow gets a longer day."""

import sys
from datetime import timedelta

import pytest

from windfall.cli import stretch
from windfall.cli.fleet import DAY, FAST, Pace
from windfall.cli.stretch import MOST, stretched

HALF_A_SECOND = (sys.executable, "-c", "import time; time.sleep(0.5)")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy this machine is, it keeps up."""
    monkeypatch.setattr(stretch, "NOMINAL", timedelta(hours=1))


async def test_a_machine_that_keeps_up_has_the_usual_day(patient: None) -> None:
    assert await stretched((sys.executable, "-c", "pass")) == 1.0


async def test_a_slow_machine_has_a_longer_one_within_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stretch, "NOMINAL", timedelta(seconds=0.2))
    assert 2.5 <= await stretched(HALF_A_SECOND) <= MOST
    monkeypatch.setattr(stretch, "NOMINAL", timedelta(milliseconds=1))
    assert await stretched(HALF_A_SECOND) == MOST


async def test_what_fails_to_load_is_for_the_trainers_to_say(patient: None) -> None:
    assert await stretched((sys.executable, "-c", "import no_such_module")) == 1.0


@pytest.mark.parametrize("pace", [DAY, FAST])
def test_a_longer_day_is_the_same_day(pace: Pace) -> None:
    longer = pace.stretched(3)
    assert longer.business(longer.round_length) == pace.business(pace.round_length)
    assert longer.business(longer.drain) == pace.business(pace.drain)
    assert longer.drain == 3 * pace.drain
    assert pace.stretched(1) == pace
