"""What a process has used, as Linux counts it (proc(5))."""

import os
from pathlib import Path


def resident(pid: int) -> int:
    """Bytes that a process holds in memory now."""
    return _status(pid, "VmRSS")


def peak_resident(pid: int) -> int:
    """The most that it ever held."""
    return _status(pid, "VmHWM")


def cpu_s(pid: int) -> float:
    """Seconds of processor time, user's and system's, of all its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _status(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise LookupError(key)
