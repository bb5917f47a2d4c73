"""NVIDIA GPUs, by NVML's energy counter: millijoules since the driver was loaded, on Volta and later.

``nvmlDeviceGetTotalEnergyConsumption``, NVML API reference; DCGM's field 156 (``DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION``)
is the same counter. It covers the boards alone, not the machine around them.
"""

from collections.abc import Mapping
from datetime import datetime
from importlib import import_module
from typing import Any, Final, Self

from windfall.energy.meter import Counter, Reading
from windfall.servicekit.errors import Transient

_MOST_W: Final = 3000.0
"""No single board draws more; a counter that says so was set back."""
_MJ_PER_J: Final = 1000.0


class NvmlMeter:
    """All GPUs of a machine. Use :meth:`of_this_machine`."""

    name = "nvml"

    def __init__(self, nvml: Any, devices: Mapping[str, Any]) -> None:
        self._nvml = nvml
        self._devices = devices

    @classmethod
    def of_this_machine(cls) -> Self | None:
        """None without the library (``nvidia-ml-py``), its driver, or a GPU that counts its energy."""
        try:
            nvml: Any = import_module("pynvml")
            nvml.nvmlInit()
        except ImportError:
            return None
        except nvml.NVMLError:
            return None
        devices: dict[str, Any] = {}
        try:
            for index in range(nvml.nvmlDeviceGetCount()):
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                nvml.nvmlDeviceGetTotalEnergyConsumption(handle)
                devices[_text(nvml.nvmlDeviceGetUUID(handle))] = handle
        except nvml.NVMLError:
            # A board that does not count leaves the sum wrong: then none is metered.
            devices.clear()
        if not devices:
            nvml.nvmlShutdown()
            return None
        return cls(nvml, devices)

    async def read(self, now: datetime) -> Reading:
        try:
            counted = {
                uuid: self._nvml.nvmlDeviceGetTotalEnergyConsumption(handle) for uuid, handle in self._devices.items()
            }
        except self._nvml.NVMLError as error:
            raise Transient(f"NVML does not answer: {error}") from error
        counters = {uuid: Counter(mj / _MJ_PER_J, most_w=_MOST_W) for uuid, mj in counted.items()}
        return Reading(now, self.name, counters)

    async def close(self) -> None:
        self._nvml.nvmlShutdown()


def _text(uuid: str | bytes) -> str:
    return uuid if isinstance(uuid, str) else uuid.decode()
