"""What became of a node's hardware: each kind of drift, and what is none."""

from datetime import UTC, datetime
from typing import Any

import pytest

from windfall.cli.drift import Drift, drifts
from windfall.contracts.events import Measured, Recommendation
from windfall.contracts.hardware import Accelerator, Hardware, Interconnect, Nic, PcieLink, Processor, System
from windfall.contracts.measures import Interval
from windfall.contracts.profile import Identity, Local, Profile

GPU = Accelerator(
    vendor="nvidia",
    model="NVIDIA H100 80GB HBM3",
    canonical_model="h100-sxm5-80gb",
    memory_bytes=80 * 2**30,
    driver="550.54.15",
    pcie=PcieLink(width_max=16),
)
PROCESSOR = Processor(model="EPYC", threads=64, memory_bytes=512 * 2**30)
HARDWARE = Hardware(
    accelerators=(GPU, GPU),
    interconnects=(Interconnect(first=0, second=1, kind="nvlink", links=18, gb_per_s=450.0),),
    processor=PROCESSOR,
    nics=(Nic(up=True, speed_mbit_per_s=100_000),),
    system=System(kernel="6.8.0"),
)
MEASURED = Measured(
    fingerprint="v1",
    cpu_model="EPYC",
    cpu_cores=64,
    memory_bytes=512 * 2**30,
    matmul_gflops=50_000.0,
    step_s_by_micro_batch={8: 0.1},
    link_rtt_ms=20.0,
    link_up_mb_per_s=100.0,
    intervals={"matmul_gflops": Interval(low=49_000, high=51_000, runs=50)},
    benchmark="torch_bench 1, torch 2.13.0",
)


def profile(hardware: dict[str, Any] | None = None, measured: dict[str, Any] | None = None, **more: Any) -> Profile:
    return Profile(
        site="site-a",
        node="site-a-1",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        hardware=HARDWARE.model_copy(update=hardware or {}),
        measured=MEASURED.model_copy(update=measured or {}),
        recommendation=Recommendation(micro_batch=8, local_steps=10, because="it is so"),
        **more,
    )


def gpus(**changed: Any) -> dict[str, Any]:
    return {"accelerators": (GPU, GPU.model_copy(update=changed))}


@pytest.mark.parametrize(
    ("hardware", "measured", "said"),
    [
        pytest.param({"accelerators": (GPU,)}, {}, ("accelerators", "lost", "2 × h100-sxm5-80gb"), id="gpu-lost"),
        pytest.param({"accelerators": (GPU,) * 3}, {}, ("accelerators", "added", "2 × h100-sxm5-80gb"), id="gpu-added"),
        pytest.param(gpus(driver="560.1"), {}, ("nvidia.driver", "changed", "550.54.15"), id="driver"),
        pytest.param(gpus(memory_bytes=70 * 2**30), {}, ("accelerators.1.memory", "smaller", "80.0 GiB"), id="memory"),
        pytest.param(gpus(pcie=PcieLink(width_max=8)), {}, ("accelerators.1.pcie", "slower", "16 lanes"), id="lanes"),
        pytest.param(gpus(partition_mode="mig"), {}, ("accelerators.1.partition_mode", "changed", "none"), id="mig"),
        pytest.param(
            {"interconnects": (Interconnect(first=0, second=1, kind="pcie"),)},
            {},
            ("interconnects.0-1", "slower", "nvlink 450 GB/s"),
            id="nvlink-down",
        ),
        pytest.param(
            {"processor": PROCESSOR.model_copy(update={"memory_bytes": 448 * 2**30})},
            {},
            ("processor.memory", "smaller", "512.0 GiB"),
            id="dimm-lost",
        ),
        pytest.param({"system": System(kernel="6.9.1")}, {}, ("system.kernel", "changed", "6.8.0"), id="kernel"),
        pytest.param(
            {"nics": (Nic(up=True, speed_mbit_per_s=10_000),)}, {}, ("nics", "slower", "100000 Mbit/s"), id="nic"
        ),
        pytest.param({}, {"link_up_mb_per_s": 50.0}, ("link_up_mb_per_s", "slower", "100 MB/s"), id="link"),
        pytest.param({}, {"link_rtt_ms": 30.0}, ("link_rtt_ms", "slower", "20 ms"), id="round-trip"),
        pytest.param(
            {}, {"step_s_by_micro_batch": {8: 0.2}}, ("step_s_by_micro_batch.8", "slower", "0.1 s"), id="step"
        ),
        pytest.param(
            {},
            {"matmul_gflops": 30_000.0, "intervals": {}},
            ("matmul_gflops", "slower", "50,000 GFLOP/s"),
            id="compute",
        ),
    ],
)
def test_what_is_worse_or_other_is_drift(
    hardware: dict[str, Any], measured: dict[str, Any], said: tuple[str, ...]
) -> None:
    found = drifts(profile(), profile(hardware, measured))
    assert [(one.part, one.kind, one.before) for one in found][:1] == [said]
    assert len(found) <= 2


@pytest.mark.parametrize(
    ("hardware", "measured"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param(gpus(throttled=("sw-power-cap",), ecc_uncorrected=1), {}, id="how-busy-it-is"),
        pytest.param(gpus(memory_bytes=int(79.9 * 2**30)), {}, id="what-a-driver-takes"),
        pytest.param({}, {"link_up_mb_per_s": 85.0, "link_rtt_ms": 23.0}, id="within-tolerance"),
        pytest.param({}, {"link_up_mb_per_s": 500.0, "link_rtt_ms": 1.0}, id="better"),
        pytest.param({}, {"link_up_mb_per_s": None}, id="not-measured"),
        pytest.param(
            {},
            {"matmul_gflops": 30_000.0, "intervals": {"matmul_gflops": Interval(low=9_000, high=52_000, runs=5)}},
            id="not-sure",
        ),
        pytest.param(
            {}, {"step_s_by_micro_batch": {8: 0.9}, "benchmark": "torch_bench 2, torch 2.13.0"}, id="other-benchmark"
        ),
        pytest.param({}, {"step_s_by_micro_batch": {8: 0.9}, "task": "resnet"}, id="other-task"),
    ],
)
def test_what_is_no_drift(hardware: dict[str, Any], measured: dict[str, Any]) -> None:
    assert drifts(profile(), profile(hardware, measured)) == []


def test_at_the_site_a_gpu_that_was_replaced_is_known() -> None:
    before, after = (Local(accelerators=(Identity(uuid="GPU-1"), Identity(uuid=uuid))) for uuid in ("GPU-2", "GPU-3"))
    found = drifts(profile(local=before), profile(local=after))
    assert found == [Drift("site-a", "accelerators.1", "replaced", "GPU-2", "GPU-3")]
