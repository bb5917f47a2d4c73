"""Runs become a value that a busy moment does not move, and an interval that covers it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from windfall.contracts.measures import Interval
from windfall.profiler.measurement.estimates import MOST_RUNS, Timed, estimated, interval, typical, unshared
from windfall.profiler.profile import Compute

QUIET_S = 0.010


def test_a_machine_that_is_busy_half_of_the_time_moves_the_value_little() -> None:
    draws = random.Random(1)
    quiet = [QUIET_S * (1 + draws.uniform(0, 0.02)) for _ in range(40)]
    busy = [one * (100 if draws.random() < 0.5 else 1) for one in quiet]
    assert typical(busy) == pytest.approx(typical(quiet), rel=0.02)


def test_one_run_that_is_too_fast_to_be_true_is_not_believed() -> None:
    assert typical([1e-9, *[QUIET_S] * 20]) == QUIET_S


def test_the_interval_covers_the_true_value_as_often_as_it_says() -> None:
    """Of exponential disturbances, whose lower quartile is -ln(3/4) of their mean."""
    truth = QUIET_S + 0.28768207 * 0.001
    covered = 0
    for seed in range(100):
        draws = random.Random(seed)
        found = interval([QUIET_S + draws.expovariate(1000) for _ in range(60)], typical)
        assert found is not None
        covered += found.low <= truth <= found.high
    assert covered >= 87


@given(st.lists(st.floats(min_value=1e-6, max_value=1e3), min_size=4, max_size=30))
def test_an_interval_is_an_interval_and_the_same_each_time(values: list[float]) -> None:
    found = interval(values, typical)
    assert found is not None
    assert min(values) <= found.low <= found.high <= max(values)
    assert found.runs == len(values)
    assert interval(values, typical) == found


def test_rates_are_work_over_time_and_times_are_themselves() -> None:
    found = estimated(
        {
            "matmul_gflops": Timed(amount=2.0, s=(0.5,) * 8),
            "matmul_gflops_by_dtype.bf16": Timed(amount=8.0, s=(0.5,)),
            "step_s_by_micro_batch.4": Timed(s=(0.25,) * 8),
            "memory_bandwidth_gb_per_s": Timed(amount=1.0),
            "host_to_device_gb_per_s": Timed(amount=1.0, s=(0.0,)),
        }
    )
    assert Compute.model_validate(found) == Compute(
        matmul_gflops=4.0,
        matmul_gflops_by_dtype={"bf16": 16.0},
        step_s_by_micro_batch={4: 0.25},
        intervals={
            "matmul_gflops": Interval(low=4.0, high=4.0, runs=8),
            "step_s_by_micro_batch.4": Interval(low=0.25, high=0.25, runs=8),
        },
    )


def test_the_interval_of_a_rate_is_turned_around() -> None:
    found = estimated({"matmul_gflops": Timed(amount=1.0, s=(0.1, 0.2, 0.3, 0.4, 0.5))})
    about = found["intervals"]["matmul_gflops"]
    assert about.low <= found["matmul_gflops"] <= about.high


def test_runs_are_kept_up_to_a_bound() -> None:
    kept = Timed()
    for _ in range(3):
        kept = kept.and_(Timed(s=(1.0,) * 150))
    assert len(kept.s) == MOST_RUNS


def test_a_step_is_as_long_as_it_were_if_nothing_else_used_the_processor() -> None:
    """Somebody else has the processor half of the time, and long steps wait for it more than short ones."""
    alone = {1: 0.010, 8: 0.040, 64: 0.300}
    shared = {1: (1.0, 1.5, 1.2), 8: (1.3, 2.0, 1.8), 64: (2.0, 2.2, 2.5)}
    runs = {
        size: Timed(
            s=tuple(seconds * stretch for stretch in shared[size]),
            # They wait for each other for a quarter of a step.
            own_s=(seconds * 0.75,) * 3,
        )
        for size, seconds in alone.items()
    }
    found = unshared(runs)
    assert {size: typical(times) for size, times in found.items()} == pytest.approx(alone)
    told = estimated({f"step_s_by_micro_batch.{size}": one for size, one in runs.items()})
    assert told["step_s_by_micro_batch"] == {str(size): pytest.approx(seconds) for size, seconds in alone.items()}


@given(
    st.dictionaries(
        st.integers(1, 512),
        st.lists(st.tuples(st.floats(1e-4, 10), st.floats(1, 50)), min_size=1, max_size=6),
        min_size=1,
    )
)
def test_and_never_longer_than_it_was_seen_to_take_nor_shorter_than_its_processor_time(
    sizes: dict[int, list[tuple[float, float]]],
) -> None:
    runs = {
        size: Timed(s=tuple(own * stretch for own, stretch in each), own_s=tuple(own for own, _ in each))
        for size, each in sizes.items()
    }
    for size, times in unshared(runs).items():
        for time_s, (own, stretch) in zip(times, sizes[size], strict=True):
            assert own * (1 - 1e-9) <= time_s <= own * stretch * (1 + 1e-9)


def test_where_processor_time_is_not_told_wall_time_counts() -> None:
    told = estimated({"step_s_by_micro_batch.8": Timed(s=(0.2, 0.2)), "step_s_by_micro_batch.4": Timed(s=(0.1,))})
    assert told["step_s_by_micro_batch"] == {"8": 0.2, "4": 0.1}
