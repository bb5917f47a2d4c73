"""Processes of one site that train together, started by torchrun: what they train is what one trains, what falls
is started anew, and nothing is left behind. Real groups of two on the CPU, over gloo."""

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from windfall.lowcomm.layout import Layout, TensorSpec, digest, flatten, layout_of_model
from windfall.servicekit.errors import Mistake
from windfall.site_trainer.coordinator import Membership, SharedCorpus
from windfall.site_trainer.engine import Sharding, StepReport, on_rows
from windfall.site_trainer.engines import Engines
from windfall.site_trainer.peers import Peers, pass_over
from windfall.site_trainer.ranks import wire
from windfall.site_trainer.ranks.engine import Order, RanksEngine
from windfall.site_trainer.ranks.flats import SharedFile, leave, left
from windfall.site_trainer.ranks.group import RankGroup
from windfall.site_trainer.settings import TrainerSettings
from windfall.site_trainer.torch_engine import TorchEngine
from windfall.tasks.registry import load_task

SETTINGS = json.dumps({"width": 16, "layers": 2, "heads": 2, "context": 8, "learning_rate": 0.003, "rate": "constant"})
PAGE = (Path(__file__).parents[3] / "docs" / "tasks.md").read_text()
(LINE_TASK,) = (part.split("\n```\n")[0] for part in PAGE.split("```python\n")[1:])
NARROW_TASK = """
import os
import torch
from line_task import Line

class Narrow(Line):
    def loss(self, model, batch):
        if len(batch.inputs) > 2 and os.environ.get("RANK") == "1":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().loss(model, batch)

def narrow(settings):
    return Narrow(**settings)

def fatal(settings):
    os._exit(9)
"""
LINE = '{"slope_lr": 0.1}'
WAIT_S = 100
SHAPES = st.lists(st.integers(0, 3), max_size=3)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's own package with the task of the documentation, and one for which memory is short on one rank."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "line_task.py").write_text(LINE_TASK)
    (folder / "narrow_task.py").write_text(NARROW_TASK)
    installed = folder / "line_task-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: line-task\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(
        "[windfall.tasks]\nline = line_task:line\nnarrow = narrow_task:narrow\nfatal = narrow_task:fatal\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder


@pytest.fixture(scope="module")
def text_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    (folder / "verse.txt").write_text("the wind blows where it will; " * 40)
    return folder


@pytest.fixture(scope="module")
def group(packages: Path) -> Iterator[RankGroup]:
    path = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    made = RankGroup(2, environ={"PYTHONPATH": path})
    try:
        yield made
        ends = [os.pidfd_open(pid) for pid in made.pids]
    finally:
        made.close()
    with ExitStack() as stack:
        for end in ends:
            stack.callback(os.close, end)
            assert select.select([end], [], [], 0)[0], "a rank is left behind"


def layout_and_base(task: str, settings: str) -> tuple[Layout, torch.Tensor]:
    model = load_task(task, settings).model(0)
    layout = layout_of_model(model)
    return layout, flatten(model.state_dict(), layout)


def several(group: RankGroup, task: str, settings: str, folder: Path, sharding: Sharding = "ddp") -> RanksEngine:
    layout, base = layout_and_base(task, settings)
    engine = RanksEngine(Order(task, settings, layout, folder, seed=1, sharding=sharding), group)
    engine.load(base)
    return engine


def one(task: str, settings: str, folder: Path) -> TorchEngine:
    layout, base = layout_and_base(task, settings)
    engine = TorchEngine(load_task(task, settings), layout, folder, seed=1)
    engine.load(base)
    return engine


