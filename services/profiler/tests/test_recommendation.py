"""What is recommended of a measurement: bounded, the same for the same, and what an owner wants instead."""

import random
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.events import Measured
from windfall.contracts.measures import Dtype
from windfall.profiler.recommendation import (
    CHANCE,
    NEAR_BEST,
    WORTH_ROUNDING,
    Goals,
    Wishes,
    precision_of,
    recommend,
    smoothed,
)

ROUND = timedelta(seconds=30)
GOALS = Goals(ROUND)
DTYPES: tuple[Dtype, ...] = ("fp32", "bf16")
STEPS = st.dictionaries(st.sampled_from([1, 2, 4, 8, 16, 32, 64]), st.floats(1e-4, 100), min_size=1)
SPEEDS = st.floats(0.1, 1e6)


def measured(steps: dict[int, float], **dtypes: float) -> Measured:
    return Measured(
        fingerprint="x",
        cpu_model="x",
        cpu_cores=1,
        memory_bytes=1,
        step_s_by_micro_batch=steps,
        matmul_gflops_by_dtype={dtype: dtypes[dtype] for dtype in DTYPES if dtype in dtypes},
    )


@given(STEPS)
def test_what_is_recommended_was_measured_and_is_near_the_best(steps: dict[int, float]) -> None:
    found = recommend(measured(steps), GOALS)
    assert found == recommend(measured(steps), GOALS)
    rates = {size: size / step_s for size, step_s in steps.items()}
    # Chance may be evened out, both ways.
    assert rates[found.micro_batch] >= NEAR_BEST * max(rates.values()) * (1 - CHANCE) / (1 + CHANCE)
    assert found.local_steps == 1 or found.local_steps * steps[found.micro_batch] <= ROUND.total_seconds() * 1.0001
    assert found.because.endswith(".")


SIZES = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128)


def on_a_line(own_s: float, each_s: float) -> dict[int, float]:
    return {size: own_s + each_s * size for size in SIZES}


@given(st.floats(0, 1), st.floats(1e-4, 1), st.randoms(use_true_random=False))
def test_chance_of_a_few_percent_costs_less_than_five(own_s: float, each_s: float, draws: random.Random) -> None:
    truth = on_a_line(own_s, each_s)
    found = recommend(measured({size: s * (1 + draws.uniform(-0.03, 0.03)) for size, s in truth.items()}), GOALS)
    rates = {size: size / s for size, s in truth.items()}
    assert rates[found.micro_batch] >= 0.95 * max(rates.values())


def test_what_is_far_off_the_line_is_what_was_measured() -> None:
    truth = on_a_line(0.02, 0.003)
    # The largest do not fit a cache.
    steps = truth | {96: 1.6 * truth[96], 128: 2 * truth[128]}
    found = smoothed(steps)
    assert found[128] == steps[128]
    assert recommend(measured(steps), GOALS).micro_batch == 64
    assert smoothed({8: 0.1, 16: 0.3, 32: 0.2}) == {8: 0.1, 16: 0.3, 32: 0.2}


@given(STEPS, st.floats(1, 100))
def test_a_slower_node_never_gets_more_steps(steps: dict[int, float], slower: float) -> None:
    fast = recommend(measured(steps), GOALS)
    slow = recommend(measured({size: slower * step_s for size, step_s in steps.items()}), GOALS)
    if slow.micro_batch == fast.micro_batch:  # rounding may tip two that are alike
        assert slow.local_steps <= fast.local_steps


@given(STEPS, st.integers(1, 1000), st.integers(0, 1000))
def test_a_step_sees_what_is_wanted_and_not_a_pass_more(steps: dict[int, float], wanted: int, more: int) -> None:
    found, larger = (recommend(measured(steps), Goals(ROUND, step_samples=n)) for n in (wanted, wanted + more))
    assert wanted <= found.micro_batch * found.gradient_accumulation < wanted + found.micro_batch
    assert larger.gradient_accumulation >= found.gradient_accumulation
    assert larger.local_steps <= found.local_steps


@given(SPEEDS, SPEEDS)
def test_bf16_is_never_recommended_where_it_is_slower(fp32: float, bf16: float) -> None:
    found = recommend(measured({8: 0.1}, fp32=fp32, bf16=bf16), GOALS).precision
    assert found == ("bf16" if bf16 / fp32 >= WORTH_ROUNDING else "fp32")
    assert found == "fp32" or bf16 > fp32


def test_what_was_not_measured_is_not_guessed() -> None:
    unknown: list[dict[Dtype, float]] = [{}, {"fp32": 1.0}, {"bf16": 1.0}, {"fp32": 0.0, "bf16": 1.0}]
    for dtypes in unknown:
        assert precision_of(dtypes) == (None, "")
    assert recommend(measured({8: 0.1}), GOALS).precision is None


@pytest.mark.parametrize(
    ("wishes", "because"),
    [
        (Wishes(micro_batch=16), "150 steps of 200 ms fill a round of 30 s; micro batch as told."),
        (Wishes(local_steps=7), "Micro-batch 8 gives 80 reference samples/s (the best measured); local steps as told."),
        (Wishes(micro_batch=2, gradient_accumulation=3, local_steps=5, precision="bf16"), None),
    ],
)
def test_an_owner_has_the_last_word_on_each_value(wishes: Wishes, because: str | None) -> None:
    found = recommend(measured({8: 0.1}), Goals(ROUND, wishes=wishes))
    assert all(getattr(found, name) == wish for name, wish in wishes.model_dump(exclude_none=True).items())
    assert because is None or found.because == because


@given(st.builds(Wishes, micro_batch=st.none() | st.integers(1, 99), local_steps=st.none() | st.integers(1, 99)))
def test_an_owner_is_heeded_where_nothing_was_measured(wishes: Wishes) -> None:
    found = recommend(measured({}), Goals(ROUND, wishes=wishes))
    assert found.micro_batch == wishes.micro_batch or wishes.micro_batch is None
    assert found.because
