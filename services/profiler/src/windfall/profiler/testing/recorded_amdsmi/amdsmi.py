"""AMD's Python package as one machine answered it: the double of the module ``amdsmi``, first on the path.

The machine is the JSON file that ``WINDFALL_RECORDED_AMDSMI`` names: under ``amdsmi`` a list of devices with what each
call returned. A recording without it is a machine on which the package is not installed, and one whose ``amdsmi`` is
``"half-installed"`` behaves as the package does without its shared library.
"""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_MACHINE: Any = json.loads(Path(os.environ["WINDFALL_RECORDED_AMDSMI"]).read_text()).get("amdsmi")
if _MACHINE is None:
    raise ModuleNotFoundError("No module named 'amdsmi'", name="amdsmi")
if _MACHINE == "half-installed":
    print("Unable to find amdsmi library, check the installation")  # noqa: T201 - as the real one does
    raise KeyError("libamd_smi.so")


class AmdSmiException(Exception):
    """What the library raises."""


def _answer(handle: dict[str, Any], name: str) -> Any:
    if name not in handle:
        raise AmdSmiException("AMDSMI_STATUS_NOT_SUPPORTED - Feature not supported")
    return handle[name]


AmdSmiTemperatureType = SimpleNamespace(HOTSPOT=1)
AmdSmiTemperatureMetric = SimpleNamespace(CURRENT=0)


def amdsmi_init() -> None:
    if isinstance(_MACHINE, str):
        raise AmdSmiException(_MACHINE)


def amdsmi_get_processor_handles() -> list[dict[str, Any]]:
    return list(_MACHINE)


def amdsmi_get_gpu_device_bdf(handle: dict[str, Any]) -> Any:
    return _answer(handle, "bdf")


def amdsmi_get_gpu_device_uuid(handle: dict[str, Any]) -> Any:
    return _answer(handle, "uuid")


def amdsmi_get_gpu_asic_info(handle: dict[str, Any]) -> Any:
    return _answer(handle, "asic")


def amdsmi_get_gpu_vram_info(handle: dict[str, Any]) -> Any:
    return _answer(handle, "vram")


def amdsmi_get_gpu_driver_info(handle: dict[str, Any]) -> Any:
    return _answer(handle, "driver")


def amdsmi_get_power_cap_info(handle: dict[str, Any]) -> Any:
    return _answer(handle, "power_cap")


def amdsmi_get_gpu_compute_partition(handle: dict[str, Any]) -> Any:
    return _answer(handle, "compute_partition")


def amdsmi_get_gpu_memory_partition(handle: dict[str, Any]) -> Any:
    return _answer(handle, "memory_partition")


def amdsmi_get_gpu_total_ecc_count(handle: dict[str, Any]) -> Any:
    return _answer(handle, "ecc_count")


def amdsmi_get_gpu_ras_block_features_enabled(handle: dict[str, Any]) -> Any:
    return _answer(handle, "ras_blocks")


def amdsmi_get_gpu_activity(handle: dict[str, Any]) -> Any:
    return _answer(handle, "activity")


def amdsmi_get_gpu_vram_usage(handle: dict[str, Any]) -> Any:
    return _answer(handle, "vram_usage")


def amdsmi_get_power_info(handle: dict[str, Any]) -> Any:
    return _answer(handle, "power_info")


def amdsmi_get_energy_count(handle: dict[str, Any]) -> Any:
    return _answer(handle, "energy_count")


def amdsmi_get_temp_metric(handle: dict[str, Any], sensor_type: object, metric: object) -> Any:
    return _answer(handle, "hotspot_c")
