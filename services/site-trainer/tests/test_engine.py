"""One body over every engine: what the trainer may count on, whether it trains or only pretends to."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from windfall.lowcomm.layout import Layout, TensorSpec, digest, flatten, layout_of, layout_of_model
from windfall.site_trainer.engine import Engine, Progress, StepReport, TrainsOn
from windfall.site_trainer.torch_engine import TorchEngine
from windfall.site_trainer.toy import ToyEngine
from windfall.tasks.gpt_neox import GptNeoxTask, gpt_neox
from windfall.tasks.task import Batch, DataError, Task

SETTINGS: dict[str, object] = {
    "width": 16,
    "layers": 1,
    "heads": 2,
    "context": 8,
    "rotary_pct": 0.5,
    "learning_rate": 0.003,
    "rate": "constant",
}
TASK = gpt_neox(SETTINGS)


@dataclass(frozen=True)
class Bench:
    """How to start engines of one kind and where from."""

    start: Callable[[int], Engine]
    base: Tensor

    def loaded(self, seed: int = 1) -> Engine:
        engine = self.start(seed)
        engine.load(self.base)
        return engine


@pytest.fixture
def text_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "verse.txt").write_text("the wind blows where it will; " * 40)
    return folder


@pytest.fixture
def torch_bench(text_dir: Path) -> Bench:
    state = TASK.model(seed=0).state_dict()
    layout = layout_of(state)
    return Bench(lambda seed: TorchEngine(TASK, layout, text_dir, seed), flatten(state, layout))


def torch_engine(task: Task, folder: Path, tokens: int = 0, sites: int = 1, **settings: Any) -> TorchEngine:
    """An engine that has loaded the task's own first model."""
    model = task.model(seed=0)
    layout = layout_of_model(model)
    engine = TorchEngine(task, layout, folder, seed=1, **settings)
    engine.load(flatten(model.state_dict(), layout), tokens, sites)
    return engine


@pytest.fixture(params=["torch", "toy"])
def bench(request: pytest.FixtureRequest) -> Bench:
    if request.param == "toy":
        return Bench(lambda seed: ToyEngine(1000, seed), torch.zeros(1000))
    bench: Bench = request.getfixturevalue("torch_bench")
    return bench


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "checkpoint"


def run(engine: Engine, steps: int) -> list[StepReport]:
    return [engine.step(4) for _ in range(steps)]


# --- every engine -----------------------------------------------------------------------------------------------------


def test_training_lowers_the_loss(bench: Bench) -> None:
    reports = run(bench.loaded(), 60)
    assert sum(report.loss_nats for report in reports[-5:]) < 0.8 * sum(report.loss_nats for report in reports[:5])
    assert all(report.tokens > 0 and not report.skipped for report in reports)


def test_the_pseudo_gradient_leads_from_the_local_model_back_to_the_base(bench: Bench) -> None:
    engine = bench.loaded()
    assert not engine.pseudo_gradient().any()
    assert engine.model_digest() == digest(bench.base)
    run(engine, 3)
    gradient = engine.pseudo_gradient()
    assert gradient.shape == bench.base.shape and gradient.dtype == torch.float32
    assert gradient.any()
    other = bench.loaded()
    other.load(bench.base - gradient)
    assert other.pseudo_gradient().abs().max() == 0
    torch.testing.assert_close(bench.base - gradient, bench.base - engine.pseudo_gradient())


def test_the_base_is_left_alone(bench: Bench) -> None:
    before = digest(bench.base)
    run(bench.loaded(), 3)
    assert digest(bench.base) == before


def told(bench: Bench, before: int, since: int) -> tuple[Engine, TrainsOn, Tensor]:
    """An engine that told, what it told, and trained on."""
    engine = bench.loaded()
    run(engine, before)
    gradient = engine.pseudo_gradient()
    assert isinstance(engine, TrainsOn)
    engine.tell()
    run(engine, since)
    return engine, engine, gradient


