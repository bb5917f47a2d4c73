"""A user's own task comes through the door as an installed package: a module and an entry point."""

from pathlib import Path
from textwrap import dedent

import pytest
import torch

from windfall.tasks.registry import load_task

OWN_TASK = """
    from dataclasses import dataclass

    import torch
    from windfall.tasks.task import Batch, Evaluation


    class Numbers:
        def __init__(self, seed, cursor):
            self.seed, self.cursor = seed, cursor

        def batch(self, size, model):
            x = (self.seed + torch.arange(self.cursor, self.cursor + size)[:, None]) % 10 / 10
            self.cursor += size
            return Batch(x, 3 * x, size)


    @dataclass(frozen=True)
    class Line:
        slope_lr: float
        name: str = "line"
        gradient_norm: float = 1.0

        def model(self, seed):
            model = torch.nn.Linear(1, 1, device="meta").to_empty(device="cpu")
            generator = torch.Generator().manual_seed(seed)
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, generator=generator)
            return model

        def loader(self, folder, seed, cursor=0):
            return Numbers(seed, cursor)

        def loss(self, model, batch):
            return torch.nn.functional.mse_loss(model(batch.inputs), batch.targets)

        def optimizer(self, model):
            return torch.optim.SGD(model.parameters(), lr=self.slope_lr)

        def rate(self, tokens):
            return 1.0

        def evaluate(self, model, folder):
            with torch.no_grad():
                loss = self.loss(model, Numbers(0, 0).batch(10, model)).item()
            return Evaluation(loss, "squared error", loss, 10)


    def line(settings):
        if strange := set(settings) - {"slope_lr"}:
            raise ValueError(f"unknown setting {strange.pop()!r}\\nsecond line")
        return Line(**settings)
"""


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "line_task.py").write_text(dedent(OWN_TASK))
    installed = tmp_path / "line_task-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: line-task\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[windfall.tasks]\nline = line_task:line\nbroken = line_task:nothing\nabsent = no_such_module:task\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_task_that_ships_is_found() -> None:
    task = load_task("gpt-neox", '{"preset": "tiny"}')
    assert task.name == "gpt-neox"
    assert isinstance(task.model(0), torch.nn.Module)


def test_a_users_own_task_is_found_and_trains(own_package: Path) -> None:
    task = load_task("line", '{"slope_lr": 0.1}')
    model = task.model(seed=1)
    optimizer, loader = task.optimizer(model), task.loader(own_package, seed=1)
    before = task.evaluate(model, own_package).loss
    for _ in range(50):
        optimizer.zero_grad()
        task.loss(model, loader.batch(8, model)).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert task.name == "line"
    assert loader.cursor == 400
    assert task.evaluate(model, own_package).loss < before


@pytest.mark.parametrize(
    ("name", "settings", "complaint"),
    [
        ("lstm", "{}", "unknown task 'lstm'; known are absent, broken, .*gpt-neox, line"),
        ("gpt-neox", "{", "task 'gpt-neox': settings are not JSON: "),
        ("gpt-neox", "[1]", r"settings are a JSON object, not '\[1\]'"),
        ("gpt-neox", '{"preset": "huge"}', "task 'gpt-neox': unknown preset 'huge'"),
        ("line", '{"colour": 1}', "task 'line': unknown setting 'colour' second line"),
        ("broken", "{}", "task 'broken' cannot be imported from 'line_task:nothing'"),
        ("absent", "{}", "task 'absent' cannot be imported from 'no_such_module:task': No module"),
    ],
    ids=["name", "json", "object", "value", "own setting", "attribute", "module"],
)
def test_a_mistake_is_one_line(own_package: Path, name: str, settings: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        load_task(name, settings)
    assert "\n" not in str(caught.value)
