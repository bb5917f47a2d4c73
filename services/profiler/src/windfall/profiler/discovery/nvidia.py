"""NVIDIA GPUs, through NVML in a child process (``child/nvml.py``)."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from windfall.contracts.hardware import Accelerator, Interconnect, Partition, PcieLink, token
from windfall.contracts.profile import Identity
from windfall.profiler.child_process import CHILDREN, Heard, hear
from windfall.profiler.discovery import pci
from windfall.profiler.discovery.gpu_models import canonical
from windfall.profiler.discovery.part import Gpu

VENDOR: Final = "nvidia"
PROGRAM: Final = CHILDREN / "nvml.py"

_NOT_SUPPORTED: Final = 3
_FUNCTION_NOT_FOUND: Final = 13
_CURES: Final = {
    4: "this process may not use the devices: give it access to /dev/nvidia* and /dev/nvidiactl",
    9: "the driver is not loaded: nvidia-smi says more",
    12: "the driver's library libnvidia-ml.so.1 is not here: install the driver, or give this container the GPU",
    18: "the library and the kernel's driver are of different versions: restart the machine, or load the driver anew",
}
"""NVML's error codes that have a cure → what is wrong, and the cure."""

_HOPS: Final[dict[int, pci.Hop]] = {0: "PIX", 10: "PIX", 20: "PXB", 30: "PHB", 40: "NODE", 50: "SYS"}
"""nvmlGpuTopologyLevel_t; level 0 is one board."""

_THROTTLES: Final = {
    0x2: "applications-clocks-setting",
    0x4: "sw-power-cap",
    0x8: "hw-slowdown",
    0x10: "sync-boost",
    0x20: "sw-thermal-slowdown",
    0x40: "hw-thermal-slowdown",
    0x80: "hw-power-brake-slowdown",
    0x100: "display-clock-setting",
    0x200: "board-limit",
    0x400: "reliability",
}
"""nvmlClocksThrottleReasons. That a GPU is idle (0x1) holds nothing back."""


@dataclass(frozen=True)
class Devices:
    """What a vendor's software says of its devices, before it is put beside what the bus says."""

    gpus: tuple[Gpu, ...] = ()
    interconnects: tuple[Interconnect, ...] = ()
    missing: dict[str, str] = field(default_factory=dict)
    """``nvidia`` or ``nvidia.3`` → why."""


class Nvml:
    """Asks NVML.

    Args:
        within: wall time for everything; a driver that is not kept loaded takes seconds for each device.
        python: an interpreter, which has nvidia-ml-py or has not.
        library: a folder in which another ``pynvml`` is found first (a recording).
    """

    def __init__(
        self, within: timedelta, python: Sequence[str] = (sys.executable,), environment: Mapping[str, str] | None = None
    ) -> None:
        self._within = within
        self._python = python
        self._environment = environment

    async def devices(self, on_bus: Sequence[pci.Slot]) -> Devices:
        heard = await hear([*self._python, str(PROGRAM)], self._within, self._environment)
        return devices(heard, [slot for slot in on_bus if slot.vendor == pci.NVIDIA])


def devices(heard: Heard, on_bus: Sequence[pci.Slot]) -> Devices:
    """What was said, as devices. Nothing on the bus and nothing to ask is no GPU; else the reason is told."""
    told = [json.loads(line) for line in heard.lines]
    gpus: dict[int, Gpu] = {}
    readings: dict[int, Mapping[str, Any]] = {}
    pairs: list[Mapping[str, Any]] = []
    missing: dict[str, str] = {}
    driver, at, done = None, None, False
    for line in told:
        match line:
            case {"library": str(why)}:
                missing[VENDOR] = f"{why}: pip install 'windfall-profiler[nvml]'"
            case {"driver": [code, words]}:
                missing[VENDOR] = f"{words}: {_CURES[code]}" if code in _CURES else words
            case {"system": system, "errors": errors}:
                driver = system.get("driver")
                if "count" not in system:
                    missing[VENDOR] = _words(errors["count"])
            case {"asking": at}:
                pass
            case {"device": index, "lost": [_, words], "values": values}:
                missing[f"{VENDOR}.{index}"] = f"{values.get('name', 'this GPU')} was lost while it was asked: {words}"
            case {"device": index, "values": values, "errors": errors}:
                gpus[index], readings[index] = _gpu(values, errors, driver), values
            case {"pair": _}:
                pairs.append(line)
            case {"done": True}:
                done = True
    answered = any(key in line for line in told for key in ("library", "driver", "done"))
    if not answered:
        where = f" at device {at}" if isinstance(at, int) else " at the pairs of devices" if at else ""
        reason = heard.why or "ended without an answer"
        missing[VENDOR] = f"the driver {reason}{where}" + (f": {heard.error}" if heard.error else "")
    if VENDOR in missing and not on_bus and not (done or at is not None) and not heard.why:
        missing = {}  # neither a device nor anything that would ask one
    places = {index: place for place, index in enumerate(sorted(gpus))}
    ways = tuple(_way(pair, readings, places) for pair in pairs if set(pair["pair"]) <= set(places))
    missing |= _unreachable(gpus.values(), on_bus, missing)
    return Devices(tuple(gpus[index] for index in sorted(gpus)), ways, missing)


