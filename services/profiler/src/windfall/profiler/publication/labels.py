"""Labels of a Kubernetes node, under ``windfall.dev/``.

They stand beside the vendors' (``nvidia.com/gpu.product``, ``amd.com/gpu.product-name``) and never in their place: the
canonical model is one name for all of them, ``gpu.product`` is the vendor's as its own labels spell it, so that one
selector finds a model whoever labelled the node. A node of several models has a count for each and no single model.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

from windfall.contracts.events import Measured
from windfall.contracts.hardware import Accelerator, Hardware

PREFIX: Final = "windfall.dev/"
PROFILE: Final = "v1"
"""Version of these labels: the document's."""

_UNUSABLE: Final = re.compile(r"^(?:pci|amd|nvidia(?:\.\d+)?)$")
"""Parts whose absence means that a GPU is there and cannot be used, or may be. A tool that is not installed is none."""
_MOST: Final = 63
_GIB: Final = 2**30


def label_value(text: str) -> str:
    """The valid label value nearest to a text: at most 63 of ``[A-Za-z0-9._-]``, a letter or digit at both ends."""
    value = re.sub(r"[^A-Za-z0-9._-]+", "-", text)[:_MOST]
    return re.sub(r"^[^A-Za-z0-9]+|[^A-Za-z0-9]+$", "", value)


def labels(hardware: Hardware, fingerprint: str) -> dict[str, str]:
    """All labels of a node, in the order of their names. What is not known has none."""
    found: dict[str, str | None] = {
        "profile": PROFILE,
        "fingerprint": label_value(fingerprint),
        **_gpu(hardware),
        "storage.filesystem": hardware.storage.filesystem if hardware.storage else None,
        "kernel": hardware.system.kernel if hardware.system else None,
    }
    if processor := hardware.processor:
        found |= {
            "cpu.model": processor.model,
            "cpu.sockets": _text(processor.sockets),
            "cpu.cores": _text(processor.cores),
            "cpu.threads": str(processor.threads),
            "numa.nodes": str(len(processor.numa_nodes) or 1),
            "memory-gib": str(processor.memory_bytes // _GIB),
        }
    speeds = [nic.speed_mbit_per_s for nic in hardware.nics if nic.up and nic.speed_mbit_per_s]
    found["nic.speed-mbit"] = _text(max(speeds, default=None))
    found["nic.rdma"] = _single(nic.rdma for nic in hardware.nics if nic.up and nic.rdma)
    return {PREFIX + name: label_value(value) for name, value in sorted(found.items()) if value and label_value(value)}


def measured_labels(hardware: Hardware, measured: Measured) -> dict[str, str]:
    """What was measured of a node, for whoever places a gang by it: the best rate over micro-batches, and the narrowest
    way between two of its GPUs. What could not be measured has no label."""
    rates = [batch / seconds for batch, seconds in measured.step_s_by_micro_batch.items() if seconds > 0]
    widths = [way.gb_per_s for way in hardware.interconnects]
    known = [width for width in widths if width is not None]
    found = {
        "samples-per-s": max(rates, default=None),
        "gpu.interconnect-gb-per-s": min(known) if known and len(known) == len(widths) else None,
    }
    return {PREFIX + name: f"{value:.1f}" for name, value in sorted(found.items()) if value is not None}


def _gpu(hardware: Hardware) -> dict[str, str | None]:
    gpus = hardware.accelerators
    found: dict[str, str | None] = {"gpu.count": str(len(gpus))}
    if any(_UNUSABLE.match(part) for part in hardware.missing):
        found["gpu.incomplete"] = "true"
    if not gpus:
        return found
    models = Counter(_model(gpu) for gpu in gpus)
    found |= {f"gpu-model.{model}.count": str(count) for model, count in models.items()}
    memories = [gpu.memory_bytes for gpu in gpus if gpu.memory_bytes is not None]
    found |= {
        "gpu.vendor": _single(gpu.vendor for gpu in gpus),
        "gpu.model": _single(models),
        "gpu.product": _single(gpu.model for gpu in gpus),
        "gpu.architecture": _single(gpu.architecture for gpu in gpus),
        "gpu.driver": _single(gpu.driver for gpu in gpus),
        "gpu.memory-gib": str(min(memories) // _GIB) if memories else None,
        "gpu.partition-mode": _single(gpu.partition_mode for gpu in gpus),
        "gpu.partitions": _text(sum(len(gpu.partitions) for gpu in gpus) or None),
        "gpu.interconnect": _single(way.kind for way in hardware.interconnects),
        "gpu.mixed": "true" if len(models) > 1 else None,
    }
    return found


def _model(gpu: Accelerator) -> str:
    return gpu.canonical_model or label_value(gpu.model)[: _MOST - len("gpu-model..count")].strip("-._").lower()


def _single(values: Iterable[str | None]) -> str | None:
    """What all say; none when they differ."""
    different = set(values)
    return different.pop() if len(different) == 1 else None


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
