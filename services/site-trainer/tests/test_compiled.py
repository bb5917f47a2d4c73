"""A compiled model is the same model, and is compiled once."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from windfall.lowcomm.layout import digest, flatten, layout_of_model
from windfall.site_trainer.torch_engine import TorchEngine
from windfall.tasks.gpt_neox import GptNeoxTask, gpt_neox


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(256, 4), nn.Linear(4, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embedding(tokens))
        return logits


class Small(GptNeoxTask):
    """As little as can be compiled: a compiler takes its time for anything more."""

    def model(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Pair()


TASK = Small(gpt_neox({"width": 16, "layers": 1, "heads": 2, "context": 8, "learning_rate": 0.003}).settings)
LAYOUT = layout_of_model(TASK.model(0))
BASE = flatten(TASK.model(0).state_dict(), LAYOUT)

# torch's compiler warns of torch's own past when it is imported.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*", "ignore::DeprecationWarning:copyreg"),
    pytest.mark.slow,
    # The first import and the compiler itself, on cores that are busy.
    pytest.mark.timeout(400),
]


@pytest.fixture(autouse=True)
def no_pool() -> Iterator[None]:
    """Programs this small are compiled in place, not by a pool of processes."""
    with torch._inductor.config.patch({"compile_threads": 1}):
        yield


def engine(folder: Path, compiled: bool) -> TorchEngine:
    (folder / "verse.txt").write_text("the wind blows where it will; " * 40)
    made = TorchEngine(TASK, LAYOUT, folder, seed=1, compiled=compiled)
    made.load(BASE)
    return made


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler is at hand")
def test_compiled_once_for_rounds_and_sizes_and_everything_that_is_kept_is_as_without(tmp_path: Path) -> None:
    before = counters["stats"]["unique_graphs"]
    plain, fast = engine(tmp_path, compiled=False), engine(tmp_path, compiled=True)
    for size in (4, 6, 3):
        one, other = plain.step(size), fast.step(size)
        assert other.loss_nats == pytest.approx(one.loss_nats, rel=1e-4)
        base = BASE - plain.pseudo_gradient()
        for each in (plain, fast):
            each.load(base)
        assert fast.model_digest() == plain.model_digest() == digest(base)
    assert counters["stats"]["unique_graphs"] == before + 1
    assert list(fast._model.module.state_dict()) == list(plain._model.module.state_dict())

    # A checkpoint of one is a checkpoint of the other.
    fast.step(4)
    fast.save(tmp_path / "checkpoint")
    assert plain.restore(tmp_path / "checkpoint", digest(base))
    assert plain.model_digest() == fast.model_digest()
    assert plain.checkpoint().tensors.keys() == fast.checkpoint().tensors.keys()


def test_without_a_compiler_the_log_says_so_once_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain, without = engine(tmp_path, compiled=False), engine(tmp_path, compiled=True)
    torch.compiler.reset()
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, str(tmp_path / "no-compiler")), "force_disable_caches": True}),
        caplog.at_level(logging.WARNING),
    ):
        reports = [without.step(4) for _ in range(3)]
    assert reports == [plain.step(4) for _ in range(3)]
    assert without.model_digest() == plain.model_digest()
    assert caplog.text.count("not compiled: ") == 1
