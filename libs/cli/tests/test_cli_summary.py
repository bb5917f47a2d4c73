"""Figures, told from a recorded run."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from windfall.cli.recording import Said
from windfall.cli.story import windows
from windfall.cli.summary import Run, summarise
from windfall.contracts.events import RoundEvaluated, WindowExpected, WindowOpened

REQUIRED = (
    *("rounds", "sites", "tokens", "loss_first", "loss_final", "bytes_up", "bytes_down", "bytes_dense_sync"),
    *("energy_kwh", "emissions_kg", "emissions_always_on_kg", "clean_energy_share"),
    *("duration_s", "model_sha256", "trace_ids"),
)


def test_has_every_figure_and_is_json(run: Run, recorded: Sequence[Said]) -> None:
    summary = json.loads(json.dumps(summarise(run, recorded), allow_nan=False))
    assert [name for name in REQUIRED if summary[name] is None] == []


def test_figures(run: Run, recorded: Sequence[Said]) -> None:
    summary = summarise(run, recorded)
    assert summary["rounds"] == 5
    assert summary["tokens"] == 100_000
    assert (summary["loss_first"], summary["loss_final"]) == pytest.approx((4.1, 2.9))
    assert summary["bytes_up"] == 5 * 2 * run.model_bytes
    assert summary["bytes_down"] == 5 * 3 * run.model_bytes
    assert summary["bytes_dense_sync"] == 1000 * run.model_bytes * 2
    assert summary["bytes_saved_factor"] == 80
    assert summary["contributions_refused"] == 1
    assert summary["duration_s"] == 60
    # Two seconds until the replay began, then 80 trace minutes at 960 times.
    assert summary["time_to_first_step_s"] == 2 + 80 * 60 / 960
    # The last contribution came two trace minutes after the crossing.
    assert summary["close_to_last_contribution_s"] == [0.125] * 4
    assert summary["trace_ids"] == [f"{number:032x}" for number in range(1, 5)]


def test_surplus_power_is_cleaner_than_always_on(run: Run, recorded: Sequence[Said]) -> None:
    summary = summarise(run, recorded)
    assert 0 < summary["emissions_kg"] < summary["emissions_always_on_kg"] / 10
    assert 0.9 < summary["clean_energy_share"] <= 1


def test_nothing_happened(run: Run) -> None:
    summary = summarise(replace(run, model_sha256=None, model_bytes=0), [])
    assert summary["rounds"] == summary["tokens"] == summary["bytes_up"] == 0
    assert [summary[name] for name in ("loss_first", "loss_final", "bytes_saved_factor", "time_to_first_step_s")] == [
        None
    ] * 4
    assert summary["trace_ids"] == summary["windows"] == []


def test_windows_are_told_from_the_first_word_on(recorded: Sequence[Said]) -> None:
    first, *_, last = windows(recorded)
    assert (first.site, last.site) == ("site-a", "site-a")
    assert [window.contributions for window in windows(recorded)] == [1, 1, 1, 1]
    assert [window.refused for window in windows(recorded)] == [0, 1, 0, 0]
    assert last.released_because == "drained"


def test_an_expected_window_is_told_once_it_opens(recorded: Sequence[Said]) -> None:
    opening = next(said for said in recorded if isinstance(said.message, WindowOpened))
    early = opening.message.at - timedelta(minutes=10)
    about = opening.message.model_dump(include={"id", "site", "window_id"}) | {"at": early, "opens_at": early}
    near = WindowExpected.model_validate(about | {"expected_close_at": None, "confidence": 0.9})
    never = near.model_copy(update={"window_id": UUID(int=3)})
    told = windows([replace(opening, message=message) for message in (never, near)] + list(recorded))
    first, *others = told
    assert first == replace(windows(recorded)[0], expected_at=early)
    assert others == list(windows(recorded)[1:])


def test_a_recording_that_begins_in_mid_window_tells_the_whole_ones(recorded: Sequence[Said]) -> None:
    opening = next(said for said in recorded if isinstance(said.message, WindowOpened))
    rest = recorded[recorded.index(opening) + 1 :]
    assert len(windows(rest)) == 3


def test_said_twice_counts_once_for_losses(run: Run, recorded: Sequence[Said]) -> None:
    again = [*recorded, *(said for said in recorded if isinstance(said.message, RoundEvaluated))]
    assert summarise(run, again)["loss_final"] == summarise(run, recorded)["loss_final"]
