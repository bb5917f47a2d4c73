"""A machine that was recorded, at the lowest seam: files of the kernel, vendors' libraries, outputs of their tools.

:func:`replayed` writes the files under a folder, puts the tools where a path finds them, and says under which
environment a child process meets the recorded libraries. ``recordings`` holds the machines, and a README that says
where each is from.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from windfall.profiler.discovery.amd import AmdSmi
from windfall.profiler.discovery.gpus import Gpus
from windfall.profiler.discovery.kfd import MODULE, NODES
from windfall.profiler.discovery.nvidia import Nvml
from windfall.profiler.discovery.pci import DEVICES

RECORDINGS: Final = Path(__file__).with_name("recordings")
_LIBRARIES: Final = ("recorded_nvml", "recorded_amdsmi")


@dataclass(frozen=True)
class Replayed:
    """Where a recorded machine is met."""

    root: Path
    """Of its file system."""
    environment: dict[str, str]
    """Of children that ask vendors' software."""

    def gpus(self, within: timedelta = timedelta(seconds=60)) -> Gpus:
        """Its GPUs, as discovery asks for them."""
        environment = self.environment
        return Gpus(Nvml(within, environment=environment), AmdSmi(within, environment=environment), within, self.root)


def load(name: str) -> dict[str, Any]:
    """A recording by the name of its file."""
    machine: dict[str, Any] = json.loads((RECORDINGS / f"{name}.json").read_text(encoding="utf-8"))
    return machine


def replayed(machine: Mapping[str, Any], folder: Path) -> Replayed:
    """Write a machine under an empty folder. One that records no NVML has no NVIDIA driver."""
    recording = folder / "machine.json"
    folder.mkdir(parents=True, exist_ok=True)
    recording.write_text(json.dumps({"nvml": {"init": 12}, **machine}), encoding="utf-8")
    root, tools = folder / "root", folder / "bin"
    root.mkdir()
    tools.mkdir()
    for address, device in machine.get("pci", {}).items():
        _device(root, address, device)
    _kfd(root, machine.get("kfd", {}))
    for path, text in machine.get("files", {}).items():
        _file(root / path, text)
    for path, target in machine.get("links", {}).items():
        _link(root / path, root / target)
    for name, said in machine.get("tools", {}).items():
        output = folder / f"{name}.json"
        output.write_text(said if isinstance(said, str) else json.dumps(said), encoding="utf-8")
        (tools / name).write_text(f"#!/bin/sh\nexec cat '{output}'\n", encoding="utf-8")
        (tools / name).chmod(0o755)
    libraries = [str(Path(__file__).with_name(name)) for name in _LIBRARIES]
    environment = {
        "PYTHONPATH": ":".join(libraries),
        "PATH": f"{tools}:/usr/bin:/bin",
        "WINDFALL_RECORDED_NVML": str(recording),
        "WINDFALL_RECORDED_AMDSMI": str(recording),
    }
    return Replayed(root, environment)


def _device(root: Path, address: str, device: Mapping[str, str]) -> None:
    at = root / "sys" / "devices" / device["path"]
    for name, text in device.items():
        if name != "path":
            _file(at / name, text)
    _link(root / DEVICES / address, at)


def _kfd(root: Path, kfd: Mapping[str, Any]) -> None:
    if "module" in kfd:
        _file(root / MODULE / "initstate", "live")
        if kfd["module"]:
            _file(root / MODULE / "version", kfd["module"])
    for number, node in kfd.get("nodes", {}).items():
        at = root / NODES / number
        _file(at / "properties", _properties(node["properties"]))
        for bank, properties in enumerate(node.get("mem_banks", ())):
            _file(at / "mem_banks" / str(bank) / "properties", _properties(properties))
        for link, properties in enumerate(node.get("io_links", ())):
            _file(at / "io_links" / str(link) / "properties", _properties(properties))


def _properties(values: Mapping[str, int]) -> str:
    return "".join(f"{name} {value}\n" for name, value in values.items())


def _file(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)