def check_alike(several: StepReport, one: StepReport) -> None:
    assert (several.tokens, several.skipped) == (one.tokens, one.skipped)
    assert several.loss_nats == pytest.approx(one.loss_nats, rel=1e-5)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_processes_train_as_one_on_twice_the_samples(
    group: RankGroup, text_dir: Path, tmp_path: Path, sharding: Sharding
) -> None:
    path = tmp_path / "checkpoint"
    _, base = layout_and_base("gpt-neox", SETTINGS)
    both, alone = several(group, "gpt-neox", SETTINGS, text_dir, sharding), one("gpt-neox", SETTINGS, text_dir)
    assert both.model_digest() == digest(base)
    for _ in range(3):
        check_alike(both.step(4), alone.step(8))
    # Adam turns the rounding of a gradient that is almost nothing into a share of a step; hence not to the bit.
    apart = (both.pseudo_gradient() - alone.pseudo_gradient()).abs()
    assert apart.max() < 0.1 * alone.pseudo_gradient().abs().max()
    assert apart.quantile(0.99) < 1e-6
    assert (both.progress.steps, both.progress.tokens) == (3, 3 * 8 * 8)

    # A checkpoint of the group is one of a single process, with all of the optimizer's state and the cursor.
    both.save(path)
    assert alone.restore(path, digest(base))
    assert alone.model_digest() == both.model_digest()
    for _ in range(2):
        check_alike(both.step(4), alone.step(8))
    # And the other way round.
    alone.save(path)
    assert both.restore(path, digest(base))
    assert both.model_digest() == alone.model_digest()
    check_alike(both.step(4), alone.step(8))

    # A broken base is refused by all alike.
    both.load(torch.full_like(base, float("nan")))
    assert both.step(4).skipped
    assert both.progress.skipped == 1
    with pytest.raises(ValueError, match="expected"):
        both.load(base[1:])


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_how_several_pass_through_a_step_may_change_between_steps(
    group: RankGroup, text_dir: Path, sharding: Sharding
) -> None:
    together = several(group, "gpt-neox", SETTINGS, text_dir, sharding)
    before = together.step(4)
    together.tune(2, "bf16")
    after = together.step(4)
    assert (before.passes, after.passes) == (1, 2)
    assert after.loss_nats == pytest.approx(before.loss_nats, rel=0.1)
    together.tune(1, "fp32")


def test_what_a_rank_says_is_the_engines_error(group: RankGroup, text_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"embedding.weight\[256, 16\] here, w\[2\] there"):
        RanksEngine(Order("gpt-neox", SETTINGS, Layout((TensorSpec("w", (2,)),)), text_dir, seed=1), group)
    engine = several(group, "gpt-neox", SETTINGS, text_dir)
    with pytest.raises(FileNotFoundError):
        engine.save(tmp_path / "nowhere" / "checkpoint")
    assert not engine.step(2).skipped


def test_a_users_own_task_trains_over_several_to_what_one_gets(group: RankGroup, tmp_path: Path) -> None:
    """Plain gradient descent: equal up to rounding, though one weight is less than a part for each."""
    alone = one("line", LINE, tmp_path)
    reports = [alone.step(8) for _ in range(3)]
    for sharding in ("ddp", "fsdp"):
        both = several(group, "line", LINE, tmp_path, sharding)
        for report in reports:
            check_alike(both.step(4), report)
        torch.testing.assert_close(both.pseudo_gradient(), alone.pseudo_gradient(), rtol=1e-5, atol=1e-7)


def test_memory_that_is_short_on_one_rank_makes_all_passes_smaller(group: RankGroup, tmp_path: Path) -> None:
    both, alone = several(group, "narrow", LINE, tmp_path), one("line", LINE, tmp_path)
    report = both.step(4)
    check_alike(report, alone.step(8))
    assert (report.passes, report.refused) == (2, 1)
    again = both.step(4)
    check_alike(again, alone.step(8))
    assert (again.passes, again.refused, both.progress.refused, both.progress.steps) == (2, 0, 1, 2)


def test_a_rank_that_dies_is_started_anew_and_training_goes_on_from_the_checkpoint(
    group: RankGroup, tmp_path: Path
) -> None:
    both, alone = several(group, "line", LINE, tmp_path), one("line", LINE, tmp_path)
    before = group.pids
    check_alike(both.step(4), alone.step(8))
    both.save(tmp_path / "checkpoint")
    both.step(4)
    os.kill(group.pids[1], signal.SIGKILL)
    check_alike(both.step(4), alone.step(8))
    assert both.progress.steps == 2, "one step from the checkpoint; what came after it was lost"
    assert not set(before) & set(group.pids)
    torch.testing.assert_close(both.pseudo_gradient(), alone.pseudo_gradient(), rtol=1e-5, atol=1e-7)


def test_a_trainer_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from windfall.site_trainer.ranks.group import RankGroup\n"
        "group = RankGroup(1)\n"
        "group.meet()\n"
        "print(group._agent.pid, *group.pids, flush=True)\n"
        "sys.stdin.read()\n"
        "assert 'torch' not in sys.modules\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as trainer:
        assert trainer.stdout is not None
        pids = [int(pid) for pid in trainer.stdout.readline().split()]
        ends = [os.pidfd_open(pid) for pid in pids]
        trainer.kill()
        trainer.wait()
        for end in ends:
            assert select.select([end], [], [], WAIT_S)[0], "it lives on"
            os.close(end)
    assert len(pids) == 2