def test_what_is_trained_after_telling_is_kept_on_a_base_that_counts_what_was_told(bench: Bench) -> None:
    engine, trains_on, gradient = told(bench, 3, 2)
    assert engine.progress.steps == 2
    since = engine.pseudo_gradient() - gradient
    new = bench.base - 0.5 * gradient
    trains_on.rebase(new, True, 100, 2)
    assert (engine.progress.steps, engine.progress.tokens) == (2, sum(one.tokens for one in run(bench.loaded(), 2)))
    torch.testing.assert_close(engine.pseudo_gradient(), since, atol=1e-6, rtol=1e-4)
    assert digest(new) == digest(bench.base - 0.5 * gradient)
    assert not run(engine, 1)[0].skipped


def test_what_does_not_count_is_work_again_on_the_next_base(bench: Bench) -> None:
    engine, trains_on, _ = told(bench, 3, 2)
    whole, plain = engine.pseudo_gradient(), bench.loaded()
    run(plain, 5)
    trains_on.rebase(bench.base + 1, False)
    assert engine.progress == replace(plain.progress, loss_nats=engine.progress.loss_nats)
    assert abs(engine.progress.loss_nats - plain.progress.loss_nats) < 1e-6
    torch.testing.assert_close(engine.pseudo_gradient(), whole, atol=1e-6, rtol=1e-4)


def test_who_did_not_train_on_stands_exactly_on_the_new_base(bench: Bench) -> None:
    engine, trains_on, gradient = told(bench, 3, 0)
    new = bench.base - 0.3 * gradient
    trains_on.rebase(new, True)
    assert engine.model_digest() == digest(new)
    assert engine.progress.steps == 0


def test_of_a_fragment_that_was_told_alone_the_others_go_on_as_they_are(bench: Bench) -> None:
    engine, part = bench.loaded(), slice(100, 300)
    run(engine, 3)
    gradient = engine.pseudo_gradient()
    assert isinstance(engine, TrainsOn)
    engine.tell(part)
    run(engine, 2)
    whole = engine.pseudo_gradient()
    new = bench.base.clone()
    new[part] -= 0.5 * gradient[part]
    engine.rebase(new, True)
    assert engine.progress.steps == 2
    after = engine.pseudo_gradient()
    torch.testing.assert_close(after[part], (whole - gradient)[part], atol=1e-6, rtol=1e-4)
    after[part] = whole[part]
    assert torch.equal(after, whole)
    # The next one is told, does not count, and meets a base that others moved elsewhere.
    engine.tell(slice(0, 100))
    later = new.clone()
    later[part] += 1
    before = engine.pseudo_gradient()
    engine.rebase(later, False)
    assert engine.progress.steps == 2
    torch.testing.assert_close(engine.pseudo_gradient(), before, atol=1e-6, rtol=1e-4)
    assert digest(new) != digest(later)
    # Loading a base forgets what no fragment has told.
    engine.load(later)
    assert not engine.pseudo_gradient().any()


def test_a_checkpoint_holds_what_was_told_and_what_was_trained_since_as_if_nothing_had_been_told(
    bench: Bench, path: Path
) -> None:
    engine, _, _ = told(bench, 3, 2)
    engine.save(path)
    other = bench.loaded()
    assert other.restore(path, digest(bench.base))
    assert other.progress.steps == 5
    assert other.model_digest() == engine.model_digest()


def test_telling_twice_or_going_over_to_a_base_without_is_refused(bench: Bench) -> None:
    engine, trains_on, _ = told(bench, 1, 0)
    with pytest.raises(RuntimeError, match="on its way"):
        trains_on.tell()
    engine.load(bench.base)
    with pytest.raises(RuntimeError, match="nothing was told"):
        trains_on.rebase(bench.base, True)
    trains_on.tell()
    with pytest.raises(ValueError, match="elements"):
        trains_on.rebase(bench.base[1:], True)


def test_the_same_seed_trains_to_the_same_bits(bench: Bench) -> None:
    first, second, other = bench.loaded(), bench.loaded(), bench.loaded(seed=2)
    assert run(first, 5) == run(second, 5)
    run(other, 5)
    assert first.model_digest() == second.model_digest() != other.model_digest()


def test_progress_counts_since_the_base_was_loaded(bench: Bench) -> None:
    engine = bench.loaded()
    assert engine.progress == Progress()
    reports = run(engine, 3)
    assert (engine.progress.steps, engine.progress.tokens) == (3, sum(report.tokens for report in reports))
    assert engine.progress.loss_nats == pytest.approx(sum(report.loss_nats for report in reports) / 3)
    engine.load(bench.base)
    assert engine.progress == Progress()


