"""Vendors' software that is broken, half installed, slow or gone: it is reported as what it is, the rest is kept."""

import copy
import os
import re
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from windfall.contracts.hardware import Hardware
from windfall.profiler.discovery.amd import AmdSmi
from windfall.profiler.discovery.gpus import Gpus
from windfall.profiler.discovery.hardware import Discovery, together
from windfall.profiler.discovery.nvidia import Nvml
from windfall.profiler.discovery.part import Part
from windfall.profiler.testing.recorded_machine import Replayed, load, replayed

LONG, SHORT = timedelta(seconds=60), timedelta(seconds=2)
LOST, RESET = 15, 16


async def patiently(ask: Callable[[timedelta], Awaitable[Hardware]], hung: str) -> Hardware:
    """What is told when something hangs; a busy machine that did not come as far within the time is given more."""
    for within_s in (2, 8, 32):
        hardware = await ask(timedelta(seconds=within_s))
        if any(re.search(hung.replace("TIME", f"{within_s} s"), why) for why in hardware.missing.values()):
            return hardware
    raise AssertionError(f"nothing hung at {hung}: {hardware.missing}")


async def told(machine: dict[str, Any], folder: Path, within: timedelta = LONG) -> Hardware:
    return together([await replayed(machine, folder / "machine").gpus(within).find()]).hardware


def nvidia(**changed: Any) -> dict[str, Any]:
    machine = load("hgx-h100-80gb")
    return {**machine, "nvml": {**machine["nvml"], **changed}}


@pytest.mark.parametrize(
    ("code", "why"),
    [
        pytest.param(4, "this process may not use the devices", id="permission-denied"),
        pytest.param(9, "the driver is not loaded", id="driver-not-loaded"),
        pytest.param(12, "the driver's library libnvidia-ml.so.1 is not here", id="library-missing"),
        pytest.param(18, "the library and the kernel's driver are of different versions", id="version-mismatch"),
        pytest.param(999, "Unknown Error", id="unknown"),
    ],
)
async def test_a_driver_that_cannot_be_asked_is_told_with_its_cure(tmp_path: Path, code: int, why: str) -> None:
    hardware = await told(nvidia(init=code), tmp_path)
    assert hardware.accelerators == ()
    assert why in hardware.missing["nvidia"]


async def test_a_library_without_any_gpu_is_no_mistake(tmp_path: Path) -> None:
    assert (await told({"nvml": {"init": 12}}, tmp_path)).missing == {}


async def test_a_gpu_without_the_python_library(tmp_path: Path) -> None:
    place = replayed(load("pc-2x-rtx-5090"), tmp_path / "machine")
    nvml = Nvml(LONG, (sys.executable, "-I", "-S"))
    found = await Gpus(nvml, AmdSmi(LONG, environment=place.environment), LONG, place.root).find()
    assert found.missing == {"nvidia": "nvidia-ml-py is not installed: pip install 'windfall-profiler[nvml]'"}


@pytest.mark.parametrize("at", ["handle", "name", "memory_bytes", "throttled", "nvlinks"])
@pytest.mark.parametrize("code", [LOST, RESET])
async def test_a_gpu_that_disappears_while_it_is_read(tmp_path: Path, at: str, code: int) -> None:
    machine = nvidia()
    machine["nvml"]["devices"][3][at] = {"error": code}
    hardware = await told(machine, tmp_path)
    assert len(hardware.accelerators) == 7
    assert {way.kind for way in hardware.interconnects} == {"nvlink"}
    assert list(hardware.missing) == ["nvidia.3"]
    assert "was lost while it was asked" in hardware.missing["nvidia.3"]


async def test_a_gpu_on_the_bus_that_the_driver_does_not_know(tmp_path: Path) -> None:
    machine = nvidia()
    del machine["nvml"]["devices"][5:]
    machine["nvml"]["ancestors"] = [row[:5] for row in machine["nvml"]["ancestors"][:5]]
    hardware = await told(machine, tmp_path)
    assert len(hardware.accelerators) == 5
    assert hardware.missing == {
        "nvidia": "3 of 8 GPUs on the PCI bus are not known to the driver: dmesg says more",
    }


