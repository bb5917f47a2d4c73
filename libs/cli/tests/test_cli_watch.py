"""What the live view knows, event by event."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from rich.console import Console

from windfall.cli.live import MOST_LINES, Lanes, Plain, board, size, sparks, timeline
from windfall.cli.recording import Said
from windfall.cli.watch import Fleet, Lane, Span, fleet, hear, tell
from windfall.contracts.events import (
    FederationFinished,
    NodeReady,
    SiteDrained,
    TrainingStarted,
    WindowExpected,
    WindowOpened,
    WindowWithdrawn,
)

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
SITES = ("site-a", "site-b", "site-c")


def _after(said: Sequence[Said], last: type | None = None) -> Fleet:
    """The fleet after everything, or after the first event of a kind."""
    state = fleet(SITES, 960.0)
    for sentence in said:
        state = hear(state, sentence.message)
        if last is not None and isinstance(sentence.message, last):
            break
    return state


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (WindowOpened, ("open", "–", "–")),
        (NodeReady, ("open", "ready", "–")),
        (TrainingStarted, ("open", "ready", "training")),
        (SiteDrained, ("dark", "ready", "drained")),
        (None, ("dark", "released", "–")),
    ],
    ids=["opened", "ready", "training", "drained", "end"],
)
def test_a_lane_lives(recorded: Sequence[Said], last: type | None, expected: tuple[str, str, str]) -> None:
    lane = _after(recorded, last).lanes["site-a"]
    assert (lane.window, lane.node, lane.training) == expected


def test_a_lane_is_warm_before_its_window_opens() -> None:
    window = UUID(int=1)
    about: dict[str, Any] = {"id": UUID(int=2), "at": MIDNIGHT, "site": "site-a", "window_id": window}
    expected = WindowExpected(**about, opens_at=MIDNIGHT, expected_close_at=None, confidence=0.9)
    ready = NodeReady(**about, lease_id=window, lease_token=1, node="site-a-1", backend="process")
    opened = WindowOpened(**about, intensity_g_per_kwh=20, expected_close_at=None)
    withdrawn = WindowWithdrawn(**about)
    state, seen = fleet(SITES, 1.0), []
    for message in (expected, ready, opened, expected, withdrawn):
        state = hear(state, message)
        seen.append((state.lanes["site-a"].window, state.lanes["site-a"].node))
    assert seen == [("expected", "–"), ("expected", "warm"), ("open", "ready"), ("open", "ready"), ("open", "ready")]
    lane = hear(hear(fleet(SITES, 1.0), expected), withdrawn).lanes["site-a"]
    assert lane == Lane("site-a")


def test_the_fleet_adds_up(recorded: Sequence[Said]) -> None:
    state = _after(recorded)
    assert state.rounds_completed == 5
    assert state.tokens == 100_000
    assert state.held_out[-1] == pytest.approx(2.9)
    assert state.finished
    assert state.heard == len(recorded)


def test_strangers_change_nothing_but_the_count(recorded: Sequence[Said]) -> None:
    state = fleet(("elsewhere",), 1.0)
    for said in recorded:
        if not isinstance(said.message, FederationFinished):
            state = hear(state, said.message)
    assert state.lanes["elsewhere"] == Lane("elsewhere")


def test_plain_lines_stay_few(recorded: Sequence[Said]) -> None:
    lines: list[str] = []
    view = Plain(lines.append)
    for _ in range(20):
        for said in recorded:
            view.show(fleet(SITES, 1.0), said.message)
    assert len(lines) < MOST_LINES
    assert lines[-1].startswith("…")


def test_every_line_is_one_line(recorded: Sequence[Said]) -> None:
    assert all("\n" not in (tell(said.message) or "") for said in recorded)


def test_lanes_are_drawn(recorded: Sequence[Said]) -> None:
    output = StringIO()
    console = Console(file=output, force_terminal=True, width=120, color_system=None)
    with Lanes(console, fleet(SITES, 960.0), MIDNIGHT, MIDNIGHT + timedelta(hours=15)) as view:
        view.show(_after(recorded), recorded[-1].message)
        view.beat(MIDNIGHT + timedelta(hours=15))
    assert all(site in output.getvalue() for site in SITES)
    assert "held-out loss 2.900" in output.getvalue()


@pytest.mark.parametrize("wanted", [True, False])
def test_colours_go_where_nobody_wants_them(
    recorded: Sequence[Said], monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", "" if wanted else "1")
    output = StringIO()
    console = Console(file=output, force_terminal=True, width=120, color_system="standard")
    console.print(board(_after(recorded), MIDNIGHT, MIDNIGHT + timedelta(hours=15), MIDNIGHT + timedelta(hours=15)))
    assert bool(re.search(r"\x1b\[[0-9;]*(3|9)[0-7]m", output.getvalue())) is wanted


def test_an_empty_board_is_drawn() -> None:
    console = Console(file=StringIO(), width=120)
    console.print(board(fleet(SITES, 960.0), MIDNIGHT, MIDNIGHT + timedelta(hours=1), MIDNIGHT))


def test_timeline() -> None:
    def at(hour: float) -> datetime:
        return MIDNIGHT + timedelta(hours=hour)

    lane = Lane("a", windows=(Span(at(1), at(4)), Span(at(6))), trained=(Span(at(2), at(3)),))
    assert timeline(lane, at(0), at(10), at(7.5), cells=10).plain == "·▒█▒··▒▒  "


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123_456, "123 kB"), (2 * 10**12, "2000 GB")]
)
def test_size(number: int, text: str) -> None:
    assert size(number) == text


def test_sparks() -> None:
    assert sparks((4.0, 3.0, 2.0)) == "█▅▁"
    assert sparks((1.0,)) == "▁"
