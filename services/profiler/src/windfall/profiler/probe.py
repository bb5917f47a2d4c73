"""The ports to whatever is measured, and the sets of adapters that a setting can name.

A probe answers within its own limits and does not raise: what it could not find out is missing from its reading, with
the reason. Each is one file; a new vendor is one more.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from windfall.profiler.cpu import Cpu
from windfall.profiler.discovery.hardware import Discovered, of_node
from windfall.profiler.fixed import FixedProbe
from windfall.profiler.link import CoordinatorLink
from windfall.profiler.measurement.bench import LOADING, TorchBench, Workload
from windfall.profiler.measurement.full import FullBench
from windfall.profiler.measurement.power import PowerMeter
from windfall.profiler.profile import Compute, Host, Link
from windfall.profiler.settings import ProfilerSettings


class HardwareProbe(Protocol):
    """What the node is made of. Takes less than a second where every driver answers."""

    async def discover(self) -> Discovered: ...


class HostProbe(Protocol):
    """What of the node this process may use. Takes milliseconds."""

    async def host(self) -> Host: ...


class ComputeProbe(Protocol):
    """What the node's processors can do. Takes seconds, so that a reading is kept as long as it stays true."""

    @property
    def version(self) -> str:
        """Changes when the benchmark, or the runtime that it measures with, does."""

    async def compute(self, host: Host) -> Compute:
        """Measure with no more than the cores of ``host``."""


class LinkProbe(Protocol):
    """The way to the coordinator. Moves a bounded number of bytes."""

    async def link(self) -> Link: ...


@dataclass(frozen=True)
class Probes:
    """One of each."""

    hardware: HardwareProbe
    host: HostProbe
    compute: ComputeProbe
    link: LinkProbe


def bench(settings: ProfilerSettings) -> ComputeProbe:
    """The compute benchmark that the settings ask for."""
    budget, full = settings.bench_budget, settings.bench == "full"
    workload = None
    if settings.bench_task is not None:
        workload = Workload(settings.bench_task, settings.bench_task_settings, settings.bench_data_dir)
    torch = TorchBench(budget, full=full, workload=workload)
    # A sum over all devices is short beside all else, and has torch to load again.
    return FullBench(torch, PowerMeter(LOADING + 2 * budget), budget / 5, LOADING) if full else torch


def node(settings: ProfilerSettings) -> Probes:
    """The node that this process runs on."""
    return Probes(
        hardware=of_node(settings.state_dir, settings.discovery_timeout),
        host=Cpu(),
        compute=bench(settings),
        link=CoordinatorLink(settings.coordinator, settings.link_bytes),
    )


def fixed(settings: ProfilerSettings) -> Probes:
    """A node that is known beforehand."""
    probe = FixedProbe()
    return Probes(probe, probe, probe, probe)


KNOWN: dict[str, Callable[[ProfilerSettings], Probes]] = {"node": node, "fixed": fixed}
