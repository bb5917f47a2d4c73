"""Asks NVML everything about every NVIDIA GPU: a program of its own, because any of its calls may hang in the driver.

It stands on nvidia-ml-py (``pynvml``) and nothing else. Each line is a JSON object, said as soon as it is known:

* ``{"library": why}`` or ``{"driver": error}``: there is nothing to ask.
* ``{"system": {name: value}}``
* ``{"asking": index}`` before a device, so that whoever listens knows where a hang happened.
* ``{"device": index, "values": {name: value}, "errors": {name: error}}``; ``{"device": index, "lost": error}``.
* ``{"pair": [index, index], "values": {…}, "errors": {…}}``

An error is ``[NVML's code, NVML's words]``. What the values mean is decided elsewhere.
"""

import json
import os
from collections.abc import Callable
from importlib import import_module
from typing import Any

GONE = (15, 16)
"""NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED: nothing more will be heard of this device."""
NOT_FOUND = 6
NO_LINK = (2, 3)
"""NVML_ERROR_INVALID_ARGUMENT, NVML_ERROR_NOT_SUPPORTED."""
MOST_LINKS = 36


def say(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201 - standard output is this program's answer


def text(value: Any) -> str:
    """Older versions of the library answer in bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


class Lost(Exception):
    """The device is gone."""


class Asked:
    """Answers by name, and errors by name."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml
        self.values: dict[str, object] = {}
        self.errors: dict[str, list[object]] = {}

    def ask(self, name: str, question: Callable[[], object]) -> None:
        try:
            self.values[name] = question()
        except self._nvml.NVMLError as error:
            if error.value in GONE:
                raise Lost(error.value, str(error)) from error
            self.errors[name] = [error.value, str(error)]
        except AttributeError:
            self.errors[name] = [13, "nvidia-ml-py is too old for it"]


def device(nvml: Any, index: int) -> Any:
    """Say what one device is."""
    say({"asking": index})
    asked = Asked(nvml)
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        asked.ask("name", lambda: text(nvml.nvmlDeviceGetName(handle)))
        asked.ask("uuid", lambda: text(nvml.nvmlDeviceGetUUID(handle)))
        asked.ask("pci_address", lambda: text(nvml.nvmlDeviceGetPciInfo(handle).busId))
        asked.ask("memory_bytes", lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total)
        asked.ask("compute_capability", lambda: list(nvml.nvmlDeviceGetCudaComputeCapability(handle)))
        asked.ask("ecc", lambda: nvml.nvmlDeviceGetEccMode(handle)[0])
        asked.ask("ecc_uncorrected", lambda: nvml.nvmlDeviceGetTotalEccErrors(handle, 1, 0))
        asked.ask("power_limit_mw", lambda: nvml.nvmlDeviceGetEnforcedPowerLimit(handle))
        asked.ask("throttled", lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        asked.ask("pcie_generation", lambda: nvml.nvmlDeviceGetCurrPcieLinkGeneration(handle))
        asked.ask("pcie_width", lambda: nvml.nvmlDeviceGetCurrPcieLinkWidth(handle))
        asked.ask("pcie_generation_max", lambda: nvml.nvmlDeviceGetMaxPcieLinkGeneration(handle))
        asked.ask("pcie_width_max", lambda: nvml.nvmlDeviceGetMaxPcieLinkWidth(handle))
        asked.ask("mig", lambda: nvml.nvmlDeviceGetMigMode(handle)[0])
        if asked.values.get("mig"):
            asked.ask("partitions", lambda: partitions(nvml, handle))
        asked.ask("nvlink_mb_per_s", lambda: link_speed(nvml, handle))
        asked.ask("nvlinks", lambda: links(nvml, handle))
    except Lost as lost:
        say({"device": index, "lost": list(lost.args), "values": asked.values})
        return None
    except nvml.NVMLError as error:
        say({"device": index, "lost": [error.value, str(error)], "values": {}})
        return None
    say({"device": index, "values": asked.values, "errors": asked.errors})
    return handle


def partitions(nvml: Any, handle: Any) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    for index in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
        except nvml.NVMLError as error:
            if error.value == NOT_FOUND:
                continue
            raise
        found.append(
            {
                "name": text(nvml.nvmlDeviceGetName(part)),
                "uuid": text(nvml.nvmlDeviceGetUUID(part)),
                "memory_bytes": nvml.nvmlDeviceGetMemoryInfo(part).total,
            }
        )
    return found


def links(nvml: Any, handle: Any) -> list[str]:
    """Where each active NVLink leads: an address, or ``switch``."""
    found = []
    for link in range(MOST_LINKS):
        try:
            active = nvml.nvmlDeviceGetNvLinkState(handle, link)
        except nvml.NVMLError as error:
            if error.value in NO_LINK:
                break  # there is none of this number, and none after it
            raise
        if active:
            remote = text(nvml.nvmlDeviceGetNvLinkRemotePciInfo(handle, link).busId)
            kind = nvml.nvmlDeviceGetNvLinkRemoteDeviceType(handle, link)
            found.append("switch" if kind == nvml.NVML_NVLINK_DEVICE_TYPE_SWITCH else remote)
    return found


def link_speed(nvml: Any, handle: Any) -> int:
    (field,) = nvml.nvmlDeviceGetFieldValues(handle, [nvml.NVML_FI_DEV_NVLINK_SPEED_MBPS_COMMON])
    if field.nvmlReturn:
        raise nvml.NVMLError(field.nvmlReturn)
    return int(field.value.uiVal)


def pair(nvml: Any, handles: dict[int, Any], one: int, other: int) -> None:
    asked = Asked(nvml)
    first, second = handles[one], handles[other]
    try:
        asked.ask("ancestor", lambda: nvml.nvmlDeviceGetTopologyCommonAncestor(first, second))
        asked.ask("nvlink", lambda: nvml.nvmlDeviceGetP2PStatus(first, second, nvml.NVML_P2P_CAPS_INDEX_NVLINK) == 0)
    except Lost as lost:
        asked.errors["ancestor"] = list(lost.args)
    say({"pair": [one, other], "values": asked.values, "errors": asked.errors})


def main() -> None:
    try:
        nvml: Any = import_module("pynvml")
    except ImportError:
        say({"library": "nvidia-ml-py is not installed"})
        return
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        say({"driver": [error.value, str(error)]})
        return
    asked = Asked(nvml)
    asked.ask("driver", lambda: text(nvml.nvmlSystemGetDriverVersion()))
    asked.ask("count", nvml.nvmlDeviceGetCount)
    say({"system": asked.values, "errors": asked.errors})
    handles = {}
    count = asked.values.get("count", 0)
    for index in range(count if isinstance(count, int) else 0):
        handle = device(nvml, index)
        if handle is not None:
            handles[index] = handle
    say({"asking": "pairs"})
    for one in handles:
        for other in handles:
            if one < other:
                pair(nvml, handles, one, other)
    say({"done": True})


if __name__ == "__main__":
    main()
    os._exit(0)  # everything is said; a driver may take its time to let go, or never do
