"""What does not fit into memory at once is passed through in parts, and what was learnt of it is kept."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from windfall.lowcomm.layout import digest, flatten, layout_of_model
from windfall.site_trainer.engine import Progress
from windfall.site_trainer.room import Room
from windfall.site_trainer.torch_engine import TorchEngine
from windfall.tasks.gpt_neox import GptNeoxTask, gpt_neox
from windfall.tasks.task import Batch

SETTINGS: dict[str, object] = {"width": 16, "layers": 1, "heads": 2, "context": 8, "learning_rate": 0.003}


@dataclass(frozen=True)
class Narrow(GptNeoxTask):
    """Memory for so many samples, and no more: torch's own words for it."""

    fits: int = 3
    refusal: type[Exception] = torch.OutOfMemoryError
    passed: list[int] = field(default_factory=list)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=1.0)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        loss = super().loss(model, batch)
        if len(batch.inputs) > self.fits:
            raise self.refusal("CUDA out of memory. Tried to allocate 20.00 GiB")
        self.passed.append(len(batch.inputs))
        return loss


def narrow(fits: int, refusal: type[Exception] = torch.OutOfMemoryError) -> Narrow:
    return Narrow(gpt_neox(SETTINGS).settings, fits=fits, refusal=refusal)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "verse.txt").write_text("the wind blows where it will; " * 40)
    return tmp_path


def engine(task: Narrow, folder: Path) -> TorchEngine:
    model = task.model(0)
    layout = layout_of_model(model)
    made = TorchEngine(task, layout, folder, seed=1)
    made.load(flatten(model.state_dict(), layout))
    return made


@given(samples=st.integers(1, 500), parts=st.integers(1, 20), most=st.integers(0, 50))
def test_passes_are_even_and_fit(samples: int, parts: int, most: int) -> None:
    sizes = Room(most).cut(samples, parts)
    assert sum(sizes) == samples and min(sizes) > 0
    assert max(sizes) - min(sizes) <= 1
    assert not most or max(sizes) <= most
    assert len(sizes) >= min(parts, samples)


@given(samples=st.integers(1, 500), fits=st.integers(1, 500))
def test_halving_ends_where_it_fits(samples: int, fits: int) -> None:
    room = Room()
    while (largest := max(room.cut(samples, 1))) > fits:
        room = room.without(largest)
    assert 4 * (largest + 1) > min(fits, samples)


@pytest.mark.parametrize("refusal", [torch.OutOfMemoryError, MemoryError])
def test_what_does_not_fit_is_cut_smaller_and_the_step_is_the_same(folder: Path, refusal: type[Exception]) -> None:
    wide, tight = engine(narrow(100), folder), engine(narrow(3, refusal), folder)
    one, other = [wide.step(8) for _ in range(3)], [tight.step(8) for _ in range(3)]
    assert [report.tokens for report in one] == [report.tokens for report in other]
    assert [report.loss_nats for report in one] == pytest.approx([report.loss_nats for report in other], rel=1e-5)
    torch.testing.assert_close(wide.pseudo_gradient(), tight.pseudo_gradient(), rtol=1e-3, atol=1e-5)
    assert [(report.passes, report.refused) for report in other] == [(4, 2), (4, 0), (4, 0)]
    assert tight.progress == Progress(3, tight.progress.tokens, tight.progress.loss_nats, refused=2)


def test_what_fits_is_remembered_by_who_goes_on_from_a_checkpoint(folder: Path) -> None:
    first = engine(narrow(3), folder)
    first.step(8)
    first.save(folder / "checkpoint")
    task = narrow(3)
    second = engine(task, folder)
    assert second.restore(folder / "checkpoint", second.model_digest())
    assert second.step(8).refused == 0
    assert task.passed == [2, 2, 2, 2]
    first.step(8)
    assert first.model_digest() == second.model_digest()


def test_where_one_sample_does_not_fit_there_is_nothing_to_halve(folder: Path) -> None:
    tight = engine(narrow(0), folder)
    before = tight.model_digest()
    with pytest.raises(MemoryError, match="one sample does not fit"):
        tight.step(8)
    assert tight.model_digest() == before


def test_another_error_is_not_taken_for_a_lack_of_memory(folder: Path) -> None:
    with pytest.raises(RuntimeError, match="Tried"):
        engine(narrow(3, RuntimeError), folder).step(8)


def test_the_hosts_allocator_is_understood(folder: Path) -> None:
    """torch has no class of its own for it, so a real refusal is asked for."""

    class Greedy(Narrow):
        def loss(self, model: nn.Module, batch: Batch) -> Tensor:
            if len(batch.inputs) > 1:
                torch.empty(1 << 50)
            return super().loss(model, batch)

    greedy = engine(Greedy(gpt_neox(SETTINGS).settings, fits=100), folder)
    assert greedy.step(4).passes == 4
    assert digest(torch.zeros(1)) != greedy.model_digest()
