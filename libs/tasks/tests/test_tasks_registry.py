"""A user's own task comes through the door as an installed package: a module and an entry point."""

from pathlib import Path

import pytest
import torch

from windfall.tasks.registry import load_task

PAGE = (Path(__file__).parents[3] / "docs" / "tasks.md").read_text()
(OWN_TASK,) = (part.split("\n```\n")[0] for part in PAGE.split("```python\n")[1:])


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "line_task.py").write_text(OWN_TASK)
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
        ("line", '{"colour": 1}', "task 'line': unknown setting 'colour'"),
        ("broken", "{}", "task 'broken' cannot be imported from 'line_task:nothing'"),
        ("absent", "{}", "task 'absent' cannot be imported from 'no_such_module:task': No module"),
    ],
    ids=["name", "json", "object", "value", "own setting", "attribute", "module"],
)
def test_a_mistake_is_one_line(own_package: Path, name: str, settings: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint) as caught:
        load_task(name, settings)
    assert "\n" not in str(caught.value)