def _unreachable(gpus: Any, on_bus: Sequence[pci.Slot], missing: Mapping[str, str]) -> dict[str, str]:
    """Devices that stand on the bus and that the driver does not know, when it answered at all."""
    known = {gpu.identity.pci_address for gpu in gpus}
    lost = sum(slot.address not in known for slot in on_bus) - sum(key.startswith(f"{VENDOR}.") for key in missing)
    if VENDOR in missing or lost <= 0:
        return {}
    return {VENDOR: f"{lost} of {len(on_bus)} GPUs on the PCI bus are not known to the driver: dmesg says more"}


def _gpu(values: Mapping[str, Any], errors: Mapping[str, Any], driver: str | None) -> Gpu:
    model = values.get("name", "an NVIDIA GPU")
    capability = values.get("compute_capability")
    limit = values.get("power_limit_mw")
    throttled = values.get("throttled")
    parts = values.get("partitions", [])
    unprotected = _code(errors.get("ecc")) == _NOT_SUPPORTED
    accelerator = Accelerator(
        vendor="nvidia",
        model=model,
        canonical_model=canonical(model),
        architecture=f"sm_{capability[0]}{capability[1]}" if capability else None,
        memory_bytes=values.get("memory_bytes"),
        driver=token(driver or ""),
        partition_mode="mig" if values.get("mig") else None,
        partitions=tuple(
            Partition(profile=token(part["name"].rpartition("MIG ")[2]) or "mig", memory_bytes=part["memory_bytes"])
            for part in parts
        ),
        ecc=False if unprotected else None if "ecc" not in values else bool(values["ecc"]),
        ecc_uncorrected=values.get("ecc_uncorrected"),
        power_limit_w=None if limit is None else limit / 1000,
        throttled=None if throttled is None else tuple(name for bit, name in _THROTTLES.items() if throttled & bit),
        pcie=PcieLink(
            generation=values.get("pcie_generation") or None,
            width=values.get("pcie_width") or None,
            generation_max=values.get("pcie_generation_max") or None,
            width_max=values.get("pcie_width_max") or None,
        )
        if any(name.startswith("pcie_") for name in values)
        else None,
    )
    address = values.get("pci_address")
    identity = Identity(
        uuid=values.get("uuid"),
        pci_address=pci.normal(address) if address else None,
        partitions=tuple(part["uuid"] for part in parts),
    )
    return Gpu(accelerator, identity, _missing(errors))


_FIELDS: Final = {
    "name": "model",
    "memory_bytes": "memory_bytes",
    "compute_capability": "architecture",
    "ecc": "ecc",
    "ecc_uncorrected": "ecc_uncorrected",
    "power_limit_mw": "power_limit_w",
    "throttled": "throttled",
    "mig": "partition_mode",
    "partitions": "partitions",
    "nvlinks": "nvlinks",
}
_OPTIONAL: Final = ("ecc", "ecc_uncorrected", "mig")
"""What many GPUs have not: that it is not supported is an answer."""


def _missing(errors: Mapping[str, Any]) -> dict[str, str]:
    return {
        _FIELDS[name]: _words(error)
        for name, error in errors.items()
        if name in _FIELDS and not (name in _OPTIONAL and _code(error) in (_NOT_SUPPORTED, _FUNCTION_NOT_FOUND))
    }


def _way(pair: Mapping[str, Any], readings: Mapping[int, Mapping[str, Any]], places: Mapping[int, int]) -> Interconnect:
    one, other = pair["pair"]
    values = pair["values"]
    hop = _HOPS.get(values.get("ancestor", -1))
    mine, theirs = readings[one].get("nvlinks", []), readings[other].get("nvlinks", [])
    address = pci.normal(readings[other].get("pci_address", ""))
    direct = sum(remote != "switch" and pci.normal(remote) == address for remote in mine)
    switched = min(mine.count("switch"), theirs.count("switch")) if values.get("nvlink") else 0
    links = direct or switched
    if not links:
        return Interconnect(first=places[one], second=places[other], kind="pcie", hop=hop)
    speed = readings[one].get("nvlink_mb_per_s")
    return Interconnect(
        first=places[one],
        second=places[other],
        kind="nvlink",
        hop=hop,
        links=links,
        gb_per_s=None if not speed else round(links * speed / 1000, 1),
    )


def _code(error: Any) -> int | None:
    return error[0] if error else None


def _words(error: Any) -> str:
    code, words = error
    return f"NVML says: {words}" if code != _FUNCTION_NOT_FOUND else words


def recorded(recording: Path) -> dict[str, str]:
    """Environment under which the child finds a recording instead of the library (``testing/recorded_nvml``)."""
    library = Path(__file__).parents[1] / "testing" / "recorded_nvml"
    return {"PYTHONPATH": str(library), "WINDFALL_RECORDED_NVML": str(recording)}
