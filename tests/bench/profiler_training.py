"""What a profile is for: training on this machine, as a trainer does it, on a little text."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from windfall.lowcomm.layout import flatten, layout_of_model
from windfall.site_trainer.torch_engine import TorchEngine
from windfall.tasks.registry import load_task

TASK: Final = "gpt-neox"
SETTINGS: Final = '{"layers": 2, "heads": 4, "width": 128, "context": 64}'


@contextmanager
def text() -> Iterator[Path]:
    """A folder with 100 kB to train on."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "text"
        data.mkdir()
        (data / "verse.txt").write_text("the wind blows where it will, and the power with it; " * 2000)
        yield data


def engine(data: Path, threads: int) -> TorchEngine:
    """The trainer's own, with the task's first model."""
    task = load_task(TASK, SETTINGS)
    model = task.model(0)
    layout = layout_of_model(model)
    made = TorchEngine(task, layout, data, seed=1, threads=threads)
    made.load(flatten(model.state_dict(), layout))
    return made


def step_s(trained: TorchEngine, micro_batch: int) -> float:
    """Seconds of one step."""
    begun = time.perf_counter()
    trained.step(micro_batch)
    return time.perf_counter() - begun
