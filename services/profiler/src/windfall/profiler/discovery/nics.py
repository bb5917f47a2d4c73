"""Physical network interfaces and their RDMA, from sysfs in a child process: some drivers take long to say a speed.

See the kernel's ``Documentation/ABI/testing/sysfs-class-net`` and ``…/stable/sysfs-class-infiniband``.
"""

from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

from windfall.contracts.hardware import Nic, token
from windfall.profiler.discovery.files import Files, read
from windfall.profiler.discovery.part import Part

NETS: Final = "sys/class/net"
RDMAS: Final = "sys/class/infiniband"
PATTERNS: Final = (
    f"{NETS}/*/device@",
    f"{NETS}/*/operstate",
    f"{NETS}/*/device/numa_node",
    f"{NETS}/*/device/driver@",
    f"{NETS}/*/speed",
    f"{RDMAS}/*/device@",
    f"{RDMAS}/*/node_type",
    f"{RDMAS}/*/device/numa_node",
    f"{RDMAS}/*/device/driver@",
    f"{RDMAS}/*/ports/*/link_layer",
    f"{RDMAS}/*/ports/*/state",
    f"{RDMAS}/*/ports/*/rate",
)
Rdma = Literal["infiniband", "roce", "iwarp"]


class Nics:
    """Reads the interfaces.

    Args:
        root: of the file system whose ``sys`` is read.
    """

    name: Final = "nics"

    def __init__(self, within: timedelta, root: Path = Path("/")) -> None:
        self._within = within
        self._root = root

    async def find(self) -> Part:
        files = await read(self._root, PATTERNS, self._within)
        found = nics(files)
        # There is always one: the loopback.
        silent = "" if files.below(NETS) else f"tells no interface in {self._root / NETS}"
        missing = {"nics": f"the kernel {why}"} if (why := files.why or silent) else {}
        return Part(nics=tuple(found.values()), nic_names=tuple(found), missing=missing)


def nics(files: Files) -> dict[str, Nic]:
    """By name. An interface that is no device's (a bridge, a tunnel) is none; an RDMA device without one counts."""
    found: dict[str, Nic] = {}
    rdma = {files.text(f"{RDMAS}/{name}/device"): name for name in files.below(RDMAS)}
    for name in files.below(NETS):
        device = files.text(f"{NETS}/{name}/device")
        if device is None:
            continue
        over = rdma.pop(device, None)
        found[name] = Nic(
            up=files.text(f"{NETS}/{name}/operstate") == "up",
            speed_mbit_per_s=files.number(f"{NETS}/{name}/speed") or (over and _rate(files, over)) or None,
            rdma=_kind(files, over) if over else None,
            driver=_driver(files, f"{NETS}/{name}"),
            numa_node=files.number(f"{NETS}/{name}/device/numa_node"),
        )
    for name in rdma.values():
        ports = f"{RDMAS}/{name}/ports"
        states = [files.text(f"{ports}/{port}/state") or "" for port in files.below(ports)]
        found[name] = Nic(
            up=any("ACTIVE" in state for state in states),
            speed_mbit_per_s=_rate(files, name),
            rdma=_kind(files, name),
            driver=_driver(files, f"{RDMAS}/{name}"),
            numa_node=files.number(f"{RDMAS}/{name}/device/numa_node"),
        )
    return found


def _driver(files: Files, at: str) -> str | None:
    return token((files.text(f"{at}/device/driver") or "").rpartition("/")[2])


def _kind(files: Files, name: str) -> Rdma | None:
    if "RNIC" in (files.text(f"{RDMAS}/{name}/node_type") or ""):
        return "iwarp"
    layer = files.text(f"{RDMAS}/{name}/ports/1/link_layer")
    return {"InfiniBand": "infiniband", "Ethernet": "roce"}.get(layer or "")  # type: ignore[return-value]


def _rate(files: Files, name: str) -> int | None:
    """Mb/s of ``400 Gb/sec (4X NDR)``."""
    rate, _, _ = (files.text(f"{RDMAS}/{name}/ports/1/rate") or "").partition(" ")
    try:
        return int(float(rate) * 1000)
    except ValueError:
        return None
