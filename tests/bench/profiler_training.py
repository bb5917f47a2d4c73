"""What a profile is for: training on this machine, as a trainer does it, on a little text."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from windfall.profiler.measurement.estimates import Timed

if TYPE_CHECKING:
    from windfall.site_trainer.torch_engine import TorchEngine

TASK: Final = "gpt-neox"
SETTINGS: Final = '{"preset": "small"}'
"""The demo's model."""


@contextmanager
def text() -> Iterator[Path]:
    """A folder with 100 kB to train on."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "text"
        data.mkdir()
        (data / "verse.txt").write_text("the wind blows where it will, and the power with it; " * 2000)
        yield data


def engine(data: Path, threads: int) -> "TorchEngine":
    """The trainer's own, with the task's first model."""
    from windfall.lowcomm.layout import flatten, layout_of_model
    from windfall.site_trainer.torch_engine import TorchEngine
    from windfall.tasks.registry import load_task

    task = load_task(TASK, SETTINGS)
    model = task.model(0)
    layout = layout_of_model(model)
    made = TorchEngine(task, layout, data, seed=1, threads=threads)
    made.load(flatten(model.state_dict(), layout))
    return made


def searched(data: Path, threads: int, sizes: Sequence[int], within_s: float) -> dict[int, Timed]:
    """Steps by micro-batch, all sizes in turn, with their processor time."""
    found: dict[str, list[tuple[float, float]]] = _apart("search", data, threads, within_s, sizes)
    return {
        int(size): Timed(s=tuple(s for s, _ in runs), own_s=tuple(own_s / threads for _, own_s in runs))
        for size, runs in found.items()
    }


def trained(data: Path, threads: int, micro_batch: int, within_s: float) -> list[float]:
    """When each step ended, on the machine's monotonic clock; as many as fit in, torch loaded before."""
    found: list[float] = _apart("train", data, threads, within_s, [micro_batch])
    return found


def _apart(what: str, data: Path, threads: int, within_s: float, sizes: Sequence[int]) -> Any:
    """In a process of its own, in which threads that wait do not spin.

    What spins takes the cores from whatever else runs, and torch asks the environment when it is loaded.
    """
    program = [sys.executable, "-m", "tests.bench.profiler_training", what, str(data), str(threads), str(within_s)]
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
    command = [*program, *map(str, sizes)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def _search(data: Path, threads: int, within_s: float, sizes: Sequence[int]) -> dict[int, list[tuple[float, float]]]:
    trained = engine(data, threads)
    taken: dict[int, list[tuple[float, float]]] = {size: [] for size in sizes}
    for size in sizes:
        trained.step(size)
    begun = time.perf_counter()
    while time.perf_counter() - begun < within_s:
        for size in sizes:
            before = time.process_time()
            wall_s = step_s(trained, size)
            taken[size].append((wall_s, time.process_time() - before))
    return taken


def _train(data: Path, threads: int, within_s: float, sizes: Sequence[int]) -> list[float]:
    running = engine(data, threads)
    ends: list[float] = []
    begun = time.monotonic()
    while time.monotonic() - begun < within_s:
        running.step(sizes[0])
        ends.append(time.monotonic())
    return ends


def step_s(trained: "TorchEngine", micro_batch: int) -> float:
    """Seconds of one step."""
    begun = time.perf_counter()
    trained.step(micro_batch)
    return time.perf_counter() - begun


if __name__ == "__main__":
    wanted, folder, cores, lasts_s, *each = sys.argv[1:]
    work = {"search": _search, "train": _train}[wanted]
    print(json.dumps(work(Path(folder), int(cores), float(lasts_s), [int(size) for size in each])))
