"""nvidia-ml-py as one machine answered it: the double of the module ``pynvml``, on the path before the real one.

The machine is the JSON file that ``WINDFALL_RECORDED_NVML`` names (see ``recordings`` beside this folder): what each
call returned, by name, for the system and for every device. Whatever is not recorded is not supported. A recording may
also hold what goes wrong: ``"init": code``; ``{"error": code}`` in place of a value; ``{"hang": true}``.
"""

# ruff: noqa: N802, N803 - the names are NVML's

import json
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NVML_NVLINK_DEVICE_TYPE_SWITCH = 2
NVML_P2P_CAPS_INDEX_NVLINK = 2
NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON = 90

_MACHINE: dict[str, Any] = json.loads(Path(os.environ["WINDFALL_RECORDED_NVML"]).read_text())["nvml"]
_DEVICES: list[dict[str, Any]] = _MACHINE.get("devices", [])
_FIELDS = {90: "nvlink_mb_per_s", 197: "pcie_tx_bytes", 198: "pcie_rx_bytes"}
_BEGUN = time.monotonic()
_WORDS = {
    2: "Invalid Argument",
    3: "Not Supported",
    4: "Insufficient Permissions",
    6: "Not Found",
    9: "Driver Not Loaded",
    12: "NVML Shared Library Not Found",
    15: "GPU is lost",
    18: "Driver/library version mismatch",
    999: "Unknown Error",
}


class NVMLError(Exception):
    """What NVML raises; ``value`` is its code."""

    def __init__(self, value: int) -> None:
        super().__init__(value)
        self.value = value

    def __str__(self) -> str:
        return _WORDS.get(self.value, f"error {self.value}")


def _answer(of: dict[str, Any], name: str) -> Any:
    value = of.get(name, {"error": 3})
    if isinstance(value, dict) and "error" in value:
        raise NVMLError(value["error"])
    if isinstance(value, dict) and "hang" in value:
        threading.Event().wait()
    return value


def nvmlInit() -> None:
    if code := _MACHINE.get("init"):
        if code == "hang":
            threading.Event().wait()
        raise NVMLError(code)


def nvmlSystemGetDriverVersion() -> str:
    return str(_answer(_MACHINE, "driver"))


def nvmlDeviceGetCount() -> int:
    return len(_DEVICES)


def nvmlDeviceGetHandleByIndex(index: int) -> dict[str, Any]:
    _answer(_DEVICES[index] | {"handle": _DEVICES[index].get("handle", True)}, "handle")
    return _DEVICES[index]


def nvmlDeviceGetName(handle: dict[str, Any]) -> str:
    return str(_answer(handle, "name"))


def nvmlDeviceGetUUID(handle: dict[str, Any]) -> str:
    return str(_answer(handle, "uuid"))


def nvmlDeviceGetPciInfo(handle: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(busId=_answer(handle, "pci_address"))


def nvmlDeviceGetMemoryInfo(handle: dict[str, Any], version: object = None) -> SimpleNamespace:
    return SimpleNamespace(total=_answer(handle, "memory_bytes"), used=handle.get("memory_used_bytes", 0))


def nvmlDeviceGetCudaComputeCapability(handle: dict[str, Any]) -> tuple[int, int]:
    major, minor = _answer(handle, "compute_capability")
    return major, minor


def nvmlDeviceGetEccMode(handle: dict[str, Any]) -> list[int]:
    return [_answer(handle, "ecc")] * 2


def nvmlDeviceGetTotalEccErrors(handle: dict[str, Any], errorType: int, counterType: int) -> int:
    return int(_answer(handle, "ecc_uncorrected"))


def nvmlDeviceGetEnforcedPowerLimit(handle: dict[str, Any]) -> int:
    return int(_answer(handle, "power_limit_mw"))


def nvmlDeviceGetCurrentClocksThrottleReasons(handle: dict[str, Any]) -> int:
    return int(_answer(handle, "throttled"))


def nvmlDeviceGetCurrPcieLinkGeneration(handle: dict[str, Any]) -> int:
    return int(_answer(handle, "pcie")[0])


def nvmlDeviceGetCurrPcieLinkWidth(handle: dict[str, Any]) -> int:
    return int(_answer(handle, "pcie")[1])


def nvmlDeviceGetMaxPcieLinkGeneration(handle: dict[str, Any]) -> int:
    return int(_answer(handle, "pcie")[2])


def nvmlDeviceGetMaxPcieLinkWidth(handle: dict[str, Any]) -> int:
    return int(_answer(handle, "pcie")[3])


def nvmlDeviceGetMigMode(device: dict[str, Any]) -> list[int]:
    return [_answer(device, "mig")] * 2


def nvmlDeviceGetMaxMigDeviceCount(device: dict[str, Any]) -> int:
    return 7


def nvmlDeviceGetMigDeviceHandleByIndex(device: dict[str, Any], index: int) -> dict[str, Any]:
    parts: list[dict[str, Any]] = device.get("partitions", [])
    if index >= len(parts):
        raise NVMLError(6)
    return parts[index]


def nvmlDeviceGetNvLinkState(device: dict[str, Any], link: int) -> int:
    if link >= len(_answer(device, "nvlinks")):
        raise NVMLError(2)
    return 1


def nvmlDeviceGetNvLinkRemotePciInfo(device: dict[str, Any], link: int) -> SimpleNamespace:
    return SimpleNamespace(busId=_answer(device, "nvlinks")[link])


def nvmlDeviceGetNvLinkRemoteDeviceType(handle: dict[str, Any], link: int) -> int:
    return NVML_NVLINK_DEVICE_TYPE_SWITCH if _answer(handle, "nvlinks")[link] == "switch" else 0


def nvmlDeviceGetFieldValues(handle: dict[str, Any], fieldIds: list[int]) -> list[SimpleNamespace]:
    return [_field(handle, _FIELDS[one]) for one in fieldIds]


def _field(handle: dict[str, Any], name: str) -> SimpleNamespace:
    try:
        value, code = _answer(handle, name), 0
    except NVMLError as error:
        value, code = 0, error.value
    return SimpleNamespace(nvmlReturn=code, value=SimpleNamespace(uiVal=value, ullVal=value))


def nvmlDeviceGetPowerUsage(handle: dict[str, Any]) -> int:
    return int(_answer(handle, "power_mw"))


def nvmlDeviceGetTotalEnergyConsumption(handle: dict[str, Any]) -> int:
    """What is recorded is where the counter began; it grows by the recorded power."""
    begun, power_mw = _answer(handle, "energy_mj"), _answer(handle, "power_mw")
    return int(begun + power_mw * (time.monotonic() - _BEGUN))


def nvmlDeviceGetUtilizationRates(handle: dict[str, Any]) -> SimpleNamespace:
    return SimpleNamespace(gpu=_answer(handle, "utilization"))


def nvmlDeviceGetTemperature(handle: dict[str, Any], sensor: int) -> int:
    return int(_answer(handle, "temperature_c"))


def nvmlDeviceGetPcieReplayCounter(handle: dict[str, Any]) -> int:
    return int(_answer(handle, "pcie_replays"))


def nvmlDeviceGetTopologyCommonAncestor(device1: dict[str, Any], device2: dict[str, Any]) -> int:
    return int(_answer(_MACHINE, "ancestors")[_DEVICES.index(device1)][_DEVICES.index(device2)])


def nvmlDeviceGetP2PStatus(device1: dict[str, Any], device2: dict[str, Any], p2pIndex: int) -> int:
    return 0 if device1.get("nvlinks") and device2.get("nvlinks") else 5
