"""All GPUs of a node: the bus says which there are, each vendor's software says the rest, and they become one list."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Final

from windfall.contracts.hardware import Interconnect
from windfall.profiler.discovery import amd, pci
from windfall.profiler.discovery.amd import AmdSmi
from windfall.profiler.discovery.files import Files, read
from windfall.profiler.discovery.kfd import ATTRIBUTES, kfd
from windfall.profiler.discovery.kfd import PATTERNS as KFD_PATTERNS
from windfall.profiler.discovery.nvidia import Devices, Nvml
from windfall.profiler.discovery.part import Gpu, Part

_MODELS: Final = "this model is in no table of canonical names; its own is used"


class Gpus:
    """Looks for GPUs.

    Args:
        within: wall time for each source; the vendors are asked at the same time.
        root: of the file system whose ``sys`` is read.
    """

    name: Final = "accelerators"

    def __init__(self, nvml: Nvml, amd_smi: AmdSmi, within: timedelta, root: Path = Path("/")) -> None:
        self._nvml = nvml
        self._amd_smi = amd_smi
        self._within = within
        self._root = root

    async def find(self) -> Part:
        bus = await read(self._root, pci.PATTERNS, self._within)
        addresses = pci.gpu_addresses(bus)
        wanted = tuple(f"{pci.DEVICES}/{address}/{name}" for address in addresses for name in pci.LINK_FILES)
        slots = pci.slots(_both(bus, await read(self._root, wanted, self._within) if wanted else Files()))
        nvidia, amds = await asyncio.gather(self._nvml.devices(tuple(slots.values())), self._amd(slots))
        missing = {"pci": f"the bus {bus.why}"} if bus.why else {}
        return joined([nvidia, amds], slots, missing)

    async def _amd(self, slots: Mapping[str, pci.Slot]) -> Devices:
        theirs = [slot.address for slot in slots.values() if slot.vendor == pci.AMD]
        kernel = (
            *KFD_PATTERNS,
            *(f"{pci.DEVICES}/{address}/{name}" for address in theirs for name in ATTRIBUTES),
        )
        files = await read(self._root, kernel, self._within)
        known = kfd(files, theirs)
        if not known.gpus and not known.loaded and not files.why:
            return Devices()
        devices = amd.devices(known, await self._amd_smi.told(), slots)
        if files.why:
            return replace(devices, missing={**devices.missing, "amd.kernel": f"the kernel {files.why}"})
        return devices


def joined(vendors: Sequence[Devices], slots: Mapping[str, pci.Slot], missing: Mapping[str, str]) -> Part:
    """One list of all vendors' GPUs, numbered through, with what the bus knows; and a way between every two."""
    gpus: list[Gpu] = []
    ways: list[Interconnect] = []
    whys = dict(missing)
    for devices in vendors:
        start = len(gpus)
        gpus += devices.gpus
        ways += [
            way.model_copy(update={"first": way.first + start, "second": way.second + start})
            for way in devices.interconnects
        ]
        whys |= devices.missing
    placed = tuple(_on_bus(gpu, slots.get(gpu.identity.pci_address or "")) for gpu in gpus)
    told = {(way.first, way.second): _on_pcie(way, placed) for way in ways}
    every = tuple(
        told.get((one, other)) or _between(one, other, placed, slots)
        for one in range(len(placed))
        for other in range(one + 1, len(placed))
    )
    return Part(gpus=placed, interconnects=every, missing=whys)


def _on_bus(gpu: Gpu, slot: pci.Slot | None) -> Gpu:
    accelerator = gpu.accelerator
    missing = dict(gpu.missing)
    if accelerator.canonical_model is None:
        missing["canonical_model"] = _MODELS
    if slot is None:
        missing["numa_node"] = "it is on no PCI bus that this process sees"
    else:
        pcie = accelerator.pcie or slot.link
        accelerator = accelerator.model_copy(update={"numa_node": slot.numa_node, "pcie": pcie})
        if slot.numa_node is None:
            missing["numa_node"] = "the firmware does not tell"
    if accelerator.pcie is None:
        missing["pcie"] = "neither the driver nor the bus tells"
    return Gpu(accelerator, gpu.identity, missing)


def _on_pcie(way: Interconnect, gpus: Sequence[Gpu]) -> Interconnect:
    if way.kind != "pcie" or way.gb_per_s is not None:
        return way
    one, other = (gpus[place].accelerator.pcie for place in (way.first, way.second))
    return way.model_copy(update={"gb_per_s": pci.gb_per_s(one, other)})


def _between(one: int, other: int, gpus: Sequence[Gpu], slots: Mapping[str, pci.Slot]) -> Interconnect:
    """Of two vendors, or of two that their driver did not compare."""
    ends = [slots.get(gpus[place].identity.pci_address or "") for place in (one, other)]
    return _on_pcie(Interconnect(first=one, second=other, kind="pcie", hop=pci.hop(*ends)), gpus)


def _both(one: Files, other: Files) -> Files:
    return Files(one.texts | other.texts, one.unread | other.unread, one.why or other.why)