def test_a_killed_engine_goes_on_where_it_saved(bench: Bench, path: Path) -> None:
    engine = bench.loaded()
    run(engine, 3)
    engine.save(path)
    run(engine, 4)

    restored = bench.loaded()
    assert restored.restore(path, digest(bench.base))
    assert restored.progress.steps == 3
    run(restored, 4)
    assert restored.model_digest() == engine.model_digest()
    assert restored.progress == engine.progress
    torch.testing.assert_close(restored.pseudo_gradient(), engine.pseudo_gradient(), rtol=0, atol=0)


def test_a_checkpoint_on_another_base_is_no_progress(bench: Bench, path: Path) -> None:
    engine = bench.loaded()
    run(engine, 3)
    engine.save(path)
    newer = bench.base + 0.01
    other = bench.start(1)
    other.load(newer)
    assert not other.restore(path, digest(newer))
    assert other.model_digest() == digest(newer)
    assert other.progress == Progress()


def test_saving_again_keeps_the_file_before_and_nothing_else(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    engine = bench.loaded()
    for _ in range(2):
        run(engine, 1)
        engine.save(folder / "checkpoint")
    assert sorted(file.name for file in folder.iterdir()) == ["checkpoint", "checkpoint.previous"]
    restored = bench.loaded()
    assert restored.restore(folder / "checkpoint", digest(bench.base))
    assert restored.progress.steps == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: b"not a checkpoint",
        lambda whole: b"\xff" * len(whole),
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:],
        lambda whole: whole.replace(b"3", b"4", 1),
        lambda whole: b'{"local": [1.0]}',
    ],
    ids=["empty", "garbage", "ones", "half", "torn", "bit in the tail", "bit in the head", "foreign"],
)
def test_a_damaged_checkpoint_is_left_aside(bench: Bench, path: Path, damage: Callable[[bytes], bytes]) -> None:
    engine = bench.loaded()
    run(engine, 3)
    engine.save(path)
    path.write_bytes(damage(path.read_bytes()))
    other = bench.loaded()
    assert not other.restore(path, digest(bench.base))
    assert other.model_digest() == digest(bench.base)
    assert other.progress == Progress()
    assert not other.step(4).skipped


