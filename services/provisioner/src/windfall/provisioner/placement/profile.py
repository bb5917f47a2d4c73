"""What the profiler measured of a node, as far as placement reads it."""

from dataclasses import dataclass
from typing import Self

from windfall.contracts.events import Measured, NodeProfiled
from windfall.contracts.hardware import Hardware
from windfall.provisioner.placement.gpus import Gpu, Interconnect, canonical_model


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

    def corrected(self, gpu: Gpu) -> Gpu:
        """The GPU as it was measured, where that is another account of the same model: it wins over labels."""
        if not self.model or (gpu.model and gpu.model != self.model):
            return gpu
        memory = self.memory_bytes or gpu.memory_bytes
        return Gpu(gpu.vendor, self.model, gpu.resource, memory, self.interconnect or gpu.interconnect, gpu.selector)


def _best_rate(measured: Measured) -> float:
    steps = measured.step_s_by_micro_batch
    return max((batch / seconds for batch, seconds in steps.items() if seconds > 0), default=0.0)
