"""Shows what devices count to a collector: one reading each time it collects, and none where nobody does.

The reading is taken in the exporter's own thread, in a child process with a deadline. A driver that hangs costs that
thread the deadline once: as long as the child is not gone, it is not asked again.
"""

import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Final

from opentelemetry.metrics import MeterProvider

from windfall.profiler.child_process import CHILDREN
from windfall.profiler.hw import dcgm
from windfall.profiler.hw.counted import Counted
from windfall.profiler.hw.mapping import TABLE, Told, status, told
from windfall.servicekit import instruments as m
from windfall.servicekit import metrics

Read = Callable[[], Counted]

WITHIN: Final = timedelta(seconds=5)
SAME: Final = timedelta(seconds=1)
"""All instruments of one collection ask within this of each other."""
COUNTING: Final = ("dev/nvidia*", "dev/nvhost*", "dev/dxg", "dev/kfd", "sys/class/powercap/intel-rapl:*")
"""Devices of NVIDIA (Tegra and WSL too) and AMD, and the energy counters of processors (RAPL, AMD's too)."""
INSTRUMENTS: Final = (
    *{row.instrument.name: row.instrument for row in TABLE}.values(),
    m.HW_GPU_MEMORY_UTILIZATION,
    m.HW_STATUS,
)


class Child:
    """Asks a program that says one line (``child/counters.py``)."""

    def __init__(
        self,
        within: timedelta = WITHIN,
        command: Sequence[str] = (sys.executable, str(CHILDREN / "counters.py")),
        environment: Mapping[str, str] | None = None,
        root: Path = Path("/"),
    ) -> None:
        self._within = within.total_seconds()
        self._command = (*command, f"--lifetime-s={round(self._within) + 1}", f"--root={root}")
        self._environment = None if environment is None else os.environ | environment
        self._hanging: subprocess.Popen[str] | None = None

    def __call__(self) -> Counted:
        if self._hanging is not None and self._hanging.poll() is None:
            return Counted(missing={"counters": "their driver hangs"})
        self._hanging = None
        child = subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self._environment,
        )
        try:
            said, _ = child.communicate(timeout=self._within)
        except subprocess.TimeoutExpired:
            child.kill()
            self._hanging = child  # one that hangs in a driver is not waited for
            return Counted(missing={"counters": f"no answer within {self._within:g} s"})
        lines = [Counted.model_validate_json(line) for line in said.splitlines()]
        missing = {name: why for line in lines for name, why in line.missing.items()}
        return Counted(missing=missing) if not lines else lines[-1].model_copy(update={"missing": missing})


def counters(exporter: str | None) -> Read:
    """The node's own counters, or those that an exporter shows at this address."""
    return partial(where_counted, Child()) if exporter is None else partial(_exported, exporter)


def where_counted(read: Read, root: Path = Path("/")) -> Counted:
    """What there is to read where anything counts. Starting a process to find out that nothing does costs training as
    much as a reading."""
    if any(next(root.glob(pattern), None) is not None for pattern in COUNTING):
        return read()
    return Counted(at_s=time.monotonic())


def _exported(url: str) -> Counted:
    try:
        with urllib.request.urlopen(url, timeout=WITHIN.total_seconds()) as answer:  # noqa: S310 - a setting says http
            return Counted(at_s=time.monotonic(), devices=dcgm.parse(answer.read(dcgm.MOST_BYTES).decode()))
    except (OSError, ValueError) as error:
        return Counted(missing={"dcgm": str(error)})


class Watch:
    """The newest reading, and which devices were ever there."""

    def __init__(self, site: str, read: Read, now_s: Callable[[], float] = time.monotonic) -> None:
        self._site = site
        self._read = read
        self._now_s = now_s
        self._lock = threading.Lock()
        self._at_s: float | None = None
        self._told: list[Told] = []
        self._known: set[str] = set()

    def values(self, instrument: m.Instrument) -> Iterable[tuple[float, Mapping[str, str]]]:
        """What one instrument shows now."""
        with self._lock:
            if self._at_s is None or self._now_s() - self._at_s >= SAME.total_seconds():
                self._told = list(self._asked())
                self._at_s = self._now_s()
            return [
                (value, {"windfall.site": self._site, **attributes})
                for one, value, attributes in self._told
                if one is instrument
            ]

    def _asked(self) -> Iterable[Told]:
        found = self._read()
        self._known |= found.devices.keys() | found.lost.keys()
        for device, values in found.devices.items():
            yield from told(device, values)
        for device in sorted(self._known - found.devices.keys()):
            yield from status(device, "failed")


def watch(site: str, read: Read, source: MeterProvider | None = None) -> Watch:
    """Have the counters read whenever metrics are collected."""
    watched = Watch(site, read)
    for instrument in INSTRUMENTS:
        metrics.observe(instrument, partial(watched.values, instrument), source)
    return watched