def test_a_checkpoint_of_another_seed_is_foreign(bench: Bench, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engine = bench.loaded(seed=2)
    engine.save(path)
    with caplog.at_level(logging.WARNING):
        assert not bench.loaded(seed=1).restore(path, digest(bench.base))
    assert "left aside" in caplog.text


def test_no_checkpoint_is_no_mistake(bench: Bench, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert not bench.loaded().restore(path, digest(bench.base))
    assert not caplog.text


def test_a_folder_for_a_checkpoint_is_left_aside(bench: Bench, path: Path) -> None:
    path.mkdir()
    assert not bench.loaded().restore(path, digest(bench.base))


def test_a_checkpoint_that_cannot_be_written_says_so(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        bench.loaded().save(tmp_path / "nowhere" / "checkpoint")


def test_a_step_that_is_not_finite_is_skipped(bench: Bench) -> None:
    engine = bench.start(1)
    broken = torch.full_like(bench.base, float("nan"))
    engine.load(broken)
    report = engine.step(4)
    assert report.skipped and report.tokens == 0
    assert engine.model_digest() == digest(broken), "an update was made"
    assert engine.progress == Progress(skipped=1)
    engine.load(bench.base)
    assert not engine.step(4).skipped
    assert engine.pseudo_gradient().isfinite().all(), "the optimizer kept something of the broken step"


@pytest.mark.parametrize("wrong", [torch.zeros(7), torch.zeros(2, 2), torch.zeros(1000, dtype=torch.float64)], ids=str)
def test_a_base_of_another_shape_is_refused(bench: Bench, wrong: Tensor) -> None:
    engine = bench.loaded()
    with pytest.raises(ValueError, match="expected"):
        engine.load(wrong)
    assert engine.model_digest() == digest(bench.base)


def test_nothing_happens_before_a_base_is_loaded(bench: Bench, path: Path) -> None:
    engine = bench.start(1)
    for act in (
        lambda: engine.step(4),
        engine.pseudo_gradient,
        lambda: engine.save(path),
        lambda: engine.restore(path, digest(bench.base)),
    ):
        with pytest.raises(RuntimeError, match="base"):
            act()
    assert not path.exists()


def test_only_a_base_that_was_loaded_can_be_gone_on_from(bench: Bench, path: Path) -> None:
    with pytest.raises(RuntimeError, match="load the base"):
        bench.loaded().restore(path, digest(bench.base + 1))


# --- torch alone ------------------------------------------------------------------------------------------------------


def test_optimizer_state_and_cursor_outlive_a_round(torch_bench: Bench, path: Path) -> None:
    """Loading a new base is a restart of the model only: with a fresh optimizer the same steps end elsewhere."""
    kept = torch_bench.loaded()
    run(kept, 5)
    kept.save(path)
    newer = torch_bench.base + 0.01
    kept.load(newer)
    restarted, fresh = torch_bench.start(1), torch_bench.start(1)
    restarted.load(newer)
    assert not restarted.restore(path, digest(newer))
    fresh.load(newer)
    for engine in (kept, restarted, fresh):
        run(engine, 2)
    assert kept.model_digest() == restarted.model_digest() != fresh.model_digest()


def test_a_layout_that_is_not_the_models_is_refused(text_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"embedding.weight\[256, 16\] here, w\[2\] there"):
        TorchEngine(TASK, Layout((TensorSpec("w", (2,)),)), text_dir, seed=1)


def test_data_that_is_missing_is_named(tmp_path: Path) -> None:
    layout = layout_of(TASK.model(0).state_dict())
    with pytest.raises(DataError, match="cannot read text"):
        TorchEngine(TASK, layout, tmp_path / "nowhere", seed=1)


class DescentTask(GptNeoxTask):
    """Plain gradient descent at a learning rate of 1: what moves a weight is the gradient itself."""

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=1.0)


def test_learning_rates_follow_the_tokens_of_the_whole_federation(text_dir: Path) -> None:
    """One site at 192 tokens is where each of three sites is after 64 tokens of its own."""
    task = gpt_neox({**SETTINGS, "rate": "wsd:total=1e4,decay=1e4"})
    engine = torch_engine(task, text_dir, tokens=1000, sites=3)
    run(engine, 2)
    alone = torch_engine(task, text_dir, tokens=1000 + 3 * 32)
    run(alone, 1)
    rates = [group["lr"] for group in engine._optimizer.param_groups]
    assert rates == [group["lr"] for group in alone._optimizer.param_groups]
    assert rates == pytest.approx([0.003 * task.rate(1096)] * 2)


def test_after_the_schedules_end_nothing_moves(text_dir: Path) -> None:
    engine = torch_engine(gpt_neox({**SETTINGS, "rate": "cosine:total=100"}), text_dir, tokens=10**9)
    run(engine, 2)
    assert engine.progress.steps == 2
    assert not engine.pseudo_gradient().any()


def test_the_task_decides_where_gradients_are_clipped(text_dir: Path) -> None:
    engine = torch_engine(DescentTask(gpt_neox({**SETTINGS, "gradient_norm": 0.01}).settings), text_dir)
    run(engine, 1)
    assert engine.pseudo_gradient().norm().item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("accumulation", [2, 3, 9])
def test_a_step_in_parts_is_the_step_as_a_whole(text_dir: Path, accumulation: int) -> None:
    task = DescentTask(TASK.settings)
    whole, parts = torch_engine(task, text_dir), torch_engine(task, text_dir, accumulation=accumulation)
    one, other = run(whole, 3), run(parts, 3)
    assert [report.tokens for report in one] == [report.tokens for report in other]
    assert [report.loss_nats for report in one] == pytest.approx([report.loss_nats for report in other], rel=1e-5)
    torch.testing.assert_close(whole.pseudo_gradient(), parts.pseudo_gradient(), rtol=1e-3, atol=1e-5)


def test_how_a_step_is_passed_through_may_change_between_steps(text_dir: Path) -> None:
    tuned, made = torch_engine(TASK, text_dir), torch_engine(TASK, text_dir, precision="bf16", accumulation=2)
    tuned.tune(2, "bf16")
    assert run(tuned, 3) == run(made, 3)
    tuned.tune(1, "fp32")
    assert run(tuned, 1)[0].passes == 1
    with pytest.raises(ValueError, match="gradient scale"):
        tuned.tune(1, "fp16")


def test_bf16_passes_train_fp32_weights(text_dir: Path) -> None:
    exact, rounded = torch_engine(TASK, text_dir), torch_engine(TASK, text_dir, precision="bf16")
    losses = [[report.loss_nats for report in run(engine, 40)] for engine in (exact, rounded)]
    assert losses[0] != losses[1]
    assert losses[0][0] == pytest.approx(losses[1][0], rel=0.01)
    assert losses[0][-1] == pytest.approx(losses[1][-1], rel=0.1)
    assert rounded.pseudo_gradient().dtype == torch.float32


def test_a_device_that_is_not_there_is_one_line(text_dir: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("it is there")
    with pytest.raises(ValueError, match="no CUDA or ROCm device is there"):
        torch_engine(TASK, text_dir, device="cuda")
    assert torch_engine(TASK, text_dir, device="auto").model_digest() == torch_engine(TASK, text_dir).model_digest()


@pytest.mark.parametrize("settings", [{"optimizer": "muon"}, {"tied": True}], ids=["muon", "tied"])
def test_optimizers_and_tied_weights_survive_a_checkpoint_to_the_bit(
    text_dir: Path, path: Path, settings: dict[str, object]
) -> None:
    task = gpt_neox({**SETTINGS, **settings})
    engine = torch_engine(task, text_dir)
    run(engine, 3)
    engine.save(path)
    restored = torch_engine(task, text_dir)
    assert restored.restore(path, digest(flatten(task.model(0).state_dict(), layout_of_model(task.model(0)))))
    assert run(engine, 3) == run(restored, 3)
    assert engine.model_digest() == restored.model_digest()


def test_state_of_another_optimizer_is_left_aside(text_dir: Path, path: Path) -> None:
    torch_engine(TASK, text_dir).save(path)
    muon = torch_engine(gpt_neox({**SETTINGS, "optimizer": "muon"}), text_dir)
    assert not muon.restore(path, muon.model_digest())


class Statistics(nn.Module):
    """A model with all that is no weight: running statistics, a counter, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, 8)
        self.norm = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(8, 256)

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm(self.embedding(tokens).transpose(1, 2)).transpose(1, 2)
        logits: Tensor = self.head(self.dropout(normed))
        return logits


@dataclass(frozen=True)
class StatisticsTask(GptNeoxTask):
    def model(self, seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return Statistics()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        # A bell breaks the model's inside, not only its loss.
        broken = torch.where((batch.inputs == ord("\a")).any(), float("nan"), 1.0)
        with torch.no_grad():
            model.get_submodule("norm").running_mean.mul_(broken)  # type: ignore[operator]
        return super().loss(model, batch) * broken


STATISTICS = StatisticsTask(TASK.settings)


def test_torchs_global_generator_is_neither_read_nor_moved(text_dir: Path) -> None:
    losses = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        losses.append(run(torch_engine(STATISTICS, text_dir), 3))
        assert torch.equal(torch.get_rng_state(), before)
    assert losses[0] == losses[1]


def test_buffers_and_counters_follow_the_base(text_dir: Path, path: Path) -> None:
    engine = torch_engine(STATISTICS, text_dir)
    layout = layout_of_model(STATISTICS.model(0))
    base = flatten(STATISTICS.model(0).state_dict(), layout)
    run(engine, 3)
    engine.save(path)
    counter = engine._model.module.state_dict()["norm.num_batches_tracked"]
    trained = -engine.pseudo_gradient()[layout.split.trained :]
    assert trained[-1] == counter == 3
    restored = torch_engine(STATISTICS, text_dir)
    assert restored.restore(path, digest(base))
    assert run(engine, 2) == run(restored, 2)
    assert engine.model_digest() == restored.model_digest()
    engine.load(base)
    assert engine.model_digest() == digest(base)
    assert engine._model.module.state_dict()["norm.num_batches_tracked"] == 0


def test_a_broken_batch_leaves_no_trace_in_running_statistics(text_dir: Path) -> None:
    (text_dir / "verse.txt").write_bytes(b"\a" * 1000)
    engine = torch_engine(STATISTICS, text_dir)
    before = engine.model_digest()
    assert all(report.skipped for report in run(engine, 3))
    assert engine.model_digest() == before
    assert engine.progress == Progress(skipped=3)
