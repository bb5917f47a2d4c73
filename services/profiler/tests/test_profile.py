"""The decisions: what a measurement says, what is kept, what is recommended and why."""

from datetime import timedelta

import pytest

from windfall.contracts.events import Measured
from windfall.contracts.hardware import Accelerator, Hardware
from windfall.profiler.profile import (
    COMPUTE_PARTS,
    LINK_PARTS,
    Benchmarked,
    Compute,
    Host,
    Link,
    absent,
    fingerprint,
    merge,
    reusable,
    summarise,
)
from windfall.profiler.recommendation import Goals, recommend

HOST = Host(cpu_model="EPYC", cpu_cores=2, memory_bytes=2**33, platform="Linux x86_64")
COMPUTE = Compute(matmul_gflops=100.0, memory_bandwidth_gb_per_s=20.0, step_s_by_micro_batch={1: 0.01})
LINK = Link(link_rtt_ms=1.0, link_up_mb_per_s=2.0, link_down_mb_per_s=3.0)
HARDWARE = Hardware(accelerators=(Accelerator(vendor="nvidia", model="any", driver="1", throttled=()),))
GOALS = Goals(target_round=timedelta(seconds=30), fallback_micro_batch=4, fallback_local_steps=20)


@pytest.mark.parametrize(
    ("compute", "link", "missing"),
    [
        pytest.param(COMPUTE, LINK, {}, id="everything"),
        pytest.param(
            COMPUTE,
            Link(missing=absent(LINK_PARTS, "away")),
            dict.fromkeys(LINK_PARTS, "away"),
            id="no-link",
        ),
        pytest.param(
            Compute(matmul_gflops=1.0, missing={"step_s_by_micro_batch": "no torch"}),
            LINK,
            {
                "step_s_by_micro_batch": "no torch",
                "memory_bandwidth_gb_per_s": "its probe said nothing of it",
            },
            id="some-compute",
        ),
        pytest.param(
            merge(COMPUTE, Compute(missing={"step_s_by_micro_batch.32": "out of memory"})),
            LINK,
            {"step_s_by_micro_batch.32": "out of memory"},
            id="one-micro-batch",
        ),
        pytest.param(
            merge(COMPUTE, Compute(missing={"matmul_gflops": "an attempt failed, the next did not"})),
            LINK,
            {},
            id="measured-after-all",
        ),
    ],
)
def test_what_has_no_value_is_missing_with_a_reason(compute: Compute, link: Link, missing: dict[str, str]) -> None:
    measured = summarise("mark", HOST, compute, link)
    assert measured.missing == missing
    assert measured.fingerprint == "mark"
    assert (measured.cpu_model, measured.cpu_cores, measured.memory_bytes) == ("EPYC", 2, 2**33)
    assert measured.matmul_gflops == compute.matmul_gflops
    assert measured.link_up_mb_per_s == link.link_up_mb_per_s
    assert Measured.model_validate_json(measured.model_dump_json()) == measured


def test_fp32_stands_beside_the_other_types() -> None:
    some = merge(COMPUTE, Compute(matmul_gflops_by_dtype={"bf16": 300.0}))
    assert summarise("mark", HOST, some, LINK).matmul_gflops_by_dtype == {"fp32": 100.0, "bf16": 300.0}
    assert summarise("mark", HOST, COMPUTE, LINK).matmul_gflops_by_dtype == {}


def test_a_host_without_a_model_name_says_so() -> None:
    host = HOST.model_copy(update={"missing": {"cpu_model": "no model name in cpuinfo"}})
    assert summarise("mark", host, COMPUTE, LINK).missing == {"cpu_model": "no model name in cpuinfo"}


def test_parts_are_called_what_the_contract_calls_them() -> None:
    assert set(COMPUTE_PARTS + LINK_PARTS) < set(Measured.model_fields)


