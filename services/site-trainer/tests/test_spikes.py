"""The rule that skips spikes: it is silent where training is noisy, it sees what is broken, and it does not insist."""

from math import exp
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.lowcomm.layout import flatten, layout_of_model
from windfall.site_trainer.engine import Progress, Skip
from windfall.site_trainer.spikes import PATIENCE, SETTLING, WARM_UP, Recent, judged, limits, on_new_base
from windfall.site_trainer.torch_engine import TorchEngine
from windfall.tasks.gpt_neox import gpt_neox

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


def learnt(seed: int = 1, steps: int = 200) -> Recent:
    """After ordinary steps: losses near 3, norms near 1."""
    random, recent = Random(seed), Recent()
    for _ in range(steps):
        recent, _ = judged(recent, random.gauss(3, 0.1), exp(random.gauss(0, 0.3)))
    return recent


def test_ordinary_noise_on_a_falling_loss_is_never_a_spike() -> None:
    for seed in range(20):
        random, recent = Random(seed), Recent()
        for step in range(1000):
            falling = 1.5 + 3 * exp(-step / 200)
            recent, spike = judged(recent, falling * random.lognormvariate(0, 0.15), random.lognormvariate(0, 0.7))
            assert not spike, f"seed {seed}, step {step}"


def test_a_step_far_beyond_the_recent_ones_is_a_spike() -> None:
    recent = learnt()
    loss, norm = limits(recent)
    assert 3.5 < loss < 4.5 and 2 < norm < 6
    assert judged(recent, 8.0, 50.0)[1]


@pytest.mark.parametrize(("loss", "norm"), [(8.0, 1.0), (3.0, 1000.0)], ids=["a hard batch", "a long gradient"])
def test_one_measure_alone_is_no_spike_and_hides_none(loss: float, norm: float) -> None:
    recent, spike = judged(learnt(), loss, norm)
    assert not spike
    assert judged(recent, 8.0, 50.0)[1]


def test_a_spike_does_not_hide_the_next_one() -> None:
    recent, spike = judged(learnt(), 1e6, 1e9)
    assert spike
    assert judged(recent, 8.0, 50.0)[1]


def test_nothing_is_judged_before_there_is_something_to_judge_by() -> None:
    assert not judged(learnt(steps=WARM_UP - 1), 1e6, 1e9)[1]
    assert judged(learnt(steps=WARM_UP), 1e6, 1e9)[1]


def test_a_new_base_is_given_time() -> None:
    recent = on_new_base(learnt())
    for _ in range(SETTLING):
        recent, spike = judged(recent, 3.3, 2.0)
        assert not spike
    assert judged(recent, 8.0, 50.0)[1]
    assert not judged(on_new_base(recent), 8.0, 50.0)[1]


def test_a_change_that_stays_is_accepted() -> None:
    recent, skipped = learnt(), 0
    for _ in range(100):
        recent, spike = judged(recent, 30.0, 50.0)
        skipped += spike
    assert skipped == PATIENCE - 1
    assert judged(recent, 300.0, 5000.0)[1], "what is new is learnt"


@given(st.lists(st.tuples(finite, st.floats(0, 1e30)), max_size=200))
def test_whatever_comes_it_never_skips_for_ever(steps: list[tuple[float, float]]) -> None:
    recent, row = Recent(), 0
    for loss, norm in steps:
        recent, spike = judged(recent, loss, norm)
        row = row + 1 if spike else 0
        assert row < PATIENCE


def test_a_broken_batch_is_skipped_in_real_training_and_nothing_else_is(tmp_path: Path) -> None:
    """Text, then noise for a few steps, then text: of 3 rounds of 60 steps only steps of noise are skipped."""
    text = tmp_path / "text"
    text.mkdir()
    (text / "verse.txt").write_text("the wind blows where it will; " * 200)
    noise = tmp_path / "noise"
    noise.mkdir()
    (noise / "noise.txt").write_bytes(Random(1).randbytes(6000))
    task = gpt_neox({"width": 16, "layers": 1, "heads": 2, "context": 16, "learning_rate": 0.01, "rate": "constant"})
    model = task.model(0)
    layout = layout_of_model(model)
    engine = TorchEngine(task, layout, text, seed=1)
    base = flatten(model.state_dict(), layout)
    for _ in range(3):
        engine.load(base)
        assert [engine.step(4).skipped for _ in range(60)] == [None] * 60
        base = base - engine.pseudo_gradient()
    engine.load(base)
    for _ in range(SETTLING):
        engine.step(4)
    before, steps = engine.model_digest(), engine.progress.steps
    whole = engine._samples.loader
    engine._samples.loader = task.loader(noise, 1)
    assert [engine.step(4).skipped for _ in range(2)] == [Skip.SPIKE] * 2
    assert engine.model_digest() == before
    engine._samples.loader = whole
    assert engine.step(4).skipped is None
    assert engine.progress == Progress(steps + 1, engine.progress.tokens, engine.progress.loss_nats, spikes=2)
