"""The benchmark program's own ways out: memory that runs out, a device that is lost, a budget that is used up."""

import importlib.util
import json
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from windfall.profiler.measurement.bench import TORCH_BENCH

Step = Callable[[int], None]


class Counting:
    """A device on which every step takes no time."""

    kind = "cpu"

    def __init__(self) -> None:
        self.forgotten = 0

    def run_s(self, work: Callable[[], object]) -> float:
        work()
        return 0.001

    def forget(self) -> None:
        self.forgotten += 1


@pytest.fixture
def program() -> ModuleType:
    """The program as a module; it is no part of the package."""
    spec = importlib.util.spec_from_file_location("torch_bench_under_test", TORCH_BENCH)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def said(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_memory_that_runs_out_ends_the_sizes_and_not_the_benchmark(
    program: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    device = Counting()

    def step(size: int) -> None:
        if size >= 8:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore of it")

    best = program.step_s_by_micro_batch(device, step, time.perf_counter() + 0.1)
    lines = said(capsys)
    assert {1, 2, 4} <= best.keys() <= {1, 2, 3, 4}
    why = "CUDA out of memory. Tried to allocate 20.00 GiB."
    assert [one["missing"] for one in lines if "missing" in one] == [
        {f"step_s_by_micro_batch.{size}": why} for size in (8, 16, 32, 64, 128)
    ]
    assert device.forgotten == 1
    assert sum("step_s_by_micro_batch.4" in one.get("timed", {}) for one in lines) > 1


def test_a_budget_that_is_used_up_names_what_had_no_turn(
    program: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    program.step_s_by_micro_batch(Counting(), lambda size: None, time.perf_counter())
    missing = [name for one in said(capsys) for name in one.get("missing", {})]
    assert missing == [f"step_s_by_micro_batch.{size}" for size in (2, 4, 8, 16, 32, 64, 128)]


def test_a_device_that_is_lost_is_a_reason(program: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def lost(size: int) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure\nCompile with TORCH_USE_CUDA_DSA")

    def steps() -> None:
        program.step_s_by_micro_batch(Counting(), lost, time.perf_counter() + 1)

    program.attempt("step_s_by_micro_batch", steps)
    assert said(capsys)[-1] == {"missing": {"step_s_by_micro_batch": "CUDA error: unspecified launch failure"}}


def test_what_this_torch_does_not_have_is_a_reason(program: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    def old() -> None:
        raise AttributeError("module 'torch' has no attribute '_scaled_mm'")

    program.attempt("matmul_gflops_by_dtype.fp8", old)
    (line,) = said(capsys)
    assert line["missing"].keys() == {"matmul_gflops_by_dtype.fp8"}


def test_runs_of_one_piece_of_work_fit_a_line(program: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever listens reads lines of at most 64 KiB."""
    program.say_timed("matmul_gflops", 1 / 3, [1 / 3e4] * program.MOST_RUNS)
    assert len(capsys.readouterr().out) < 2**16


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({1: 10.0}, [1]),
        ({1: 10.0, 2: 11.0}, [1, 2]),
        ({8: 10.0, 16: 30.0, 32: 31.0, 64: 12.0}, [16, 24, 32, 48]),
        ({16: 30.0, 24: 33.0, 32: 31.0}, [16, 20, 24, 28, 32]),
        ({1: 50.0, 64: 90.0, 128: 100.0}, [64, 96, 128]),
    ],
)
def test_who_may_still_be_the_fastest_gets_more_turns_and_so_does_what_lies_between(
    rates: dict[int, float], expected: list[int], program: ModuleType
) -> None:
    assert program.contenders({size: size / rate for size, rate in rates.items()}) == expected
