"""Reads the counters of GPUs and processors: a program of its own, because any of its calls may hang in a driver.

NVIDIA through nvidia-ml-py, AMD through amdsmi, processors through the kernel's powercap (RAPL); what is not installed
here is not there. Each line is a JSON object:

* ``{"missing": {vendor: why}}``: software that is there and does not answer.
* ``{"at_s": monotonic, "devices": {"nvidia.0": {name: value}}, "lost": {"nvidia.3": why}}``: all devices, once.

Values have the name of the call, or of the field of its answer, and the unit that the vendor gives them. What they mean
is decided elsewhere (``hw/mapping.py``).
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

ANSWER = sys.stdout
GONE = (15, 16)
"""NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED."""
ABSENT = (9, 12)
"""NVML_ERROR_DRIVER_NOT_LOADED, NVML_ERROR_LIBRARY_NOT_FOUND."""
PCIE_COUNT_TX_BYTES, PCIE_COUNT_RX_BYTES = 197, 198
"""NVML_FI_DEV_PCIE_COUNT_*, from driver 550 on."""
POWERCAP = "sys/class/powercap"

Values = dict[str, float]
Read = Callable[[bool], tuple[dict[str, Values], dict[str, str]]]
"""Power alone or everything → values by device, and why devices are lost."""


def say(line: dict[str, object]) -> None:
    print(json.dumps(line), file=ANSWER, flush=True)


def nvidia() -> Read | None:
    try:
        nvml: Any = import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
        count = nvml.nvmlDeviceGetCount()
    except nvml.NVMLError as error:
        if error.value not in ABSENT:
            say({"missing": {"nvidia": str(error)}})
        return None

    def read(power_alone: bool) -> tuple[dict[str, Values], dict[str, str]]:
        found: dict[str, Values] = {}
        lost: dict[str, str] = {}
        for index in range(count):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                found[f"nvidia.{index}"] = dict(nvidia_values(nvml, handle, power_alone))
            except nvml.NVMLError as error:
                lost[f"nvidia.{index}"] = str(error)
        return found, lost

    return read


def nvidia_values(nvml: Any, handle: Any, power_alone: bool) -> Iterator[tuple[str, float]]:
    """What the device has of it."""

    def utilization() -> dict[str, float]:
        return {"nvmlDeviceGetUtilizationRates.gpu": nvml.nvmlDeviceGetUtilizationRates(handle).gpu}

    def memory() -> dict[str, float]:
        of = nvml.nvmlDeviceGetMemoryInfo(handle)
        return {"nvmlDeviceGetMemoryInfo.used": of.used, "nvmlDeviceGetMemoryInfo.total": of.total}

    def pcie() -> dict[str, float]:
        asked = nvml.nvmlDeviceGetFieldValues(handle, [PCIE_COUNT_TX_BYTES, PCIE_COUNT_RX_BYTES])
        names = ("NVML_FI_DEV_PCIE_COUNT_TX_BYTES", "NVML_FI_DEV_PCIE_COUNT_RX_BYTES")
        return {name: one.value.ullVal for name, one in zip(names, asked, strict=True) if not one.nvmlReturn}

    def alone(name: str, *rest: int) -> Callable[[], dict[str, float]]:
        return lambda: {name: getattr(nvml, name)(handle, *rest)}

    def ecc(kind: int, name: str) -> Callable[[], dict[str, float]]:
        return lambda: {f"nvmlDeviceGetTotalEccErrors.{name}": nvml.nvmlDeviceGetTotalEccErrors(handle, kind, 0)}

    power = (alone("nvmlDeviceGetTotalEnergyConsumption"), alone("nvmlDeviceGetPowerUsage"))
    rest = (
        utilization,
        memory,
        pcie,
        alone("nvmlDeviceGetTemperature", 0),
        alone("nvmlDeviceGetPcieReplayCounter"),
        ecc(0, "corrected"),
        ecc(1, "uncorrected"),
    )
    for question in power if power_alone else (*power, *rest):
        try:
            yield from question().items()
        except nvml.NVMLError as error:
            if error.value in GONE:
                raise
        except AttributeError:
            continue  # the library is too old for it


def amd() -> Read | None:
    try:
        smi: Any = import_module("amdsmi")
    except ModuleNotFoundError:
        return None
    except Exception as error:  # noqa: BLE001 - it raises KeyError for a library that is not there
        say({"missing": {"amd": f"amdsmi cannot load its shared library: {type(error).__name__} {error}"}})
        return None
    try:
        smi.amdsmi_init()
        handles = smi.amdsmi_get_processor_handles()
    except smi.AmdSmiException as error:
        say({"missing": {"amd": f"amdsmi cannot reach the driver: {' '.join(str(error).split())}"}})
        return None

    def read(power_alone: bool) -> tuple[dict[str, Values], dict[str, str]]:
        return {f"amd.{i}": dict(amd_values(smi, one, power_alone)) for i, one in enumerate(handles)}, {}

    return read


def amd_values(smi: Any, handle: Any, power_alone: bool) -> Iterator[tuple[str, float]]:
    def temperature() -> dict[str, float]:
        kind, now = smi.AmdSmiTemperatureType.HOTSPOT, smi.AmdSmiTemperatureMetric.CURRENT
        return {"hotspot": smi.amdsmi_get_temp_metric(handle, kind, now)}

    def energy() -> dict[str, float]:
        of = smi.amdsmi_get_energy_count(handle)
        return {"energy_accumulator_uj": of["energy_accumulator"] * of["counter_resolution"]}

    power: dict[str, Callable[[], Any]] = {
        "amdsmi_get_energy_count": energy,
        "amdsmi_get_power_info": lambda: smi.amdsmi_get_power_info(handle),
    }
    rest: dict[str, Callable[[], Any]] = {
        "amdsmi_get_gpu_activity": lambda: smi.amdsmi_get_gpu_activity(handle),
        "amdsmi_get_gpu_vram_usage": lambda: smi.amdsmi_get_gpu_vram_usage(handle),
        "amdsmi_get_temp_metric": temperature,
        "amdsmi_get_gpu_total_ecc_count": lambda: smi.amdsmi_get_gpu_total_ecc_count(handle),
    }
    for call, question in (power if power_alone else power | rest).items():
        try:
            answer = question()
        except (smi.AmdSmiException, AttributeError, KeyError, TypeError):
            continue
        # What a device does not have is "N/A".
        yield from ((f"{call}.{name}", value) for name, value in answer.items() if isinstance(value, int | float))


def processors(root: Path) -> Read | None:
    """Packages alone: what is within them is within their number."""
    packages = sorted(path for path in (root / POWERCAP).glob("intel-rapl:*") if path.name.count(":") == 1)
    if not packages:
        return None
    try:
        for package in packages:
            (package / "energy_uj").read_text()
    except OSError as error:
        say({"missing": {"rapl": f"the processor's energy counter cannot be read ({error.strerror})"}})
        return None

    def read(_: bool) -> tuple[dict[str, Values], dict[str, str]]:
        found: dict[str, Values] = {}
        lost: dict[str, str] = {}
        for index, package in enumerate(packages):
            try:
                found[f"cpu.{index}"] = {
                    name: int((package / name).read_text()) for name in ("energy_uj", "max_energy_range_uj")
                }
            except OSError as error:
                lost[f"cpu.{index}"] = error.strerror or type(error).__name__
        return found, lost

    return read


def main() -> None:
    parser = argparse.ArgumentParser(description="Read the counters of this machine's devices.")
    parser.add_argument("--lifetime-s", type=int, required=True, help="seconds after which the kernel ends this")
    parser.add_argument(
        "--every-s", type=float, default=0.0, help="read power alone, again and again; 0 reads all once"
    )
    parser.add_argument("--root", type=Path, default=Path("/"))
    options = parser.parse_args()
    # Bounded even when whoever started this is no longer there to end it.
    signal.alarm(options.lifetime_s)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    readers = [read for read in (nvidia(), amd(), processors(options.root)) if read is not None]
    pace = threading.Event()
    while True:
        at_s = time.monotonic()
        devices: dict[str, Values] = {}
        lost: dict[str, str] = {}
        for read in readers:
            values, gone = read(options.every_s > 0)
            devices |= values
            lost |= gone
        say({"at_s": at_s, "devices": devices, "lost": lost})
        if not options.every_s or not readers:
            return
        pace.wait(options.every_s)


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        main()
    os._exit(0)  # everything is said; a driver may take its time to let go, or never do
