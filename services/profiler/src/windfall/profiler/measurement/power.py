"""Reads power while something is measured, through counters in a child process (``child/counters.py``)."""

import asyncio
import math
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from windfall.profiler.child_process import CHILDREN, ended
from windfall.profiler.hw.counted import Counted
from windfall.profiler.hw.mapping import told
from windfall.profiler.measurement.energy import Meter, Readings, drawn
from windfall.profiler.profile import Compute
from windfall.servicekit import instruments as m

COUNTERS: Final = CHILDREN / "counters.py"
POWER_PARTS: Final = ("power_idle_w", "power_train_w", "joules_per_sample")
EVERY: Final = timedelta(milliseconds=100)
IDLE_READINGS: Final = 20
"""Two seconds before anything is asked of the node."""
FIRST_WITHIN: Final = timedelta(seconds=10)
"""Until a first reading: NVIDIA's driver takes seconds for every GPU when nothing keeps it loaded."""
MOST_READINGS: Final = 20_000


def readings(line: Counted) -> Readings:
    """A line's energy and power, by device."""
    meters = {name: meter for name, values in line.devices.items() if (meter := _meter(name, values)) is not None}
    return Readings(line.at_s or 0.0, meters)


def _meter(device: str, values: Mapping[str, float]) -> Meter | None:
    found = {instrument.name: value for instrument, value, _ in told(device, values)}
    joules, watts = found.get(m.HW_ENERGY.name), found.get(m.HW_POWER.name)
    if joules is None and watts is None:
        return None
    range_uj = values.get("max_energy_range_uj")
    return Meter(joules, watts, None if range_uj is None else range_uj * 1e-6)


class Watched:
    """What was read so far, and what was not."""

    def __init__(self) -> None:
        self.readings: list[Readings] = []
        self.missing: dict[str, str] = {}
        self.lost: set[str] = set()
        self._more = asyncio.Event()
        self._over = False

    def hear(self, line: Counted) -> None:
        self.missing |= line.missing
        self.missing |= {device: f"was lost: {why}" for device, why in line.lost.items()}
        self.lost |= line.lost.keys()
        if line.at_s is not None and len(self.readings) < MOST_READINGS:
            self.readings.append(readings(line))
        self._more.set()

    def end(self) -> None:
        self._over = True
        self._more.set()

    async def idle(self) -> None:
        """Until there are readings of a node of which nothing is asked; not at all where nothing can be read."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_WITHIN.total_seconds()):
                while not self._over and len(self.readings) < IDLE_READINGS:
                    if self.readings and not self.readings[-1].meters:
                        return
                    self._more.clear()
                    await self._more.wait()

    @property
    def why(self) -> str:
        """Why power is not known."""
        if self.missing:
            return "; ".join(f"{name}: {why}" for name, why in self.missing.items())
        if any(one.meters for one in self.readings):
            return "its counters gave too few readings"
        return "no device here has a counter of power or energy that can be read"


class PowerMeter:
    """Starts the child.

    Args:
        lifetime: after which the kernel ends it, whatever becomes of us.
        python: the interpreter's command line.
        environment: on top of ours.
        root: of the file system, for the kernel's files.
    """

    def __init__(
        self,
        lifetime: timedelta,
        python: Sequence[str] = (sys.executable,),
        environment: Mapping[str, str] | None = None,
        root: Path = Path("/"),
    ) -> None:
        self._command = (
            *python,
            str(COUNTERS),
            f"--every-s={EVERY.total_seconds():g}",
            f"--lifetime-s={math.ceil(lifetime.total_seconds())}",
            f"--root={root}",
        )
        self._environment = environment

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Watched]:
        """Power is read until the block ends."""
        watched = Watched()
        try:
            child = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=DEVNULL,
                stdout=PIPE,
                env=None if self._environment is None else os.environ | self._environment,
                start_new_session=True,
            )
        except OSError as error:
            watched.missing["power"] = f"the counters' reader cannot be started ({error.strerror})"
            yield watched
            return
        hearing = asyncio.create_task(_heard(child, watched))
        try:
            yield watched
        finally:
            await ended(child)
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)


async def _heard(child: Process, watched: Watched) -> None:
    assert child.stdout is not None
    try:
        async for line in child.stdout:
            watched.hear(Counted.model_validate_json(line))
    except ValueError:
        watched.missing["power"] = "the counters' reader said something that cannot be read"
    finally:
        watched.end()


def powered(found: Compute, watched: Watched, begun_s: float) -> Compute:
    """What the readings say of idling before ``begun_s`` and of training, as fields of a compute reading.

    Where a device was lost no power is told: what the others drew is not the node's.
    """
    believed = [] if watched.lost else watched.readings
    idle = drawn(believed, 0.0, begun_s)
    stretch = found.trained
    busy = None if stretch is None else drawn(believed, stretch.begin_s, stretch.end_s)
    said: dict[str, Any] = {}
    intervals = {}
    if idle is not None:
        said["power_idle_w"] = idle.watts
        if idle.about is not None:
            intervals["power_idle_w"] = idle.about
    if busy is not None and stretch is not None:
        said["power_train_w"] = busy.watts
        said["joules_per_sample"] = busy.watts * (stretch.end_s - stretch.begin_s) / stretch.samples
        if busy.about is not None:
            intervals["power_train_w"] = busy.about
    missing = {part: watched.why for part in POWER_PARTS if part not in said}
    return Compute.model_validate({**said, "intervals": intervals, "missing": missing})
