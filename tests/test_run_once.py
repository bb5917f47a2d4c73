"""``windfall run`` on real processes: how it ends when the trace is over before the app, and what a token does."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.commanded import ran
from windfall.servicekit.errors import ExitCode

APP = Path(__file__).parent / "flower_apps" / "adding"

pytestmark = pytest.mark.slow


async def test_an_app_that_has_not_come_to_its_end_is_told_once_and_again(tmp_path: Path) -> None:
    # An hour in which no window opens: the app waits for nodes, and nothing is trained.
    begins = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [f"{(begins + timedelta(minutes=5 * step)).isoformat()},500" for step in range(13)]
    trace = tmp_path / "trace.csv"
    trace.write_text("\n".join(["point_time,site-a", *rows]) + "\n")
    command = ("run", "--flower-app", str(APP), "--trace", str(trace), "--plain", "--token", "nightly")
    state = {"XDG_STATE_HOME": str(tmp_path / "state")}
    code, out, err = await ran(*command, "--out", str(tmp_path / "one"), **state)
    assert code == ExitCode.FAILED, err
    assert "windfall: the trace is over, and the app has not come to its end. " in err
    assert "0 rounds, " in out and str(tmp_path / "one" / "report.html") in out

    again, told, err = await ran(*command, "--out", str(tmp_path / "two"), **state)
    assert (again, told) == (code, out)
    assert "the run nightly has ended before: nothing is started" in err
    assert not (tmp_path / "two").exists()
