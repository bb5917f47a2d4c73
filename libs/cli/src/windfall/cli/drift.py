"""What became of a node's hardware between two profiles. Pure.

What is counted or named is compared as it is; what is measured, beyond a tolerance, and only where the intervals of
both measurements, if they have any, lie apart. What got faster is no drift; a driver that changed is one either way.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from windfall.contracts.hardware import Accelerator, Hardware
from windfall.contracts.profile import Profile

Kind = Literal["changed", "lost", "added", "replaced", "smaller", "slower"]

FASTER_IS_MORE: Final = {
    "matmul_gflops": "GFLOP/s",
    "memory_bandwidth_gb_per_s": "GB/s",
    "host_to_device_gb_per_s": "GB/s",
    "device_to_host_gb_per_s": "GB/s",
    "all_reduce_gb_per_s": "GB/s",
    "link_up_mb_per_s": "MB/s",
    "link_down_mb_per_s": "MB/s",
}
"""Measured parts of which less is slower, and their units."""
ENOUGH: Final = 0.01
"""Share of a memory that a kernel's update may take for itself."""


@dataclass(frozen=True)
class Drift:
    """One thing that is not as it was."""

    site: str
    part: str
    kind: Kind
    before: str
    after: str


def drifts(before: Profile, after: Profile, tolerance: float = 0.2) -> list[Drift]:
    """All of them, hardware first.

    Args:
        before: how it was.
        after: how it is.
        tolerance: share that a measured value may get worse by.
    """
    said = [*_hardware(before, after), *_measured(before, after, tolerance)]
    return [Drift(after.site, *one) for one in said]


_Said = tuple[str, Kind, str, str]


def _hardware(before: Profile, after: Profile) -> Iterator[_Said]:
    was, now = before.hardware, after.hardware
    yield from _accelerators(was, now)
    if before.local and after.local and len(was.accelerators) == len(now.accelerators):
        pairs = zip(before.local.accelerators, after.local.accelerators, strict=False)
        for index, (one, other) in enumerate(pairs):
            if one.uuid and other.uuid and one.uuid != other.uuid:
                yield f"accelerators.{index}", "replaced", one.uuid, other.uuid
    if was.processor and now.processor:
        if was.processor.model != now.processor.model:
            yield "processor.model", "changed", was.processor.model, now.processor.model
        if now.processor.threads < was.processor.threads:
            yield "processor.threads", "smaller", str(was.processor.threads), str(now.processor.threads)
        yield from _memory("processor.memory", was.processor.memory_bytes, now.processor.memory_bytes)
    if was.system and now.system and was.system.kernel != now.system.kernel:
        yield "system.kernel", "changed", was.system.kernel or "unknown", now.system.kernel or "unknown"
    yield from _interconnects(was, now)
    fastest, remaining = (max((nic.speed_mbit_per_s or 0 for nic in of.nics), default=0) for of in (was, now))
    if remaining < fastest:
        yield "nics", "slower", f"{fastest} Mbit/s", f"{remaining} Mbit/s"


def _accelerators(was: Hardware, now: Hardware) -> Iterator[_Said]:
    counted, remaining = (Counter(map(_model, of.accelerators)) for of in (was, now))
    for model in sorted(counted.keys() | remaining.keys()):
        if counted[model] != remaining[model]:
            kind: Kind = "lost" if remaining[model] < counted[model] else "added"
            yield "accelerators", kind, f"{counted[model]} × {model}", f"{remaining[model]} × {model}"
    for vendor in ("nvidia", "amd"):
        drivers, newer = (_drivers(of, vendor) for of in (was, now))
        if drivers and newer and drivers != newer:
            yield f"{vendor}.driver", "changed", ", ".join(drivers), ", ".join(newer)
    if counted == remaining:
        for index, (one, other) in enumerate(zip(was.accelerators, now.accelerators, strict=True)):
            yield from _memory(f"accelerators.{index}.memory", one.memory_bytes, other.memory_bytes)
            yield from _slot(index, one, other)


def _slot(index: int, one: Accelerator, other: Accelerator) -> Iterator[_Said]:
    if one.partition_mode != other.partition_mode:
        mode = f"accelerators.{index}.partition_mode"
        yield mode, "changed", one.partition_mode or "none", other.partition_mode or "none"
    lanes, fewer = (of.pcie.width_max if of.pcie else None for of in (one, other))
    if lanes and fewer and fewer < lanes:
        yield f"accelerators.{index}.pcie", "slower", f"{lanes} lanes", f"{fewer} lanes"


def _interconnects(was: Hardware, now: Hardware) -> Iterator[_Said]:
    """Where both know the same accelerators: whoever lost one of them has said so."""
    if len(was.accelerators) != len(now.accelerators):
        return
    links = {(one.first, one.second): one for one in now.interconnects}
    for one in was.interconnects:
        other = links.get((one.first, one.second))
        if one.gb_per_s and other and (other.gb_per_s or 0) < one.gb_per_s:
            part = f"interconnects.{one.first}-{one.second}"
            after = f"{other.kind} {other.gb_per_s:g} GB/s" if other.gb_per_s else other.kind
            yield part, "slower", f"{one.kind} {one.gb_per_s:g} GB/s", after


def _memory(part: str, was: int | None, now: int | None) -> Iterator[_Said]:
    if was and now is not None and now < (1 - ENOUGH) * was:
        yield part, "smaller", f"{was / 2**30:.1f} GiB", f"{now / 2**30:.1f} GiB"


def _measured(before: Profile, after: Profile, tolerance: float) -> Iterator[_Said]:
    was, now = before.measured, after.measured
    for part, unit in FASTER_IS_MORE.items():
        one, other = getattr(was, part), getattr(now, part)
        if one and other is not None and other < (1 - tolerance) * one and _apart(before, after, part):
            yield part, "slower", _number(one, unit), _number(other, unit)
    rtt, longer = was.link_rtt_ms, now.link_rtt_ms
    # Under a millisecond it is the machines that are measured, and not the way between.
    if rtt is not None and longer is not None and longer > (1 + tolerance) * max(rtt, 1.0):
        yield "link_rtt_ms", "slower", f"{rtt:.3g} ms", f"{longer:.3g} ms"
    if was.task == now.task and was.benchmark.partition(",")[0] == now.benchmark.partition(",")[0]:
        for size in sorted(was.step_s_by_micro_batch.keys() & now.step_s_by_micro_batch.keys()):
            step, slower = was.step_s_by_micro_batch[size], now.step_s_by_micro_batch[size]
            part = f"step_s_by_micro_batch.{size}"
            if slower > (1 + tolerance) * step and _apart(before, after, part):
                yield part, "slower", f"{step:.3g} s", f"{slower:.3g} s"


def _apart(before: Profile, after: Profile, part: str) -> bool:
    was, now = before.measured.intervals.get(part), after.measured.intervals.get(part)
    return was is None or now is None or was.high < now.low or now.high < was.low


def _number(value: float, unit: str) -> str:
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:,.0f} {unit}"


def _model(accelerator: Accelerator) -> str:
    return accelerator.canonical_model or accelerator.model


def _drivers(hardware: Hardware, vendor: str) -> list[str]:
    return sorted({one.driver for one in hardware.accelerators if one.vendor == vendor and one.driver})
