"""What a node is worth: readings become one measurement, and a measurement becomes training settings.

Nothing here reads a device or a clock. A reading that could not be taken is none, and its part is named in ``missing``
with the reason; a part is called what :class:`~windfall.contracts.events.Measured` calls it.
"""

import hashlib
from datetime import datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from windfall.contracts.events import Measured, NodeProfiled, NodeReady
from windfall.contracts.hardware import Hardware, Token, steady
from windfall.contracts.measures import Dtype, Interval
from windfall.contracts.message import derived_id
from windfall.profiler.recommendation import Goals, recommend

COMPUTE_PARTS = ("matmul_gflops", "memory_bandwidth_gb_per_s", "step_s_by_micro_batch")
MORE_COMPUTE_PARTS = (
    "task",
    "device",
    "matmul_gflops_by_dtype",
    "matmul_gflops_by_device",
    "host_to_device_gb_per_s",
    "device_to_host_gb_per_s",
    "all_reduce_gb_per_s",
    "all_reduce_ranks",
    "power_idle_w",
    "power_train_w",
    "joules_per_sample",
    "intervals",
    "benchmark",
)
"""What not every machine has, and not every benchmark measures: missing is what a reason is given for."""
LINK_PARTS = ("link_rtt_ms", "link_up_mb_per_s", "link_down_mb_per_s")


class Reading(BaseModel):
    """What one probe found."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    missing: dict[str, str] = Field(default_factory=dict)
    """Part that is missing → why."""


class Host(Reading):
    """What the node is, as far as this process may use it."""

    cpu_model: str
    cpu_cores: int = Field(ge=1)
    """Logical cores that affinity and cgroup quota leave to this process."""
    memory_bytes: int = Field(ge=0)
    """Physical memory, or the cgroup's limit when that is lower."""
    platform: str = ""
    """Operating system and machine, like ``Linux x86_64``."""


class Trained(BaseModel):
    """A stretch of nothing but training, on the machine's monotonic clock."""

    model_config = ConfigDict(frozen=True)

    begin_s: float
    end_s: float
    samples: int = Field(ge=1)


class Compute(Reading):
    """What the node's processors can do; fields mean what they mean in :class:`Measured`."""

    matmul_gflops: float | None = Field(default=None, ge=0)
    memory_bandwidth_gb_per_s: float | None = Field(default=None, ge=0)
    step_s_by_micro_batch: dict[int, float] = Field(default_factory=dict)
    task: Token | None = None
    device: Literal["cpu", "cuda"] | None = None
    matmul_gflops_by_dtype: dict[Dtype, float] = Field(default_factory=dict)
    matmul_gflops_by_device: dict[int, float] = Field(default_factory=dict)
    host_to_device_gb_per_s: float | None = Field(default=None, ge=0)
    device_to_host_gb_per_s: float | None = Field(default=None, ge=0)
    all_reduce_gb_per_s: float | None = Field(default=None, ge=0)
    all_reduce_ranks: int | None = Field(default=None, ge=2)
    power_idle_w: float | None = Field(default=None, ge=0)
    power_train_w: float | None = Field(default=None, ge=0)
    joules_per_sample: float | None = Field(default=None, ge=0)
    intervals: dict[str, Interval] = Field(default_factory=dict)
    benchmark: str = ""
    trained: Trained | None = None

    @property
    def complete(self) -> bool:
        """Whether every part has a value. A slow node that got to some micro-batches only has given its answer."""
        return all(getattr(self, part) for part in COMPUTE_PARTS)


class Link(Reading):
    """How far away the other end is, and how wide the way is. MB is 10⁶ bytes."""

    link_rtt_ms: float | None = Field(default=None, ge=0)
    link_jitter_ms: float | None = Field(default=None, ge=0)
    """Mean difference between one echo and the next; it goes with the round-trip time."""
    link_up_mb_per_s: float | None = Field(default=None, ge=0)
    link_down_mb_per_s: float | None = Field(default=None, ge=0)
    moved_bytes: int = Field(default=0, ge=0)
    """What finding out cost, both ways together; what frames add to it does not count."""


class Workload(BaseModel):
    """A federation's task as a site trains it: what ``windfall.tasks`` is asked for."""

    model_config = ConfigDict(frozen=True)

    task: str
    settings: str = "{}"


class Benchmarked(BaseModel):
    """A compute reading kept for the next window, with the fingerprint under which it was taken."""

    model_config = ConfigDict(frozen=True)

    fingerprint: str
    compute: Compute


def absent(parts: tuple[str, ...], why: str) -> dict[str, str]:
    """The same reason for every part."""
    return dict.fromkeys(parts, why)


def fingerprint(host: Host, hardware: Hardware, benchmark: str) -> str:
    """Sixteen hexadecimal digits that change when hardware, a driver, our share, the platform or the benchmark change.

    Args:
        benchmark: version of the benchmark and of the runtime that it measures with.
    """
    identity = "\n".join((host.model_dump_json(exclude={"missing"}), steady(hardware).model_dump_json(), benchmark))
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def reusable(kept: Benchmarked | None, now: str) -> Compute | None:
    """The kept compute reading, when it is complete and was taken under the fingerprint of ``now``."""
    if kept is None or kept.fingerprint != now or not kept.compute.complete:
        return None
    return kept.compute


def merge(earlier: Compute, later: Compute) -> Compute:
    """Both readings in one; where both speak, the later is right."""
    told = {name: getattr(later, name) for name in later.model_fields_set}
    both = {name: getattr(earlier, name) | new for name, new in told.items() if isinstance(new, dict)}
    return earlier.model_copy(update={name: new for name, new in told.items() if new is not None} | both)


def summarise(mark: str, host: Host, compute: Compute, link: Link) -> Measured:
    """One measurement out of three readings. Every part without a value stands in ``missing``."""
    measured = Measured(
        fingerprint=mark,
        cpu_model=host.cpu_model,
        cpu_cores=host.cpu_cores,
        memory_bytes=host.memory_bytes,
        **{part: getattr(compute, part) for part in (*COMPUTE_PARTS, *MORE_COMPUTE_PARTS)} | _with_fp32(compute),
        link_rtt_ms=link.link_rtt_ms,
        link_up_mb_per_s=link.link_up_mb_per_s,
        link_down_mb_per_s=link.link_down_mb_per_s,
    )
    parts = COMPUTE_PARTS + LINK_PARTS
    without = [part for part in parts if getattr(measured, part) in (None, {})]
    reasons = host.missing | compute.missing | link.missing
    missing = {part: why for part, why in reasons.items() if part in without or part not in parts}
    missing |= {part: "its probe said nothing of it" for part in without if part not in missing}
    return measured.model_copy(update={"missing": missing})


def _with_fp32(compute: Compute) -> dict[str, dict[Dtype, float]]:
    """fp32 beside the other types, where any was measured."""
    others = compute.matmul_gflops_by_dtype
    return {
        "matmul_gflops_by_dtype": {"fp32": compute.matmul_gflops, **others}
        if compute.matmul_gflops and others
        else others
    }


def profiled(
    ready: NodeReady, measured: Measured, hardware: Hardware, goals: Goals, at: datetime, cause: UUID | None = None
) -> NodeProfiled:
    """What to say of the node that came up.

    Args:
        cause: the sentence for which it was measured once more; none the first time.
    """
    return NodeProfiled(
        id=derived_id(cause or ready.id, NodeProfiled.topic, ready.site),
        at=at,
        site=ready.site,
        window_id=ready.window_id,
        lease_token=ready.lease_token,
        node=ready.node,
        measured=measured,
        recommendation=recommend(measured, goals),
        hardware=hardware,
    )
