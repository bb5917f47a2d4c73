"""What the profiler measured of a node, as far as placement reads it."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Final, Self

from windfall.contracts.events import Measured, NodeProfiled
from windfall.contracts.hardware import Hardware
from windfall.provisioner.placement.gpus import MODEL_LABEL, Gpu, Interconnect, canonical_model

RATE_LABEL: Final = "windfall.dev/samples-per-s"
"""Written by the profiler: the best rate over micro-batches."""
WIDTH_LABEL: Final = "windfall.dev/gpu.interconnect-gb-per-s"
"""Written by the profiler: of the narrowest way between two GPUs of the node."""


@dataclass(frozen=True)
class Profile:
    """One measurement of one node. What it does not know, labels may."""

    samples_per_s: float = 0.0
    """The best measured rate over micro-batches; 0 where none was measured."""
    model: str = ""
    """Canonical, of the node's GPUs where all are alike; else empty."""
    memory_bytes: int = 0
    """Of the smallest GPU."""
    interconnect: Interconnect | None = None
    """The slowest kind of way between two of its GPUs."""
    gb_per_s: float | None = None
    """Of the narrowest of them; none where one is not known."""

    @classmethod
    def of(cls, said: NodeProfiled) -> Self:
        hardware = said.hardware or Hardware()
        found = hardware.accelerators
        models = {canonical_model(each.canonical_model or each.model) for each in found}
        memory = [each.memory_bytes or 0 for each in found]
        kinds = {way.kind for way in hardware.interconnects}
        widths = [way.gb_per_s for way in hardware.interconnects]
        known = [width for width in widths if width is not None]
        slowest: Interconnect | None = next((kind for kind in ("pcie", "xgmi", "nvlink") if kind in kinds), None)
        return cls(
            samples_per_s=_best_rate(said.measured),
            model=models.pop() if len(models) == 1 else "",
            memory_bytes=min(memory, default=0),
            interconnect=slowest,
            gb_per_s=min(known) if known and len(known) == len(widths) else None,
        )

    @classmethod
    def labelled(cls, labels: Mapping[str, str]) -> Self | None:
        """What the profiler measured of a node, as its labels have it; none where they have nothing measured. What the
        node is made of is read from its labels anyway."""
        rate, width = _number(labels.get(RATE_LABEL)), _number(labels.get(WIDTH_LABEL))
        if rate is None and width is None:
            return None
        return cls(rate or 0.0, canonical_model(labels.get(MODEL_LABEL, "")), gb_per_s=width)

    def corrected(self, gpu: Gpu) -> Gpu:
        """The GPU as it was measured, where that is another account of the same model: it wins over labels."""
        if not self.model or (gpu.model and gpu.model != self.model):
            return gpu
        memory = self.memory_bytes or gpu.memory_bytes
        return Gpu(gpu.vendor, self.model, gpu.resource, memory, self.interconnect or gpu.interconnect, gpu.selector)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if isfinite(number) and number >= 0 else None


def _best_rate(measured: Measured) -> float:
    steps = measured.step_s_by_micro_batch
    return max((batch / seconds for batch, seconds in steps.items() if seconds > 0), default=0.0)
