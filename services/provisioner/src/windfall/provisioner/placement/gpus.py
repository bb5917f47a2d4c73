"""What a GPU is called, whoever names it: one canonical model for the many product names of labels and drivers.

Labels are those of NVIDIA's GPU feature discovery (``nvidia.com/gpu.product``, ``.memory`` in MiB) and AMD's node
labeller (``amd.com/gpu.product-name``, ``.device-id``, ``.vram``), and above both the
profiler's own, ``windfall.dev/gpu.model``, ``.memory-gib`` and ``.interconnect``.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, Literal

from kubernetes.utils.quantity import parse_quantity

Vendor = Literal["nvidia", "amd"]
Interconnect = Literal["pcie", "nvlink", "xgmi"]

MODEL_LABEL: Final = "windfall.dev/gpu.model"
"""What the profiler or an operator says wins over the vendors' labels."""
INTERCONNECT_LABEL: Final = "windfall.dev/gpu.interconnect"
MEMORY_LABEL: Final = "windfall.dev/gpu.memory-gib"
RESOURCES: Final[Mapping[Vendor, str]] = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu"}

_PRODUCT_LABELS: Final[Mapping[Vendor, tuple[str, ...]]] = {
    "nvidia": ("nvidia.com/gpu.product",),
    "amd": (
        "amd.com/gpu.product-name",
        "beta.amd.com/gpu.product-name",
        "amd.com/gpu.device-id",
        "beta.amd.com/gpu.device-id",
    ),
}
_MEMORY_LABELS: Final[Mapping[Vendor, tuple[str, ...]]] = {
    "nvidia": ("nvidia.com/gpu.memory",),
    "amd": ("amd.com/gpu.vram", "beta.amd.com/gpu.vram"),
}
_DEVICES: Final = {
    "738c": "mi100",
    "740c": "mi250x",
    "7408": "mi250x",
    "740f": "mi210",
    "74a0": "mi300a",
    "74a1": "mi300x",
    "74a5": "mi325x",
    "75a0": "mi350x",
    "75a3": "mi355x",
}
"""PCI device ids of AMD's accelerators."""
_NOISE: Final = re.compile(
    r"^(nvidia|amd|ati|tesla|geforce|instinct|radeon|quadro|graphics|gpu|corporation|inc"
    r"|generation|ac|vf|pcie?|sxm\d*|oam|nvl\d*|hbm\d*e?|gddr\d+|\d+gi?b|shared|replica)$"
)
"""Words of a product name that say who made it, how it is mounted, or how much memory it has."""
_SXM: Final = re.compile(r"(^|[-_\s])sxm\d*([-_\s]|$)", re.IGNORECASE)
_OAM: Final = re.compile(r"(^|[-_\s])oam([-_\s]|$)", re.IGNORECASE)
_SLICE: Final = "nvidia.com/mig-"


@dataclass(frozen=True, order=True)
class Gpu:
    """One kind of GPU on a node."""

    vendor: Vendor
    model: str
    """Canonical, like ``a100`` or ``mi300x``; empty where nobody names it."""
    resource: str
    """Kubernetes' extended resource, like ``nvidia.com/gpu``."""
    memory_bytes: int = 0
    """Of one GPU; 0 where nobody says."""
    interconnect: Interconnect = "pcie"
    """How GPUs of one node reach each other."""
    selector: tuple[tuple[str, str], ...] = ()
    """The labels that name this kind, as a node selector."""


def canonical_model(product: str) -> str:
    """``NVIDIA-A100-SXM4-80GB`` → ``a100``; ``AMD_Instinct_MI300X_OAM`` and ``74a1`` → ``mi300x``. A slice keeps its
    profile (``a100-mig-1g.10gb``), because it is not the whole GPU."""
    product = product.strip().lower()
    whole, marker, profile = product.partition("-mig-")
    if known := _DEVICES.get(whole.removeprefix("0x")):
        return known
    words = [word for word in re.split(r"[^a-z0-9.]+", whole) if word and not _NOISE.match(word)]
    # AMD's boards carry names of chips, and two of models where two share a device: the first accelerator is it.
    words = [word for word in words if re.match(r"mi\d+[ax]?$", word)][:1] or words
    return "-".join(words) + (f"{marker}{profile.removesuffix('-shared')}" if profile else "")


def gpus_of(labels: Mapping[str, str], allocatable: Mapping[str, object]) -> tuple[Gpu, ...]:
    """The kinds of GPU that a node offers, each under its own resource: a node may hold both vendors'."""
    found: list[Gpu] = []
    for vendor, resource in RESOURCES.items():
        if resource in allocatable:
            found.append(_whole(vendor, resource, labels))
    slices = sorted(name for name in allocatable if name.startswith(_SLICE))
    if slices:
        gpu = _whole("nvidia", RESOURCES["nvidia"], labels)
        for resource in slices:
            profile = resource.removeprefix(_SLICE)
            gib = re.search(r"(\d+)gb", profile)
            memory = int(gib.group(1)) * 2**30 if gib else 0
            model = f"{gpu.model}-mig-{profile}".lstrip("-")
            found.append(Gpu("nvidia", model, resource, memory, "pcie", gpu.selector))
    return tuple(found)


def _whole(vendor: Vendor, resource: str, labels: Mapping[str, str]) -> Gpu:
    named = next((label for label in (MODEL_LABEL, *_PRODUCT_LABELS[vendor]) if labels.get(label)), None)
    product = next((labels[label] for label in _PRODUCT_LABELS[vendor] if labels.get(label)), "")
    model = canonical_model(labels[named]) if named else ""
    selector = ((named, labels[named]),) if named else ()
    return Gpu(vendor, model, resource, _memory(vendor, labels), _interconnect(vendor, product, labels), selector)


def _memory(vendor: Vendor, labels: Mapping[str, str]) -> int:
    if labels.get(MEMORY_LABEL, "").isdecimal():
        return int(labels[MEMORY_LABEL]) * 2**30
    text = next((labels[label] for label in _MEMORY_LABELS[vendor] if labels.get(label)), "")
    if not text:
        return 0
    if vendor == "nvidia":
        return int(text) * 2**20 if text.isdecimal() else 0
    # The labeller writes binary gigabytes with a decimal sign: 192G.
    return int(amount(re.sub(r"([KMGT])B?$", r"\1i", text)))


def _interconnect(vendor: Vendor, product: str, labels: Mapping[str, str]) -> Interconnect:
    match labels.get(INTERCONNECT_LABEL):
        case "nvlink":
            return "nvlink"
        case "xgmi":
            return "xgmi"
        case "pcie":
            return "pcie"
    if vendor == "nvidia":
        return "nvlink" if _SXM.search(product) else "pcie"
    # MI300 and its successors are sold on boards of eight that are joined by xGMI.
    joined = _OAM.search(product) or canonical_model(product) in ("mi300x", "mi325x", "mi350x", "mi355x")
    return "xgmi" if joined else "pcie"


def amount(quantity: object) -> Decimal:
    """A Kubernetes quantity in its base unit; 0 for one that cannot be read, so that nothing is promised of it."""
    try:
        number: Decimal = parse_quantity(str(quantity))
    except ValueError:
        return Decimal(0)
    return number if number.is_finite() else Decimal(0)
