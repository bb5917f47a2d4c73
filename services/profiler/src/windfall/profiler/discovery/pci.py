"""What stands on PCI Express: whether there is a GPU at all, how it is connected, and how far two are apart.

Read from sysfs, without any vendor's driver: what is here is here even when its driver is broken. See the kernel's
``Documentation/ABI/testing/sysfs-bus-pci``.
"""

from dataclasses import dataclass
from itertools import takewhile
from typing import Final, Literal

from windfall.contracts.hardware import PcieLink
from windfall.profiler.discovery.files import Files

Hop = Literal["PIX", "PXB", "PHB", "NODE", "SYS"]

DEVICES: Final = "sys/bus/pci/devices"
PATTERNS: Final = (
    *(f"{DEVICES}/*/{name}" for name in ("vendor", "class")),
    f"{DEVICES}/*@",
)
LINK_FILES: Final = ("numa_node", "current_link_speed", "current_link_width", "max_link_speed", "max_link_width")
"""Of GPUs only: reading these of a sleeping device may wake it."""

NVIDIA: Final = 0x10DE
AMD: Final = 0x1002
_GPU_CLASSES: Final = (0x0300, 0x0302, 0x0380, 0x1200)
"""VGA, 3D and other display controllers, processing accelerators (PCI Code and ID Assignment)."""

_GT_PER_S: Final = {2.5: 1, 5.0: 2, 8.0: 3, 16.0: 4, 32.0: 5, 64.0: 6, 128.0: 7}
_LANE_GB_PER_S: Final = {1: 0.25, 2: 0.5, 3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563, 7: 15.125}
"""One direction, less the line code."""


@dataclass(frozen=True)
class Slot:
    """One GPU as the bus knows it."""

    address: str
    vendor: int
    path: str
    """In the tree of devices: host bridge, bridges, device."""
    numa_node: int | None = None
    link: PcieLink | None = None


def gpu_addresses(files: Files) -> list[str]:
    """Addresses of GPUs of the vendors that we know; the virtual functions of one count like others."""
    return [
        address
        for address in files.below(DEVICES)
        if files.number(f"{DEVICES}/{address}/vendor") in (NVIDIA, AMD)
        and (files.number(f"{DEVICES}/{address}/class") or 0) >> 8 in _GPU_CLASSES
    ]


def slots(files: Files) -> dict[str, Slot]:
    """Every GPU by its address."""
    return {address: _slot(files, address) for address in gpu_addresses(files)}


def _slot(files: Files, address: str) -> Slot:
    at = f"{DEVICES}/{address}"
    values = [
        _generation(files.text(f"{at}/current_link_speed")),
        files.number(f"{at}/current_link_width") or None,
        _generation(files.text(f"{at}/max_link_speed")),
        files.number(f"{at}/max_link_width") or None,
    ]
    # 255 lanes is what the kernel says where there is no link: a device within the root complex, a virtual function.
    link = PcieLink(generation=values[0], width=values[1], generation_max=values[2], width_max=values[3])
    told = any(values) and link.width_max != 255
    path = (files.text(at) or "").removeprefix("sys/devices/")
    return Slot(
        address,
        files.number(f"{at}/vendor") or 0,
        path,
        files.number(f"{at}/numa_node"),
        link if told else None,
    )


def _generation(speed: str | None) -> int | None:
    """Of ``16.0 GT/s PCIe``."""
    rate, _, _ = (speed or "").partition(" ")
    try:
        return _GT_PER_S.get(float(rate))
    except ValueError:
        return None


def hop(one: Slot | None, other: Slot | None) -> Hop | None:
    """How far apart two devices are, in the terms of ``nvidia-smi topo``; none when either is on no bus that we see."""
    if one is None or other is None or not one.path or not other.path:
        return None
    ours, theirs = one.path.split("/"), other.path.split("/")
    common = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(ours, theirs, strict=False))))
    if common == 0:
        same = one.numa_node is not None and one.numa_node == other.numa_node
        return "NODE" if same else "SYS"
    if common == 1:
        return "PHB"
    # Bridges on the way between them: at most those of one switch (its two ports below the common one) is one crossing.
    return "PIX" if len(ours) - common <= 2 and len(theirs) - common <= 2 else "PXB"


def gb_per_s(one: PcieLink | None, other: PcieLink | None) -> float | None:
    """What the narrower of two connections can carry in one direction."""
    rates = [_rate(link) for link in (one, other)]
    return None if None in rates else min(rate for rate in rates if rate is not None)


def _rate(link: PcieLink | None) -> float | None:
    if link is None or link.generation_max is None or link.width_max is None:
        return None
    return round(_LANE_GB_PER_S[link.generation_max] * link.width_max, 1)


def normal(address: str) -> str:
    """``00000000:1B:00.0``, as NVML writes it, is ``0000:1b:00.0``."""
    domain, _, rest = address.strip().lower().partition(":")
    return f"{domain[-4:].rjust(4, '0')}:{rest}" if rest.count(":") == 1 else f"0000:{domain}:{rest}"
