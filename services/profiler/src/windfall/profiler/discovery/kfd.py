"""AMD GPUs as the kernel knows them, from sysfs alone: the topology of amdkfd and the attributes of amdgpu.

It needs no library, and it is the one source of XGMI links and partitions that means the same in every release. A GPU
that is divided is several nodes of one PCI address. See the kernel's ``drivers/gpu/drm/amd/amdkfd/kfd_topology.c`` and
``Documentation/gpu/amdgpu``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from windfall.profiler.discovery.files import Files
from windfall.profiler.discovery.pci import DEVICES

NODES: Final = "sys/class/kfd/kfd/topology/nodes"
MODULE: Final = "sys/module/amdgpu"
PATTERNS: Final = (
    f"{MODULE}/version",
    f"{MODULE}/initstate",
    f"{NODES}/*/properties",
    f"{NODES}/*/mem_banks/*/properties",
    f"{NODES}/*/io_links/*/properties",
)
ATTRIBUTES: Final = (
    "device",
    "current_compute_partition",
    "current_memory_partition",
    "mem_info_vram_total",
    "product_name",
    "unique_id",
    "hwmon/hwmon*/power1_cap",
)
"""Of each GPU's PCI device."""

_XGMI: Final = 11
"""HSA_IOLINK_TYPE_XGMI."""
_VRAM: Final = (1, 2)
"""Heap types of memory banks: frame buffer that the host sees, and that it does not."""


@dataclass(frozen=True)
class KfdGpu:
    """One physical GPU."""

    address: str
    nodes: tuple[int, ...] = ()
    """Of amdkfd: one for each partition."""
    gfx: str | None = None
    memory_bytes: int | None = None
    partition_bytes: tuple[int | None, ...] = ()
    compute_partition: str | None = None
    memory_partition: str | None = None
    model: str | None = None
    pci_device: int | None = None
    uuid: str | None = None
    power_limit_w: float | None = None


@dataclass(frozen=True)
class Kfd:
    """All GPUs, and the XGMI links between them."""

    gpus: tuple[KfdGpu, ...] = ()
    links: Mapping[tuple[str, str], tuple[int, float | None]] = field(default_factory=dict)
    """Two addresses, in order → links between, GB/s of all in one direction."""
    loaded: bool = False
    """Whether there is a driver at all; one that is a part of the kernel has no version of its own."""
    driver: str | None = None
    denied: str = ""
    """Why there are nodes that cannot be read: a container sees all of them and may read those of its own devices."""


def kfd(files: Files, addresses: list[str]) -> Kfd:
    """What the files say. Addresses are those of AMD's GPUs on the bus, whether amdkfd knows them or not."""
    properties = {name: _properties(files, f"{NODES}/{name}/properties") for name in files.below(NODES)}
    gpu_nodes = {int(name): told for name, told in properties.items() if told.get("gfx_target_version")}
    by_address: dict[str, list[int]] = {address: [] for address in addresses}
    for node, told in gpu_nodes.items():
        by_address.setdefault(_address(told), []).append(node)
    gpus = tuple(_gpu(files, address, nodes, gpu_nodes) for address, nodes in sorted(by_address.items()))
    loaded = bool(gpu_nodes) or bool(files.below(MODULE))
    denied = next((why for path, why in files.unread.items() if path.startswith(f"{NODES}/")), "")
    return Kfd(gpus, _links(files, gpu_nodes), loaded, files.text(f"{MODULE}/version"), denied)


def _gpu(files: Files, address: str, nodes: list[int], told: Mapping[int, Mapping[str, int]]) -> KfdGpu:
    at = f"{DEVICES}/{address}"
    banks = tuple(_memory(files, node) for node in nodes)
    known = [size for size in banks if size is not None]
    caps = [files.number(path) for path in files.texts if path.startswith(f"{at}/hwmon/") and path.endswith("_cap")]
    first = told[nodes[0]] if nodes else {}
    unique = files.text(f"{at}/unique_id") or (f"{first['unique_id']:016x}" if first.get("unique_id") else None)
    version = first.get("gfx_target_version")
    device = files.number(f"{at}/device")
    return KfdGpu(
        address,
        tuple(nodes),
        gfx(version) if version else None,
        files.number(f"{at}/mem_info_vram_total") or (sum(known) or None),
        banks if len(nodes) > 1 else (),
        files.text(f"{at}/current_compute_partition"),
        files.text(f"{at}/current_memory_partition"),
        files.text(f"{at}/product_name") or None,
        first.get("device_id") if device is None else device,
        f"GPU-{unique.removeprefix('0x')}" if unique else None,
        next((cap / 1e6 for cap in caps if cap), None),
    )


def _links(files: Files, gpu_nodes: Mapping[int, Mapping[str, int]]) -> dict[tuple[str, str], tuple[int, float | None]]:
    """Between GPUs. Partitions of one GPU are linked too, inside of it; all partitions of two name the same link."""
    found: dict[tuple[str, str], tuple[int, float | None]] = {}
    for path in files.texts:
        if not path.startswith(f"{NODES}/") or "/io_links/" not in path:
            continue
        told = _properties(files, path)
        ends = told.get("node_from"), told.get("node_to")
        if told.get("type") != _XGMI or ends[0] not in gpu_nodes or ends[1] not in gpu_nodes:
            continue
        one, other = (_address(gpu_nodes[end]) for end in ends if end is not None)
        if one == other:
            continue
        rate, each = told.get("max_bandwidth", 0), told.get("min_bandwidth", 0)
        # amdkfd says MB/s of one link as the least and of all together as the most; old kernels say nothing.
        count = max(1, round(rate / each)) if rate and each else 1
        pair = (min(one, other), max(one, other))
        found[pair] = max(found.get(pair, (0, None)), (count, rate / 1000 if rate else None), key=lambda way: way[0])
    return found


def _memory(files: Files, node: int) -> int | None:
    banks = f"{NODES}/{node}/mem_banks"
    told = [_properties(files, f"{banks}/{bank}/properties") for bank in files.below(banks)]
    sizes = [bank.get("size_in_bytes", 0) for bank in told if bank.get("heap_type") in _VRAM]
    return sum(sizes) or None


def _properties(files: Files, path: str) -> dict[str, int]:
    pairs = (line.split() for line in (files.text(path) or "").splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].lstrip("-").isdecimal()}


def _address(told: Mapping[str, int]) -> str:
    """Function 0: the other functions of a divided GPU are its partitions."""
    location = told.get("location_id", 0)
    return f"{told.get('domain', 0):04x}:{location >> 8 & 0xFF:02x}:{location >> 3 & 0x1F:02x}.0"


def gfx(version: int) -> str:
    """90402 is ``gfx942``; stepping and minor are hexadecimal: 90010 is ``gfx90a``."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
