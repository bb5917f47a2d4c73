"""Engines on given rows of a shared corpus: exactly those are trained, and progress and checkpoint name them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from windfall.lowcomm.layout import digest, flatten, layout_of_model
from windfall.servicekit.errors import Mistake
from windfall.site_trainer.engine import Progress, on_rows
from windfall.site_trainer.torch_engine import TorchEngine
from windfall.site_trainer.toy import ToyEngine
from windfall.tasks.registry import load_task
from windfall.tasks.rows import RowLoader, Shuffle, row_loader
from windfall.tasks.task import Batch

TASK = load_task("gpt-neox", json.dumps({"width": 16, "heads": 2, "layers": 1, "context": 8, "learning_rate": 0.01}))
ROWS = 25


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_bytes(bytes(range(202)))
    return tmp_path


def engine_on(folder: Path, rows: RowLoader | None = None) -> TorchEngine:
    model = TASK.model(seed=0)
    layout = layout_of_model(model)
    loader = row_loader(TASK, folder, ROWS, seed=3) if rows is None else rows
    engine = TorchEngine(TASK, layout, folder, seed=1, rows=loader)
    engine.load(flatten(model.state_dict(), layout))
    return engine


class Seen:
    """A corpus that keeps the numbers of the rows that were taken out."""

    rows = ROWS

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def batch(self, numbers: Sequence[int], positions: Sequence[int]) -> Batch:
        self.numbers.extend(numbers)
        inputs = torch.tensor(numbers)[:, None].expand(-1, 8)
        return Batch(inputs, inputs, 8 * len(numbers))


def test_a_step_trains_the_rows_it_is_given_and_progress_names_them(folder: Path) -> None:
    seen = Seen()
    engine = engine_on(folder, RowLoader(seen, seed=3))
    reports = [engine.step_on(rows) for rows in (((0, 4),), ((4, 6), (20, 22)), ((24, 27),))]
    assert [report.tokens for report in reports] == [32, 32, 24], "a step may be smaller"
    assert engine.progress.rows == ((0, 6), (20, 22), (24, 27))
    orders = [Shuffle(3, epoch, ROWS).at(np.arange(ROWS, dtype=np.uint64)).tolist() for epoch in (0, 1)]
    positions = [*range(6), 20, 21, 24, 25, 26]
    assert seen.numbers == [orders[at // ROWS][at % ROWS] for at in positions]
    engine.load(torch.zeros_like(engine.pseudo_gradient()))
    assert engine.progress == Progress()


def test_rows_of_a_skipped_step_are_seen(folder: Path) -> None:
    engine = engine_on(folder)
    engine.load(torch.full_like(engine.pseudo_gradient(), float("nan")))
    assert engine.step_on(((0, 4),)).skipped
    assert engine.progress.rows == ((0, 4),)
    assert (engine.progress.steps, engine.progress.skipped) == (0, 1)


def test_a_checkpoint_knows_the_rows_and_goes_on_to_the_same_bits(folder: Path) -> None:
    straight, cut = engine_on(folder), engine_on(folder)
    base = digest(flatten(TASK.model(seed=0).state_dict(), layout_of_model(TASK.model(seed=0))))
    for rows in (((0, 4),), ((4, 8),)):
        straight.step_on(rows)
        cut.step_on(rows)
    cut.save(folder / "checkpoint")
    back = engine_on(folder)
    assert back.restore(folder / "checkpoint", base)
    assert back.progress == straight.progress
    assert back.progress.rows == ((0, 8),)
    straight.step_on(((8, 12),))
    back.step_on(((8, 12),))
    assert back.model_digest() == straight.model_digest()


def test_a_toy_remembers_its_rows_as_well(tmp_path: Path) -> None:
    engine = ToyEngine(100, seed=1)
    engine.load(torch.zeros(100))
    engine.step_on(((0, 4), (9, 10)))
    engine.save(tmp_path / "checkpoint")
    back = ToyEngine(100, seed=1)
    back.load(torch.zeros(100))
    assert back.restore(tmp_path / "checkpoint", digest(torch.zeros(100)))
    assert back.progress == engine.progress
    assert back.progress.rows == ((0, 4), (9, 10))


def test_an_engine_that_cannot_says_what_to_do() -> None:
    class Foreign:
        pass

    with pytest.raises(Mistake, match="cannot train on rows of a shared corpus"):
        on_rows(Foreign())  # type: ignore[arg-type]