async def test_one_answer_that_is_refused_costs_one_field(tmp_path: Path) -> None:
    machine = nvidia()
    machine["nvml"]["devices"][2]["power_limit_mw"] = {"error": 4}
    hardware = await told(machine, tmp_path)
    assert hardware.accelerators[2].power_limit_w is None
    assert hardware.missing == {"accelerators.2.power_limit_w": "NVML says: Insufficient Permissions"}


async def test_a_driver_that_hangs_costs_what_it_had_not_said(tmp_path: Path) -> None:
    machine = nvidia()
    machine["nvml"]["devices"][2]["uuid"] = {"hang": True}
    place = replayed(machine, tmp_path / "machine")

    async def ask(within: timedelta) -> Hardware:
        return together([await place.gpus(within).find()]).hardware

    hardware = await patiently(ask, "the driver did not answer within TIME at device 2")
    assert len(hardware.accelerators) == 2
    assert set(hardware.missing) == {"nvidia"}
    assert [way.kind for way in hardware.interconnects] == ["pcie"], "the bus alone was asked"


async def test_a_driver_that_hangs_at_once(tmp_path: Path) -> None:
    hardware = await told(nvidia(init="hang"), tmp_path, SHORT)
    assert hardware.missing == {"nvidia": "the driver did not answer within 2 s"}


async def test_a_library_that_crashes(tmp_path: Path) -> None:
    place = replayed(nvidia(), tmp_path / "machine")
    library = tmp_path / "crashing"
    library.mkdir()
    (library / "pynvml.py").write_text("import os\nos.abort()\n")
    nvml = Nvml(LONG, environment={**place.environment, "PYTHONPATH": str(library)})
    found = await Gpus(nvml, AmdSmi(LONG, environment=place.environment), LONG, place.root).find()
    assert found.missing["nvidia"] == "the driver was ended by SIGABRT"


# --- AMD --------------------------------------------------------------------------------------------------------------


async def test_a_half_installed_library_is_told_and_the_kernel_is_asked(tmp_path: Path) -> None:
    hardware = await told(load("mi210-8-two-hives"), tmp_path)
    assert len(hardware.accelerators) == 8
    assert hardware.missing["amd.software"] == (
        "amdsmi cannot load its shared library: KeyError 'libamd_smi.so', so the kernel alone was asked"
    )


async def test_a_driver_that_is_not_loaded(tmp_path: Path) -> None:
    machine = load("mi300x-8-spx")
    hardware = await told({"pci": machine["pci"]}, tmp_path)
    assert hardware.accelerators == ()
    assert hardware.missing == {
        "amd": "8 of 8 GPUs on the PCI bus cannot be reached: the driver amdgpu is not loaded; dmesg says more"
    }


async def test_a_gpu_that_the_kernel_does_not_use(tmp_path: Path) -> None:
    machine = load("mi300x-8-spx")
    del machine["kfd"]["nodes"]["9"]
    del machine["tools"]
    hardware = await told(machine, tmp_path)
    assert len(hardware.accelerators) == 7
    assert hardware.missing["amd"] == (
        "1 of 8 GPUs on the PCI bus cannot be reached: amdkfd does not know them; dmesg says more"
    )


async def test_a_container_without_the_devices(tmp_path: Path) -> None:
    """amdkfd shows every node to everybody, and refuses to read those of devices that a container was not given."""
    place = replayed({**load("mi300x-8-spx"), "tools": {}}, tmp_path / "machine")
    for node in range(4, 10):
        properties = place.root / f"sys/class/kfd/kfd/topology/nodes/{node}/properties"
        properties.unlink()
        properties.symlink_to("/nowhere")
    hardware = together([await place.gpus(LONG).find()]).hardware
    assert len(hardware.accelerators) == 2
    assert hardware.missing["amd"] == (
        "6 of 8 GPUs on the PCI bus cannot be reached: amdkfd refuses to tell of them (No such file or directory): "
        "give this container their devices"
    )


