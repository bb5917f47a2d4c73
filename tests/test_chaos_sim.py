"""Some hundred schedules of faults on a fleet in one process; ``make chaos-sim`` runs thousands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.faults import KINDS, drawn
from tests.chaos.verdict import shrunk, tried

ROOT = Path(__file__).resolve().parents[1]
SCHEDULES = os.environ.get("WINDFALL_SCHEDULES", "500")


def test_a_seed_is_a_schedule() -> None:
    assert drawn(7) == drawn(7) != drawn(8)
    assert {fault.kind for seed in range(200) for fault in drawn(seed)} == set(KINDS)


def test_the_same_schedule_is_the_same_run() -> None:
    assert tried(5, drawn(5)) == tried(5, drawn(5))


def test_a_violation_is_shrunk_to_what_it_takes() -> None:
    schedule = drawn(0)
    needed = {schedule[1], schedule[4]}

    def fails(fewer: object) -> bool:
        assert isinstance(fewer, tuple)
        return needed <= set(fewer)

    assert set(shrunk(schedule, fails)) == needed


@pytest.mark.timeout(1500)
def test_nothing_is_lost_whatever_breaks() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos_sim", "--schedules", SCHEDULES],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
