"""AMD GPUs: the kernel says which there are and how they are linked, AMD's own software says what the kernel does not.

The library amdsmi is asked first; where it does not answer, ``amd-smi`` and then ``rocm-smi`` are run. All of it
happens in child processes. Without any of them a GPU is told as the kernel knows it.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import combinations
from typing import Final

from windfall.contracts.hardware import Accelerator, Interconnect, Partition, token
from windfall.contracts.profile import Identity
from windfall.profiler.child_process import CHILDREN, Heard, hear
from windfall.profiler.discovery import amd_tools, pci
from windfall.profiler.discovery.amd_tools import ToolGpu, Unreadable
from windfall.profiler.discovery.gpu_models import canonical
from windfall.profiler.discovery.kfd import Kfd, KfdGpu
from windfall.profiler.discovery.nvidia import Devices
from windfall.profiler.discovery.part import Gpu

VENDOR: Final = "amd"
PROGRAM: Final = CHILDREN / "amdsmi_library.py"
_SOURCES: Final = "amdsmi, amd-smi or rocm-smi"


@dataclass(frozen=True)
class Told:
    """What the first of AMD's tools that answered said, and why those before it did not."""

    gpus: tuple[ToolGpu, ...] = ()
    whys: tuple[str, ...] = ()
    absent: bool = False
    """None of them is installed."""


class AmdSmi:
    """Asks the library, then the tools.

    Args:
        within: wall time for each of them.
        python: an interpreter, which has amdsmi or has not.
    """

    def __init__(
        self,
        within: timedelta,
        python: Sequence[str] = (sys.executable,),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._within = within
        self._python = python
        self._environment = environment

    async def told(self) -> Told:
        whys: list[str] = []
        absent = True
        asked: list[tuple[str, Sequence[str], Callable[[Heard], list[ToolGpu]]]] = [
            ("amdsmi", [*self._python, str(PROGRAM)], _library),
            ("amd-smi", amd_tools.AMD_SMI, lambda heard: amd_tools.amd_smi(heard.text)),
            ("rocm-smi", amd_tools.ROCM_SMI, lambda heard: amd_tools.rocm_smi(heard.text)),
        ]
        for name, command, understood in asked:
            heard = await hear(command, self._within, self._environment)
            if heard.absent:
                continue
            try:
                gpus = understood(heard)
            except _NotInstalled:
                continue
            except _Refused as refused:
                absent = False
                whys.append(str(refused))
                continue
            except Unreadable as error:
                absent = False
                whys.append(f"{name} {heard.why or 'cannot be understood'} ({heard.error or error})")
                continue
            absent = False
            if heard.why:
                whys.append(f"{name} {heard.why}")
            if gpus:
                return Told(tuple(gpus), tuple(whys))
        return Told((), tuple(whys), absent)


class _NotInstalled(Exception):
    """There is no such library."""


class _Refused(Exception):
    """The library says why it does not answer."""


def _library(heard: Heard) -> list[ToolGpu]:
    lines = [json.loads(line) for line in heard.lines]
    for line in lines:
        if line.get("absent"):
            raise _NotInstalled
        if "library" in line:
            raise _Refused(line["library"])
    return amd_tools.library(lines)


def devices(kernel: Kfd, told: Told, on_bus: Mapping[str, pci.Slot]) -> Devices:
    """One device for each GPU that anybody knows."""
    slots = [slot for slot in on_bus.values() if slot.vendor == pci.AMD]
    known = {gpu.address: gpu for gpu in told.gpus}
    kernels = {gpu.address: gpu for gpu in kernel.gpus}
    missing: dict[str, str] = {}
    trains = sorted(known.keys() | {gpu.address for gpu in kernel.gpus if gpu.nodes})
    rest = [address for address in kernels if address not in trains]
    if rest:
        missing[VENDOR] = f"{len(rest)} of {len(slots)} GPUs on the PCI bus cannot be reached: {_unreachable(kernel)}"
    if told.whys:
        missing[f"{VENDOR}.software"] = "; ".join(told.whys)
    elif trains and not told.gpus:
        missing[f"{VENDOR}.software"] = (
            f"none of {_SOURCES} is installed" if told.absent else f"{_SOURCES} know of no GPU"
        )
    if trains and not told.gpus:
        missing[f"{VENDOR}.software"] += ", so the kernel alone was asked"
    gpus = tuple(_gpu(kernels.get(at, KfdGpu(at)), known.get(at), kernel.driver) for at in trains)
    return Devices(gpus, tuple(_ways(trains, kernel, on_bus)), missing)


def _unreachable(kernel: Kfd) -> str:
    if not kernel.loaded:
        return "the driver amdgpu is not loaded; dmesg says more"
    if kernel.denied:
        return f"amdkfd refuses to tell of them ({kernel.denied}): give this container their devices"
    return "amdkfd does not know them; dmesg says more"


def _gpu(kernel: KfdGpu, tool: ToolGpu | None, driver: str | None) -> Gpu:
    said = tool or ToolGpu(kernel.address)
    model = said.model or kernel.model
    canonical_model = canonical(model or "", kernel.pci_device)
    compute = kernel.compute_partition or said.compute_partition
    memory = kernel.memory_partition or said.memory_partition
    mode = "-".join(part.lower() for part in (compute, memory) if part)
    shares = zip(kernel.nodes, kernel.partition_bytes, strict=False)
    version = said.driver or driver
    accelerator = Accelerator(
        vendor="amd",
        model=model or (f"AMD GPU {canonical_model}" if canonical_model else "an AMD GPU"),
        canonical_model=canonical_model,
        architecture=said.gfx or kernel.gfx,
        memory_bytes=kernel.memory_bytes or said.memory_bytes,
        driver=token(version or ""),
        partition_mode=token(mode),
        partitions=tuple(
            Partition(profile=token((compute or "").lower()) or "partition", memory_bytes=size) for _, size in shares
        ),
        ecc=said.ecc,
        ecc_uncorrected=said.ecc_uncorrected,
        power_limit_w=said.power_limit_w or kernel.power_limit_w,
    )
    identity = Identity(uuid=kernel.uuid or said.uuid, pci_address=kernel.address)
    told = accelerator.model_dump(include={"architecture", "memory_bytes", "driver", "ecc", "power_limit_w"})
    why = f"neither the kernel nor {_SOURCES} say it"
    missing = {name: why for name, value in told.items() if value is None}
    missing["throttled"] = "AMD's driver tells of it over time only, not at one look"
    return Gpu(accelerator, identity, missing)


def _ways(addresses: Sequence[str], kernel: Kfd, on_bus: Mapping[str, pci.Slot]) -> list[Interconnect]:
    ways = []
    for one, other in combinations(range(len(addresses)), 2):
        pair = addresses[one], addresses[other]
        hop = pci.hop(on_bus.get(pair[0]), on_bus.get(pair[1]))
        if pair in kernel.links:
            links, rate = kernel.links[pair]
            ways.append(Interconnect(first=one, second=other, kind="xgmi", hop=hop, links=links, gb_per_s=rate))
        else:
            ways.append(Interconnect(first=one, second=other, kind="pcie", hop=hop))
    return ways