@pytest.mark.parametrize(
    ("said", "why"),
    [
        pytest.param("", "amd-smi lists no GPUs", id="nothing"),
        pytest.param("ERROR:root:Unable to get devices", "amd-smi lists no GPUs", id="no-json"),
        pytest.param('{"gpu_data": {}}', "amd-smi lists no GPUs", id="another-shape"),
        pytest.param('[{"gpu": 0', "delimiter", id="cut-off"),
    ],
)
async def test_a_tool_that_says_what_nobody_understands(tmp_path: Path, said: str, why: str) -> None:
    machine = {**load("mi300x-8-spx"), "tools": {"amd-smi": said}}
    hardware = await told(machine, tmp_path)
    assert len(hardware.accelerators) == 8
    assert hardware.missing["amd.software"].startswith("amd-smi cannot be understood")
    assert hardware.missing["amd.software"].endswith("so the kernel alone was asked")
    assert why in hardware.missing["amd.software"]


async def test_values_that_a_tool_does_not_know_are_none(tmp_path: Path) -> None:
    machine = copy.deepcopy(load("mi300x-8-spx"))
    for row in machine["tools"]["amd-smi"]:
        row |= {"asic": "N/A", "limit": {"socket_power": "N/A"}, "ras": "N/A", "vram": {"size": "N/A"}, "driver": {}}
    gpu = (await told(machine, tmp_path)).accelerators[0]
    assert (gpu.model, gpu.architecture, gpu.ecc) == ("AMD Instinct MI300X OAM", "gfx942", None)


async def test_rocm_7_lists_gpus_within_an_object(tmp_path: Path) -> None:
    machine = load("mi300x-8-spx")
    rows = machine["tools"]["amd-smi"]
    tools = {"amd-smi": {"gpu_data": rows}}
    assert await told({**machine, "tools": tools}, tmp_path / "7") == await told(machine, tmp_path / "6")


async def test_tools_that_hang_are_given_up_one_after_the_other(tmp_path: Path) -> None:
    place = replayed(load("mi300x-8-spx"), tmp_path / "machine")
    (tmp_path / "machine" / "bin" / "amd-smi").write_text("#!/bin/sh\nexec sleep 600\n")

    async def ask(within: timedelta) -> Hardware:
        gpus = Gpus(Nvml(LONG, environment=place.environment), smi(within), LONG, place.root)
        return together([await gpus.find()]).hardware

    def smi(within: timedelta) -> AmdSmi:
        return AmdSmi(within, environment=place.environment)

    hardware = await patiently(ask, "amd-smi did not answer within TIME")
    assert len(hardware.accelerators) == 8


# --- the kernel -------------------------------------------------------------------------------------------------------


async def test_a_file_of_the_kernel_that_hangs(tmp_path: Path) -> None:
    place = replayed(load("mi300x-8-spx"), tmp_path / "machine")
    stuck = place.root / "sys/class/kfd/kfd/topology/nodes/5/properties"
    stuck.unlink()
    os.mkfifo(stuck)

    async def ask(within: timedelta) -> Hardware:
        return together([await place.gpus(within).find()]).hardware

    hardware = await patiently(ask, "the kernel did not answer within TIME while .*nodes/5/properties was read")
    assert len(hardware.accelerators) == 8, "the tool answered"
    assert hardware.accelerators[0].architecture == "gfx942"


async def test_a_finder_that_cannot_read_what_it_was_told_takes_nobody_along(tmp_path: Path) -> None:
    class Odd:
        name = "nics"

        async def find(self) -> Part:
            raise ValueError("odd")

    class Gpuless:
        name = "accelerators"

        async def find(self) -> Part:
            return await empty(tmp_path).gpus().find()

    found = await Discovery((Odd(), Gpuless())).discover()
    assert found.hardware.missing == {"nics": "what was said of it cannot be read (ValueError: odd)"}


def empty(folder: Path) -> Replayed:
    return replayed(load("none"), folder / "empty")