@pytest.mark.parametrize(
    ("step_s", "micro_batch", "local_steps", "because"),
    [
        pytest.param(
            {1: 0.010, 2: 0.012, 4: 0.016, 8: 0.040},
            4,
            1875,
            "Micro-batch 4 gives 250 reference samples/s (the best measured); "
            "1875 steps of 16 ms fill a round of 30 s.",
            id="knee",
        ),
        pytest.param(
            {8: 0.0810, 16: 0.160},
            8,
            370,
            "Micro-batch 8 gives 98.8 reference samples/s (within 2 % of the best, 100 at 16); "
            "370 steps of 81 ms fill a round of 30 s.",
            id="smallest-near-the-best",
        ),
        pytest.param(
            {8: 0.085, 16: 0.160},
            16,
            187,
            "Micro-batch 16 gives 100 reference samples/s (the best measured); "
            "187 steps of 160 ms fill a round of 30 s.",
            id="not-near-enough",
        ),
        pytest.param(
            {1: 75.0},
            1,
            1,
            "Micro-batch 1 gives 0.0133 reference samples/s (the best measured); "
            "one step of 75 s is longer than a round of 30 s.",
            id="step-longer-than-round",
        ),
        pytest.param(
            {1: 0.0, 2: 0.1},
            2,
            300,
            "Micro-batch 2 gives 20 reference samples/s (the best measured); 300 steps of 100 ms fill a round of 30 s.",
            id="a-step-that-took-no-time-is-no-step",
        ),
        pytest.param(
            {},
            4,
            20,
            "No training step could be measured (no torch), so the defaults stand.",
            id="nothing-measured",
        ),
    ],
)
def test_recommendation(step_s: dict[int, float], micro_batch: int, local_steps: int, because: str) -> None:
    compute = Compute(step_s_by_micro_batch=step_s, missing={} if step_s else {"step_s_by_micro_batch": "no torch"})
    advice = recommend(summarise("mark", HOST, compute, LINK), GOALS)
    assert (advice.micro_batch, advice.local_steps) == (micro_batch, local_steps)
    assert advice.because == because


def test_a_recommended_round_fits_its_target() -> None:
    for step_s in (0.0007, 0.013, 0.9, 29.0):
        steps = recommend(summarise("mark", HOST, Compute(step_s_by_micro_batch={1: step_s}), LINK), GOALS).local_steps
        assert steps * step_s <= 30.0 < (steps + 1) * step_s


@pytest.mark.parametrize(
    ("host", "benchmark", "same"),
    [
        pytest.param(HOST, "bench 1", True, id="nothing"),
        pytest.param(HOST.model_copy(update={"missing": {"cpu_model": "why"}}), "bench 1", True, id="only-a-reason"),
        pytest.param(HOST.model_copy(update={"cpu_model": "Xeon"}), "bench 1", False, id="processor"),
        pytest.param(HOST.model_copy(update={"cpu_cores": 1}), "bench 1", False, id="cores"),
        pytest.param(HOST.model_copy(update={"memory_bytes": 2**32}), "bench 1", False, id="memory"),
        pytest.param(HOST.model_copy(update={"platform": "Linux aarch64"}), "bench 1", False, id="platform"),
        pytest.param(HOST, "bench 2", False, id="benchmark"),
    ],
)
def test_the_fingerprint_changes_with(host: Host, benchmark: str, same: bool) -> None:
    assert (fingerprint(host, HARDWARE, benchmark) == fingerprint(HOST, HARDWARE, "bench 1")) is same


def test_the_fingerprint_follows_hardware_and_driver_and_not_how_busy_it_is() -> None:
    (gpu,) = HARDWARE.accelerators

    def of(**changed: object) -> str:
        changed_gpu = gpu.model_copy(update=changed)
        return fingerprint(HOST, HARDWARE.model_copy(update={"accelerators": (changed_gpu,)}), "bench 1")

    assert of(throttled=("sw-power-cap",)) == of(ecc_uncorrected=3) == of()
    assert len({of(), of(driver="2"), of(memory_bytes=1), of(power_limit_w=300.0)}) == 4


SOME_STEPS = merge(COMPUTE, Compute(missing={"step_s_by_micro_batch.32": "no budget left"}))


@pytest.mark.parametrize(
    ("kept", "found"),
    [
        pytest.param(None, None, id="nothing-kept"),
        pytest.param(Benchmarked(fingerprint="now", compute=COMPUTE), COMPUTE, id="same-hardware"),
        pytest.param(Benchmarked(fingerprint="then", compute=COMPUTE), None, id="other-hardware"),
        pytest.param(Benchmarked(fingerprint="now", compute=Compute(matmul_gflops=1.0)), None, id="incomplete"),
        pytest.param(Benchmarked(fingerprint="now", compute=SOME_STEPS), SOME_STEPS, id="some-micro-batches"),
    ],
)
def test_a_benchmark_is_reused(kept: Benchmarked | None, found: Compute | None) -> None:
    assert reusable(kept, "now") == found


def test_merging_keeps_both_and_believes_the_later() -> None:
    earlier = Compute(matmul_gflops=1.0, step_s_by_micro_batch={1: 1.0, 2: 2.0}, missing={"a": "x"})
    later = Compute(memory_bandwidth_gb_per_s=3.0, step_s_by_micro_batch={2: 2.5}, missing={"b": "y"})
    assert merge(earlier, later) == Compute(
        matmul_gflops=1.0,
        memory_bandwidth_gb_per_s=3.0,
        step_s_by_micro_batch={1: 1.0, 2: 2.5},
        missing={"a": "x", "b": "y"},
    )
