"""A node whose measurements are known beforehand: the double for tests and for fleets on virtual time.

It ships because whoever embeds a fleet in one process needs it: no child process, no network, no time passes.
"""

from dataclasses import dataclass, field

from windfall.profiler.discovery.hardware import Discovered
from windfall.profiler.profile import Compute, Host, Link, Workload

_HOST = Host(cpu_model="fixed", cpu_cores=2, memory_bytes=8 * 2**30, platform="fixed")
_COMPUTE = Compute(
    matmul_gflops=100.0,
    memory_bandwidth_gb_per_s=10.0,
    step_s_by_micro_batch={1: 0.010, 2: 0.012, 4: 0.016, 8: 0.024, 16: 0.046, 32: 0.090},
)
_LINK = Link(link_rtt_ms=20.0, link_jitter_ms=1.0, link_up_mb_per_s=12.5, link_down_mb_per_s=50.0)


@dataclass
class FixedProbe:
    """Answers every probe at once with what it was given, and counts how often the benchmark was asked for."""

    discovered: Discovered = field(default_factory=Discovered)
    host_reading: Host = _HOST
    compute_reading: Compute = _COMPUTE
    link_reading: Link = _LINK
    version: str = "fixed"
    benchmarks: int = field(default=0, init=False)

    async def discover(self) -> Discovered:
        return self.discovered

    async def host(self) -> Host:
        return self.host_reading

    def of(self, workload: Workload) -> "FixedProbe":
        return self

    async def compute(self, host: Host) -> Compute:
        self.benchmarks += 1
        return self.compute_reading

    async def link(self) -> Link:
        return self.link_reading

    async def echo(self) -> Link:
        reading = self.link_reading
        return Link(link_rtt_ms=reading.link_rtt_ms, link_jitter_ms=reading.link_jitter_ms, missing=reading.missing)