def test_a_group_that_always_falls_is_a_mistake(packages: Path, group: RankGroup, tmp_path: Path) -> None:
    class Falling(RankGroup):
        """As a group of which a rank falls whatever it is told."""

        def __init__(self) -> None:
            self.processes, self.pids, self._links, self._alive = 2, (), [], None

        def meet(self) -> None:
            return

    layout, _ = layout_and_base("line", LINE)
    with pytest.raises(Mistake, match="3 groups of processes fell before a step was done"):
        RanksEngine(Order("line", LINE, layout, tmp_path, seed=1), Falling())


def test_rows_of_a_shared_corpus_are_trained_by_one_process(text_dir: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = TrainerSettings.model_validate(
        {
            "site": "site-a",
            "coordinator": "127.0.0.1:1",
            "data_dir": text_dir,
            "state_dir": text_dir,
            "window_id": uuid4(),
            "lease_token": 1,
            "processes": "2",
            "sharding": "fsdp",
            "device": "cpu",
        }
    )
    layout, base = layout_and_base("gpt-neox", SETTINGS)
    membership = Membership(
        1, "gpt-neox", SETTINGS, layout, ("topk-ef", "", False, "mean"), 1.0, corpus=SharedCorpus(149, seed=1)
    )
    engines = Engines(settings)
    engine = engines.make(membership)
    engine.load(base)
    assert not on_rows(engine).step_on(((2, 6),)).skipped
    assert engine.progress.rows == ((2, 6),)
    assert "by one process, not by 2" in caplog.text
    engines.close()


# --- without processes ------------------------------------------------------------------------------------------------


class Reading:
    """A loader that cannot skip."""

    def __init__(self) -> None:
        self.cursor = 0
        self.read: list[range] = []

    def batch(self, size: int, model: torch.nn.Module) -> object:
        self.read.append(range(self.cursor, self.cursor + size))
        self.cursor += size
        return self.read[-1]


class SkippingReading(Reading):
    def skip(self, size: int) -> None:
        self.cursor += size


@given(size=st.integers(1, 5), sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4), steps=st.integers(1, 3))
@pytest.mark.parametrize("kind", [Reading, SkippingReading])
def test_every_sample_is_taken_by_one_process(
    kind: Callable[[], Reading], size: int, sizes: list[int], steps: int
) -> None:
    taken: list[int] = []
    model = torch.nn.Identity()
    for rank in range(size):
        loader = kind()
        for _ in range(steps):
            taken.extend(index for part in Peers(rank, size).draw(loader, model, sizes) for index in part)  # type: ignore[arg-type, attr-defined]
        assert loader.cursor == steps * size * sum(sizes)
    assert sorted(taken) == list(range(steps * size * sum(sizes)))


def test_a_loader_that_can_skip_reads_nothing_for_others() -> None:
    loader = SkippingReading()
    pass_over(loader, 7, torch.nn.Identity())  # type: ignore[arg-type]
    assert (loader.cursor, loader.read) == (7, [])


@given(st.binary(max_size=60))
def test_whatever_comes_over_the_socket_is_a_word_or_an_error(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.close()
        try:
            word = wire.receive(ours)
        except ValueError:
            return
        assert word is None or isinstance(word, dict)


def test_words_arrive_as_they_were_said_and_long_ones_are_refused() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire.send(theirs, {"do": "step", "samples": 4, "loss": float("inf")})
        assert wire.receive(ours) == {"do": "step", "samples": 4, "loss": float("inf")}
        theirs.sendall(struct.pack(">I", wire.MOST_BYTES + 1))
        with pytest.raises(ValueError, match="longer than"):
            wire.receive(ours)


@given(
    st.dictionaries(
        st.text(max_size=5),
        st.tuples(
            st.sampled_from([torch.float32, torch.int64, torch.bool, torch.bfloat16]), st.lists(st.integers(0, 3))
        ),
        max_size=5,
    )
)
def test_tensors_that_are_left_in_shared_memory_are_found_as_they_were(
    said: dict[str, tuple[torch.dtype, list[int]]],
) -> None:
    tensors = {name: torch.randint(0, 2, shape).to(dtype) for name, (dtype, shape) in said.items()}
    file = SharedFile("draft")
    index = leave(file.path, tensors)
    if not any(tensor.nbytes for tensor in tensors.values()):
        return
    found = left(file.path, json.loads(json.dumps(index)))
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)
