"""Whole apps in the shapes of Flower's own examples, from their folders, over our transport."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from safetensors.numpy import load_file

from windfall.contracts.events import ContributionAccepted, RoundCompleted, RoundEvaluated
from windfall.contracts.message import Message
from windfall.flower_adapter.app_folder import load, read_app, run_config
from windfall.flower_adapter.testing import LocalFleet

APPS = Path(__file__).parents[3] / "tests" / "flower_apps"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a ServerApp writes what it likes."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, overrides: str = "") -> list[Message]:
    """Run an app to its end on three sites; what was said."""
    app = read_app(APPS / name)
    monkeypatch.syspath_prepend(app.folder)
    config = run_config(app, overrides)
    async with LocalFleet(folder, load(app, app.client, ClientApp), config=config) as fleet:
        await fleet.until_up(3)
        await fleet.run(load(app, app.server, ServerApp))
        return await fleet.said()


def told(folder: Path, name: str = "metrics.json") -> Any:
    return json.loads((folder / name).read_text())


async def test_a_strategy_that_overrides_both_sides_of_a_round(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = await run("trusting", here, monkeypatch)
    slopes = load_file(here / "final.safetensors")["0"]
    np.testing.assert_allclose(slopes, (1.0, -2.0, 0.5), atol=0.02)  # the liar's thousands are not in it
    metrics = told(here)
    losses = [one["eval_loss"] for one in metrics["evaluate"]]
    assert losses == sorted(losses, reverse=True)
    assert all(len(one["worst"]) == 3 for one in metrics["evaluate"])  # a metric that is a list
    assert len(metrics["length"]) == 5  # the ServerApp's own evaluation, before the first round as well
    assert [event.loss_nats for event in said if isinstance(event, RoundEvaluated)] == pytest.approx(losses, abs=1e-4)


async def test_a_node_keeps_its_head_and_what_leaves_it_is_clipped(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await run("personal", here, monkeypatch)
    metrics = told(here)
    assert 0.1 < metrics["moved"] <= 3 * 0.5 + 1e-5
    assert [(one["trained"], one["evaluated"]) for one in metrics["evaluate"]] == [(1, 1), (2, 2), (3, 3)]
    heads = [one["head"] for one in metrics["evaluate"]]
    assert heads == sorted(heads)  # it grows from round to round instead of beginning anew


async def test_secure_aggregation_in_flowers_older_api(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = await run("masked", here, monkeypatch)
    values = load_file(here / "final.safetensors")["0"]
    np.testing.assert_allclose(values, np.full((2, 3), 2 * (1 + 2 + 3) / 3), atol=0.02)  # quantised on the way
    # Its four stages are messages that train, and so each is a round here.
    assert len([event for event in said if isinstance(event, RoundCompleted)]) == 2 * 4


async def test_who_drops_out_of_a_secure_aggregation_is_unmasked_by_the_others(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = await run("masked", here, monkeypatch, "drops=2 columns=1000")
    values = load_file(here / "final.safetensors")["0"]
    np.testing.assert_allclose(values, np.full((2, 1000), 2 * (1 + 2) / 2), atol=0.02)
    rounds = [event for event in said if isinstance(event, RoundCompleted)]
    assert [len(event.contributors) for event in rounds] == [3, 3, 2, 2] * 2
    # What is masked travels in 64 bits for each of 2,000 parameters, where plain averaging takes 32.
    assert 8.0 <= rounds[2].bytes_up / (2 * 2000) < 8.3


async def test_questions_and_words_that_nobody_waits_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = await run("asking", here, monkeypatch)
    answers = told(here, "histogram.json")
    assert answers == {"counts": [8, 8, 8, 0], "heard": ["windfall"] * 3}
    assert len([event for event in said if isinstance(event, ContributionAccepted)]) == 3
