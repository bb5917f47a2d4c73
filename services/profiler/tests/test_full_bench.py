"""The whole benchmark: its real programs on this machine, and recorded machines with counters."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from windfall.profiler.measurement.bench import TorchBench
from windfall.profiler.measurement.full import FullBench
from windfall.profiler.measurement.power import POWER_PARTS, PowerMeter, Watched, powered
from windfall.profiler.profile import Compute, Host, Trained, Workload
from windfall.profiler.testing.recorded_machine import load, replayed

HOST = Host(cpu_model="any", cpu_cores=1, memory_bytes=8 * 2**30)
LONG = timedelta(seconds=60)
SPEAKS = """
import json, time
print(json.dumps({"device": "cuda"}), flush=True)
begun = time.monotonic()
time.sleep(2)
print(json.dumps({"timed": {"step_s_by_micro_batch.8": {"s": [0.02, 0.02, 0.02, 0.02]}}}))
print(json.dumps({"trained": {"begin_s": begun, "end_s": time.monotonic(), "samples": 60}}))
"""
SUMS = """
print('{"all_reduce_ranks": 8, "timed": {"all_reduce_gb_per_s": {"amount": 0.5, "s": [0.002, 0.002]}}}')
"""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of counters starts late on a machine that is busy."""
    monkeypatch.setattr("windfall.profiler.measurement.power.FIRST_WITHIN", LONG)


def program(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


def counted() -> dict[str, Any]:
    """Two H100 of a recorded machine with counters that run."""
    machine = load("hgx-h100-80gb")
    machine["nvml"]["devices"] = [one | {"power_mw": 300_000, "energy_mj": 5_000} for one in machine["nvml"]["devices"]]
    return machine


def bench(folder: Path, machine: dict[str, Any], speaks: str = SPEAKS, sums: str = SUMS) -> FullBench:
    there = replayed(machine, folder / "machine")
    return FullBench(
        TorchBench(LONG, program=program(folder, "speaks", speaks), full=True),
        PowerMeter(LONG, environment=there.environment, root=there.root),
        LONG,
        LONG,
        program=program(folder, "sums", sums),
    )


async def test_power_is_read_before_and_while_it_trains(tmp_path: Path) -> None:
    machine = counted()
    found = await bench(tmp_path, machine).compute(HOST)
    watts = 300.0 * len(machine["nvml"]["devices"])
    assert found.power_idle_w == pytest.approx(watts, rel=0.05)
    assert found.power_train_w == pytest.approx(watts, rel=0.05)
    assert found.trained is not None
    lasted = found.trained.end_s - found.trained.begin_s
    assert found.joules_per_sample == pytest.approx(watts * lasted / 60, rel=0.05)
    assert (found.all_reduce_gb_per_s, found.all_reduce_ranks) == (250.0, 8)
    assert found.intervals.keys() == {"step_s_by_micro_batch.8", "power_idle_w", "power_train_w"}
    assert found.device == "cuda"
    assert found.missing == {}


async def test_a_node_without_counters_says_so_and_is_measured(tmp_path: Path) -> None:
    found = await bench(tmp_path, load("none")).compute(HOST)
    assert found.step_s_by_micro_batch == {8: 0.02}
    assert found.missing == dict.fromkeys(
        POWER_PARTS, "no device here has a counter of power or energy that can be read"
    )


async def test_a_gpu_that_disappears_leaves_the_rest(tmp_path: Path) -> None:
    machine = counted()
    machine["nvml"]["devices"][0]["energy_mj"] = {"error": 15}
    gone = SPEAKS + "\nraise RuntimeError('CUDA error: unspecified launch failure')\n"
    found = await bench(tmp_path, machine, gone, "raise SystemExit('no device')").compute(HOST)
    assert found.step_s_by_micro_batch == {8: 0.02}
    assert "nvidia.0: was lost: GPU is lost" in found.missing["power_train_w"]
    assert found.missing["matmul_gflops"] == "the benchmark ended with code 1; its own words are in the log"
    assert found.missing["all_reduce_gb_per_s"] == "the benchmark ended with code 1"


async def test_a_driver_that_hangs_costs_its_deadline_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("windfall.profiler.measurement.power.FIRST_WITHIN", timedelta(milliseconds=300))
    machine = counted()
    machine["nvml"]["init"] = "hang"
    found = await bench(tmp_path, machine).compute(HOST)
    assert found.step_s_by_micro_batch == {8: 0.02}
    assert set(POWER_PARTS) <= found.missing.keys()


async def test_the_processor_s_counter_is_read(tmp_path: Path) -> None:
    package = "sys/class/powercap/intel-rapl:0"
    files = {f"{package}/energy_uj": "1000000", f"{package}/max_energy_range_uj": "262143328850"}
    found = await bench(tmp_path, load("none") | {"files": files}).compute(HOST)
    assert found.power_idle_w == found.power_train_w == 0.0
    assert found.joules_per_sample == 0.0


def test_training_without_a_reading_is_missing() -> None:
    watched = Watched()
    found = powered(Compute(trained=Trained(begin_s=0, end_s=1, samples=1)), watched, 0)
    assert found.missing.keys() == set(POWER_PARTS)


def test_the_version_follows_task_extent_and_both_programs(tmp_path: Path) -> None:
    def version(
        speaks: str = "1",
        sums: str = "1",
        full: bool = True,
        workload: Workload | None = None,
        data: Path | None = tmp_path,
    ) -> str:
        torch = TorchBench(
            LONG, program=program(tmp_path, "speaks", speaks), full=full, workload=workload, data_dir=data
        )
        return FullBench(torch, PowerMeter(LONG), LONG, LONG, program=program(tmp_path, "sums", sums)).version

    task, other = Workload(task="gpt-neox"), Workload(task="gpt-neox", settings='{"width": 64}')
    assert len({version(), version("2"), version(sums="2"), version(full=False)}) == 4
    assert len({version(), version(workload=task), version(workload=other)}) == 3
    assert version(workload=task) == version(workload=Workload(task="gpt-neox"))
    # Without data there is no step of the task to be measured.
    assert version(workload=task, data=None) == version(data=None) == version()


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_this_machine_is_measured_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a task of ``windfall.tasks`` on a little text."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "text.txt").write_text("The sun came out and the site went on. " * 400)
    settings = {"layers": 1, "heads": 2, "width": 32, "context": 32}
    # It aims at six seconds, and on a machine that is busy may take as long as it does.
    patience = timedelta(minutes=3)
    monkeypatch.setattr("windfall.profiler.measurement.bench.AIM", 6 / patience.total_seconds())
    torch = TorchBench(
        patience, patience, full=True, workload=Workload(task="gpt-neox", settings=json.dumps(settings)), data_dir=data
    )
    found = await FullBench(torch, PowerMeter(3 * patience), timedelta(seconds=1), patience).compute(HOST)
    assert found.complete, found.missing
    assert found.task == "gpt-neox", found.missing
    assert found.matmul_gflops_by_dtype.keys() | {part.rpartition(".")[2] for part in found.missing} >= {"bf16", "fp8"}
    assert (found.all_reduce_gb_per_s or 0) > 0, found.missing
    assert found.trained is not None
    assert found.intervals
