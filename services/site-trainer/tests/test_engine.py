"""One body over every engine: what the trainer may count on, whether it trains or only pretends to."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from windfall.lowcomm.layout import Layout, TensorSpec, digest, flatten, layout_of
from windfall.site_trainer.engine import Engine, Progress, StepReport
from windfall.site_trainer.torch_engine import TorchEngine
from windfall.site_trainer.toy import ToyEngine
from windfall.tasks.registry import load_task
from windfall.tasks.task import DataError

TASK = load_task(
    "gpt-neox",
    '{"width": 16, "layers": 1, "heads": 2, "context": 8, "rotary_pct": 0.5, "learning_rate": 0.003}',
)


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


def test_saving_again_replaces_the_file_and_leaves_nothing_beside_it(bench: Bench, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    folder.mkdir()
    engine = bench.loaded()
    for _ in range(2):
        run(engine, 1)
        engine.save(folder / "checkpoint")
    assert [file.name for file in folder.iterdir()] == ["checkpoint"]
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
    assert engine.progress == Progress()
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
