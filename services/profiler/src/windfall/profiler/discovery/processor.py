"""The machine's processors and memory, from procfs and sysfs: all of it, whatever share of it this process may use.

See the kernel's ``Documentation/ABI/stable/sysfs-devices-system-cpu`` and ``…/sysfs-devices-node``.
"""

import asyncio
from pathlib import Path
from typing import Final

import psutil

from windfall.contracts.hardware import NumaNode, Processor, token
from windfall.profiler.cpu import cpu_model
from windfall.profiler.discovery.part import Part

FEATURES: Final = frozenset(
    (
        # x86: what torch, oneDNN and BLAS libraries choose kernels by
        *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "amx_tile", "amx_bf16", "amx_int8", "amx_fp16"),
        *("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
        # ARM
        *("asimd", "asimdhp", "asimddp", "sve", "sve2", "svebf16", "svei8mm", "bf16", "i8mm", "sme"),
    )
)
"""As ``/proc/cpuinfo`` calls them, in the words of the kernel's ``cpufeatures``."""
_KIB: Final = 1024


class Processors:
    """Reads the processors.

    Args:
        root: of the file system whose ``proc`` and ``sys`` are read.
    """

    name: Final = "processor"

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    async def find(self) -> Part:
        return await asyncio.to_thread(self._read)

    def _read(self) -> Part:
        missing: dict[str, str] = {}
        cpus = self._root / "sys" / "devices" / "system" / "cpu"
        cpuinfo = _text(self._root / "proc" / "cpuinfo")
        model = cpu_model(cpuinfo)
        if model is None:
            missing["processor.model"] = f"no model name in {self._root / 'proc' / 'cpuinfo'}"
        packages = {_text(path) for path in cpus.glob("cpu[0-9]*/topology/physical_package_id")} - {"", "-1"}
        siblings = {_text(path) for path in cpus.glob("cpu[0-9]*/topology/thread_siblings_list")} - {""}
        threads = _count(_text(cpus / "online")) or psutil.cpu_count() or 1
        for part, told in (("sockets", packages), ("cores", siblings)):
            if not told:
                missing[f"processor.{part}"] = f"the kernel tells no topology in {cpus}"
        memory = _kib(_text(self._root / "proc" / "meminfo"), "MemTotal:") or psutil.virtual_memory().total
        processor = Processor(
            model=model or "unknown",
            sockets=len(packages) or None,
            cores=len(siblings) or None,
            threads=threads,
            features=tuple(sorted(feature for feature in FEATURES & _flags(cpuinfo) if token(feature))),
            numa_nodes=tuple(self._numa_nodes()),
            memory_bytes=memory,
        )
        return Part(processor=processor, missing=missing)

    def _numa_nodes(self) -> list[NumaNode]:
        nodes = (self._root / "sys" / "devices" / "system" / "node").glob("node[0-9]*")
        return sorted(
            (
                NumaNode(
                    number=int(node.name.removeprefix("node")),
                    threads=_count(_text(node / "cpulist")),
                    memory_bytes=_kib(_text(node / "meminfo"), "MemTotal:"),
                )
                for node in nodes
            ),
            key=lambda node: node.number,
        )


def _flags(cpuinfo: str) -> frozenset[str]:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _count(cpulist: str) -> int:
    """Of ``0-3,8``: five."""
    ranges = (part.partition("-") for part in cpulist.split(",") if part)
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)


def _kib(meminfo: str, name: str) -> int | None:
    for line in meminfo.splitlines():
        words = line.split()
        if name in words:
            return int(words[words.index(name) + 1]) * _KIB
    return None


def _text(path: Path) -> str:
    """A kernel file's text; one that is not here tells nothing."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
