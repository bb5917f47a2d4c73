"""Checkpoints that are written while training goes on, two of them, and what is kept from round to round."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch

from windfall.lowcomm.layout import digest, flatten, layout_of_model
from windfall.site_trainer.engine import Precision, Skip
from windfall.site_trainer.saving import Saving
from windfall.site_trainer.torch_engine import TorchEngine
from windfall.site_trainer.toy import ToyEngine
from windfall.tasks.gpt_neox import GptNeoxTask, gpt_neox
from windfall.tasks.text import TextLoader

SETTINGS: dict[str, object] = {"width": 16, "layers": 1, "heads": 2, "context": 8, "learning_rate": 0.003}
TASK = gpt_neox(SETTINGS)
LAYOUT = layout_of_model(TASK.model(0))
BASE = flatten(TASK.model(0).state_dict(), LAYOUT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "verse.txt").write_text("the wind blows where it will; " * 40)
    return tmp_path


def engine(folder: Path, task: GptNeoxTask = TASK, precision: Precision = "fp32") -> TorchEngine:
    made = TorchEngine(task, LAYOUT, folder, seed=1, precision=precision)
    made.load(BASE)
    return made


def steps(engine: TorchEngine, count: int) -> None:
    for _ in range(count):
        assert engine.step(4).skipped is None


def test_a_snapshot_is_of_the_step_at_which_it_was_taken_however_late_it_is_written(folder: Path) -> None:
    first = engine(folder)
    steps(first, 3)
    write, then = first.snapshot(), first.model_digest()
    steps(first, 2)
    write(folder / "checkpoint")
    second = engine(folder)
    assert second.restore(folder / "checkpoint", digest(BASE))
    assert (second.model_digest(), second.progress.steps) == (then, 3)
    steps(second, 2)
    assert second.model_digest() == first.model_digest()


def test_when_the_newest_is_corrupt_the_one_before_is_gone_on_from(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, first = folder / "checkpoint", engine(folder)
    for _ in range(3):
        steps(first, 2)
        first.save(path)
    path.write_bytes(path.read_bytes()[:-9])
    second = engine(folder)
    assert second.restore(path, digest(BASE))
    assert second.progress.steps == 4
    assert "left aside" in caplog.text
    path.unlink()
    third = engine(folder)
    assert third.restore(path, digest(BASE))
    assert third.progress.steps == 4, "a crash between the two renames"


class Sleepless:
    """What a trainer gives to who saves, with a disk that waits to be let go."""

    def __init__(self) -> None:
        self.disk = threading.Event()
        self.tasks: list[asyncio.Task[None]] = []

    async def offload(self, work: Callable[..., Any], *arguments: object) -> Any:
        slow = arguments and isinstance(arguments[0], Path)

        def done() -> Any:
            assert not slow or self.disk.wait(60)
            return work(*arguments)

        return await asyncio.to_thread(done)

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        self.tasks.append(asyncio.create_task(work, name=name))
        return self.tasks[-1]


async def test_training_goes_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    path, world, toy = tmp_path / "checkpoint", Sleepless(), ToyEngine(100, seed=1)
    toy.load(torch.zeros(100))
    saving = Saving(path, timedelta(0), world.offload, world.spawn)
    for _ in range(5):
        toy.step(4)
        await saving.when_due(toy)
    assert len(world.tasks) == 1, "one at a time"
    assert not path.exists()
    world.disk.set()
    await world.tasks[0]
    restored = ToyEngine(100, seed=1)
    restored.load(torch.zeros(100))
    assert restored.restore(path, digest(torch.zeros(100)))
    assert (restored.progress.steps, toy.progress.steps) == (1, 5)
    await saving.now(toy)
    assert restored.restore(path, digest(torch.zeros(100)))
    assert restored.progress.steps == 5


async def test_a_disk_that_refuses_does_not_stop_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    world, toy = Sleepless(), ToyEngine(100, seed=1)
    world.disk.set()
    toy.load(torch.zeros(100))
    saving = Saving(tmp_path / "nowhere" / "checkpoint", timedelta(0), world.offload, world.spawn)
    toy.step(4)
    await saving.when_due(toy)
    await saving.now(toy)
    assert caplog.text.count("no checkpoint: ") == 2
    toy.step(4)


@dataclass(frozen=True)
class Counting(GptNeoxTask):
    """Counts what must happen once."""

    opened: list[str] = field(default_factory=list)

    def model(self, seed: int) -> torch.nn.Module:
        self.opened.append("model")
        return super().model(seed)

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        self.opened.append("optimizer")
        return super().optimizer(model)

    def loader(self, folder: Path, seed: int, cursor: int = 0) -> TextLoader:
        self.opened.append("loader")
        return super().loader(folder, seed, cursor)


def test_three_rounds_open_model_data_and_optimizer_once(folder: Path) -> None:
    task = Counting(TASK.settings)
    warm, base = engine(folder, task), BASE
    for number in range(3):
        warm.load(base)
        steps(warm, 4)
        moments = [state["step"].item() for state in warm._optimizer.state.values()]
        assert set(moments) == {4.0 * (number + 1)}
        assert warm._samples.loader.cursor == 16 * (number + 1)
        base = base - warm.pseudo_gradient()
    assert task.opened == ["model", "optimizer", "loader"]


def test_fp16_lowers_its_scale_until_gradients_fit_and_counts_the_steps(folder: Path) -> None:
    scaled = engine(folder, precision="fp16")
    scaled._passes.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    reports = [scaled.step(4) for _ in range(40)]
    skipped = [report.skipped for report in reports]
    over = skipped.count(Skip.OVERFLOW)
    assert 0 < over < 40 and skipped == [Skip.OVERFLOW] * over + [None] * (40 - over)
    assert (scaled.progress.overflows, scaled.progress.steps, scaled.progress.skipped) == (over, 40 - over, 0)
    scaled.save(folder / "checkpoint")
    again = engine(folder, precision="fp16")
    assert again.restore(folder / "checkpoint", digest(BASE))
    assert again.step(4).skipped is None
    assert again._passes.scaler.get_scale() == scaled._passes.scaler.get_scale()
