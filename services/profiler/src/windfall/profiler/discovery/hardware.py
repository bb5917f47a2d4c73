"""Everything that a node is made of, found at once and put together."""

import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from windfall.contracts.hardware import Hardware
from windfall.contracts.profile import Local
from windfall.profiler.discovery.amd import AmdSmi
from windfall.profiler.discovery.gpus import Gpus
from windfall.profiler.discovery.nics import Nics
from windfall.profiler.discovery.nvidia import Nvml
from windfall.profiler.discovery.part import Finder, Gpu, Part
from windfall.profiler.discovery.processor import Processors
from windfall.profiler.discovery.storage import StateFolder
from windfall.profiler.discovery.system import Systems


@dataclass(frozen=True)
class Discovered:
    """What may be told, and what stays at the site."""

    hardware: Hardware = field(default_factory=Hardware)
    local: Local = field(default_factory=Local)


class Discovery:
    """Asks every finder at the same time."""

    def __init__(self, finders: Sequence[Finder]) -> None:
        self._finders = finders

    async def discover(self) -> Discovered:
        return together(await asyncio.gather(*(_found(finder) for finder in self._finders)))


async def _found(finder: Finder) -> Part:
    try:
        return await finder.find()
    except ValueError as error:
        return Part(missing={finder.name: f"what was said of it cannot be read ({type(error).__name__}: {error})"})


def of_node(
    state_dir: Path,
    within: timedelta,
    root: Path = Path("/"),
    nvml_python: Sequence[str] = (sys.executable,),
    environment: Mapping[str, str] | None = None,
) -> Discovery:
    """The node that this process runs on.

    Args:
        within: wall time for each source.
        root: of the file system whose ``sys``, ``proc`` and ``etc`` are read.
        environment: added to that of vendors' software.
    """
    nvml = Nvml(within, nvml_python, environment)
    return Discovery(
        (
            Gpus(nvml, AmdSmi(within, environment=environment), within, root),
            Processors(root),
            Nics(within, root),
            StateFolder(state_dir, within),
            Systems(within, root),
        )
    )


def _of_gpus(gpus: Sequence[Gpu]) -> dict[str, str]:
    """What is missing of all for one reason is said once."""
    said: dict[str, str] = {}
    for place, gpu in enumerate(gpus):
        for name, why in gpu.missing.items():
            everywhere = len(gpus) > 1 and all(other.missing.get(name) == why for other in gpus)
            said[f"accelerators.{'*' if everywhere else place}.{name}"] = why
    return said


def together(parts: Sequence[Part]) -> Discovered:
    """One description. Reasons are told in a sentence that says nothing of places; in full they stay at the site."""
    missing: dict[str, str] = {}
    found: dict[str, object] = {}
    local: dict[str, object] = {}
    for part in parts:
        missing |= part.missing
        missing |= _of_gpus(part.gpus)
        if part.gpus:
            found["accelerators"] = tuple(gpu.accelerator for gpu in part.gpus)
            found["interconnects"] = part.interconnects
            local["accelerators"] = tuple(gpu.identity for gpu in part.gpus)
        if part.nics:
            found["nics"], local["nics"] = part.nics, part.nic_names
        found |= {
            name: value for name in ("processor", "storage", "system") if (value := getattr(part, name)) is not None
        }
        local |= {"storage": part.storage_folder} if part.storage_folder else {}
    hardware = Hardware.model_validate({**found, "missing": missing})
    details = {part: why for part, why in missing.items() if hardware.missing[part] != why}
    return Discovered(hardware, Local.model_validate({**local, "details": details}))
