"""The doubles of vendors' libraries have the calls of the real ones; where a GPU is at hand, we are held to it."""

import asyncio
import importlib.util
import inspect
import os
import shutil
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest

from windfall.contracts.hardware import Hardware
from windfall.contracts.profile import Local
from windfall.profiler.discovery.hardware import of_node
from windfall.profiler.testing.recorded_machine import RECORDINGS

DOUBLES = RECORDINGS.parent
PROGRAMS = RECORDINGS.parents[1] / "child"


def double(folder: str, name: str, monkeypatch: pytest.MonkeyPatch, recording: str) -> ModuleType:
    monkeypatch.setenv(f"WINDFALL_RECORDED_{'NVML' if name == 'pynvml' else 'AMDSMI'}", str(RECORDINGS / recording))
    spec = importlib.util.spec_from_file_location(f"recorded_{name}", DOUBLES / folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_recorded_nvml_has_the_calls_of_the_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pytest.importorskip("pynvml")
    recorded = double("recorded_nvml", "pynvml", monkeypatch, "hgx-h100-80gb.json")
    names = [name for name in vars(recorded) if name.startswith("nvml")]
    assert len(names) > 20
    for name in names:
        assert list(inspect.signature(getattr(recorded, name)).parameters) == list(
            inspect.signature(getattr(real, name)).parameters
        ), name
    for name in (name for name in vars(recorded) if name.startswith("NVML_")):
        assert getattr(recorded, name) == getattr(real, name), name


@pytest.mark.parametrize(
    ("program", "folder", "name"),
    [("nvml.py", "recorded_nvml", "pynvml"), ("amdsmi_library.py", "recorded_amdsmi", "amdsmi")],
)
def test_every_call_that_is_made_is_recorded(
    monkeypatch: pytest.MonkeyPatch, program: str, folder: str, name: str
) -> None:
    recorded = double(folder, name, monkeypatch, "mixed-a100-mi210.json")
    prefix, module = ("nvml.nvml", "nvml") if name == "pynvml" else ("smi.amdsmi_", "smi")
    text = (PROGRAMS / program).read_text()
    words = text.replace("(", " ").replace(",", " ").replace(")", " ").split()
    calls = {word.removeprefix(f"{module}.") for word in words if word.startswith(prefix)}
    assert len(calls) > 9
    assert {call for call in calls if not hasattr(recorded, call)} == set()


def test_the_real_amdsmi_raises_what_the_double_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured with amdsmi 7.0.2 without ROCm; here it is asked where it is installed so."""
    with pytest.raises(KeyError):
        double("recorded_amdsmi", "amdsmi", monkeypatch, "mi210-8-two-hives.json")
    with pytest.raises(ModuleNotFoundError) as caught:
        double("recorded_amdsmi", "amdsmi", monkeypatch, "none.json")
    assert caught.value.name == "amdsmi"


# --- a GPU at hand ----------------------------------------------------------------------------------------------------


def this_machine(folder: Path) -> tuple[Hardware, Local]:
    found = asyncio.run(of_node(folder, timedelta(seconds=60)).discover())
    return found.hardware, found.local


@pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="there is no NVIDIA GPU here")
def test_what_nvidia_smi_says_of_this_machine_is_what_we_say(tmp_path: Path) -> None:
    hardware, local = this_machine(tmp_path)
    query = "uuid,name,memory.total,driver_version,power.limit,pcie.link.width.max"
    said = subprocess.run(
        ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    ours = [
        [identity.uuid, gpu.model, (gpu.memory_bytes or 0) >> 20, gpu.driver, gpu.power_limit_w, gpu.pcie]
        for gpu, identity in zip(hardware.accelerators, local.accelerators, strict=True)
        if gpu.vendor == "nvidia"
    ]
    theirs = [line.split(", ") for line in said.splitlines()]
    assert [row[:2] for row in ours] == [row[:2] for row in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert abs(mine[2] - int(other[2])) <= 1
        assert mine[3] == other[3]
    assert "nvidia" not in hardware.missing
    assert all(gpu.architecture and gpu.ecc is not None for gpu in hardware.accelerators if gpu.vendor == "nvidia")


@pytest.mark.skipif(not Path("/dev/kfd").exists(), reason="there is no AMD GPU here")
def test_the_amd_gpus_of_this_machine_are_told_whole(tmp_path: Path) -> None:
    hardware, _ = this_machine(tmp_path)
    amd = [gpu for gpu in hardware.accelerators if gpu.vendor == "amd"]
    assert amd
    assert all(gpu.architecture and gpu.memory_bytes for gpu in amd)


def test_this_machine_is_discovered_without_a_mistake(tmp_path: Path) -> None:
    """Whatever it is: processors, memory, kernel and storage are always found."""
    hardware, local = this_machine(tmp_path)
    assert hardware.processor is not None
    assert hardware.system is not None
    assert hardware.storage is not None
    assert hardware.processor.threads == os.cpu_count()
    assert local.storage == str(tmp_path)
    assert len(local.accelerators) == len(hardware.accelerators)
    assert len(local.nics) == len(hardware.nics)


def test_the_real_library_without_a_driver_is_asked(tmp_path: Path) -> None:
    """The child with the real nvidia-ml-py: it says one line and ends, whatever machine this is."""
    pytest.importorskip("pynvml")
    said = subprocess.run(
        [sys.executable, str(PROGRAMS / "nvml.py")], check=True, capture_output=True, text=True
    ).stdout
    first = said.splitlines()[0]
    assert first.startswith(('{"driver"', '{"system"'))
