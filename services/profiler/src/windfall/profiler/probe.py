"""The ports to whatever is measured, and the sets of adapters that a setting can name.

A probe answers within its own limits and does not raise: what it could not find out is missing from its reading, with
the reason. Each is one file; a new vendor is one more.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import grpc.aio

from windfall.profiler.cpu import Cpu
from windfall.profiler.discovery.hardware import Discovered, of_node
from windfall.profiler.fixed import FixedProbe
from windfall.profiler.link import GrpcLink
from windfall.profiler.measurement.bench import LOADING, TorchBench
from windfall.profiler.measurement.full import FullBench
from windfall.profiler.measurement.power import PowerMeter
from windfall.profiler.profile import Compute, Host, Link, Workload
from windfall.profiler.settings import REFERENCE, ProfilerSettings
from windfall.servicekit import rpc


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

    def of(self, workload: Workload) -> "ComputeProbe":
        """The same, measuring steps of this task."""

    async def compute(self, host: Host) -> Compute:
        """Measure with no more than the cores of ``host``."""


class LinkProbe(Protocol):
    """The way to the coordinator or another site. Moves a bounded number of bytes."""

    async def link(self) -> Link:
        """Measure every part of it. Takes seconds."""

    async def echo(self) -> Link:
        """Measure how long it is, and nothing else: it moves next to nothing."""


@dataclass(frozen=True)
class Probes:
    """One of each."""

    hardware: HardwareProbe
    host: HostProbe
    compute: ComputeProbe
    link: LinkProbe
    peers: Mapping[str, LinkProbe] = field(default_factory=dict)
    """The ways to other sites, as far as the owner of this one has said where they are."""
    learns: bool = True
    """Steps of the task that the site's trainer learns of are measured; not where the owner said whose."""


def bench(settings: ProfilerSettings) -> ComputeProbe:
    """The compute benchmark that the settings ask for."""
    budget, full = settings.bench_budget, settings.bench == "full"
    workload = None
    if settings.bench_task not in (None, REFERENCE):
        workload = Workload(task=settings.bench_task, settings=settings.bench_task_settings)
    torch = TorchBench(budget, full=full, workload=workload, data_dir=settings.bench_data_dir)
    # A sum over all devices is short beside all else, and has torch to load again.
    return FullBench(torch, PowerMeter(LOADING + 2 * budget), budget / 5, LOADING) if full else torch


def node(settings: ProfilerSettings) -> Probes:
    """The node that this process runs on."""
    return Probes(
        hardware=of_node(settings.state_dir, settings.discovery_timeout),
        host=Cpu(),
        compute=bench(settings),
        link=GrpcLink(settings.coordinator, settings.link_bytes, connect=_connect(settings)),
        peers={
            site: GrpcLink(target, settings.link_bytes, connect=_connect(settings), what=site)
            for site, target in settings.peers.items()
        },
        learns=settings.bench_task is None,
    )


def _connect(settings: ProfilerSettings) -> Callable[[str], grpc.aio.Channel]:
    return partial(rpc.connect, tls=settings.tls)


def fixed(settings: ProfilerSettings) -> Probes:
    """A node that is known beforehand."""
    probe = FixedProbe()
    return Probes(probe, probe, probe, probe)


KNOWN: dict[str, Callable[[ProfilerSettings], Probes]] = {"node": node, "fixed": fixed}
