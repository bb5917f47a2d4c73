"""The node's processor and memory, as far as the kernel lets this process use them.

A container sees the whole machine in ``/proc``; what it may really use stands in its affinity mask and in its cgroup,
where every ancestor's limit counts too. Read from the kernel's own files: cgroup v2 (``cpu.max``, ``memory.max``) and
v1 (``cpu.cfs_quota_us``, ``memory.limit_in_bytes``), see the Linux admin guide, *Control Group v2* and *v1*.
"""

import math
import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil

from windfall.profiler.profile import Host


class Cpu:
    """Reads the host.

    Args:
        proc: where procfs is mounted.
        cgroups: where the cgroup hierarchies are mounted.
    """

    def __init__(self, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> None:
        self._proc = proc
        self._cgroups = cgroups

    async def host(self) -> Host:
        missing: dict[str, str] = {}
        model = cpu_model(_read(self._proc / "cpuinfo"))
        if model is None:
            model = platform.processor() or platform.machine() or "unknown"
            missing["cpu_model"] = f"no model name in {self._proc / 'cpuinfo'}"
        quota = min(self._quotas(), default=math.inf)
        memory = min((psutil.virtual_memory().total, *self._memory_limits()))
        return Host(
            cpu_model=model,
            cpu_cores=_usable(quota),
            memory_bytes=memory,
            platform=f"{platform.system()} {platform.machine()}",
            missing=missing,
        )

    def _quotas(self) -> Iterator[float]:
        for group in self._groups("cpu"):
            if limit := _read(group / "cpu.max"):
                quota, period = limit.split()
            else:
                quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
            if quota.isdecimal() and period.isdecimal() and int(period):
                yield int(quota) / int(period)

    def _memory_limits(self) -> Iterator[int]:
        for group in self._groups("memory"):
            limit = _read(group / "memory.max") or _read(group / "memory.limit_in_bytes")
            if limit.isdecimal():
                yield int(limit)

    def _groups(self, controller: str) -> Iterator[Path]:
        """This process's groups and all their ancestors, in both hierarchies.

        Inside a container the path of ``/proc/self/cgroup`` may be the host's and not exist here; the mount's root is
        then the container's own group, and it is among the ancestors.
        """
        for line in _read(self._proc / "self" / "cgroup").splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                root = self._cgroups
            elif controller in controllers.split(","):
                root = self._cgroups / controller
            else:
                continue
            group = root / path.lstrip("/")
            yield group
            while group != root:
                group = group.parent
                yield group


def _usable(quota: float) -> int:
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    # A quota of 1.5 cores is worth two threads that are throttled now and then, rather than one that leaves a third.
    return max(1, min(cores, math.ceil(quota) if math.isfinite(quota) else cores))


def cpu_model(cpuinfo: str) -> str | None:
    """x86 calls it ``model name``, POWER ``cpu``, s390 and some ARM kernels ``Processor``."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "cpu", "Processor") and value.strip():
            return value.strip()
    return None


def _read(path: Path) -> str:
    """A kernel file's text. One that does not exist here, or that we may not read, limits nothing that we can know."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
