"""How the tensors of a model lie in one flat vector: what Pull and Push carry, and what a digest is taken of."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod

import torch
from torch import Tensor

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor of a model. ``shape`` is ``()`` for a scalar.

    Raises:
        ValueError: empty name, negative dimension, or a dtype other than ``float32``, the only one that travels.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a tensor needs a name")
        if any(size < 0 for size in self.shape):
            raise ValueError(f"tensor {self.name!r} has a negative dimension in {self.shape}")
        if self.dtype != "float32":
            raise ValueError(f"tensor {self.name!r} is {self.dtype}; only float32 tensors travel")

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Layout:
    """The tensors of a model in the order in which they lie end to end, without padding.

    Raises:
        ValueError: two tensors have the same name.
    """

    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        name, times = next(iter(Counter(spec.name for spec in self.tensors).most_common(1)), ("", 0))
        if times > 1:
            raise ValueError(f"tensor {name!r} is named {times} times in one layout")

    @cached_property
    def elements(self) -> int:
        """Length of the flat vector."""
        return sum(spec.elements for spec in self.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of the flat vector in fp32."""
        return self.elements * FLOAT32_BYTES

    @cached_property
    def offsets(self) -> tuple[int, ...]:
        """Element at which each tensor begins."""
        return tuple(accumulate((spec.elements for spec in self.tensors), initial=0))[:-1]


def layout_of(state: Mapping[str, Tensor]) -> Layout:
    """The layout of a model's ``state_dict()``, in its own order.

    Raises:
        ValueError: a tensor is not float32 (an integer buffer, say), or two names share one tensor (tied weights),
            which would travel twice and come back as two.
    """
    owner: dict[int, str] = {}
    for name, tensor in state.items():
        if tensor.dtype != torch.float32:
            raise ValueError(f"tensor {name!r} is {_dtype(tensor)}; only float32 tensors travel")
        if tensor.numel() and not tensor.is_meta:
            first = owner.setdefault(tensor.data_ptr(), name)
            if first != name:
                raise ValueError(f"tensors {first!r} and {name!r} share their memory; tied weights cannot travel")
    return Layout(tuple(TensorSpec(name, tuple(tensor.shape)) for name, tensor in state.items()))


def flatten(state: Mapping[str, Tensor], layout: Layout) -> Tensor:
    """Copy tensors into one flat vector.

    Returns:
        fp32, contiguous, on the CPU, shape ``[layout.elements]``.

    Raises:
        ValueError: a tensor is missing, unknown to the layout, or differs from it in shape or dtype.
    """
    known = {spec.name for spec in layout.tensors}
    if strange := sorted(known ^ set(state)):
        raise ValueError(f"tensor {strange[0]!r} is {'missing' if strange[0] in known else 'not part of the layout'}")
    flat = torch.empty(layout.elements, dtype=torch.float32)
    for name, view in unflatten(flat, layout).items():
        tensor = state[name].detach()
        if tensor.shape != view.shape or tensor.dtype != torch.float32:
            is_, expected = (f"{_dtype(each)}{list(each.shape)}" for each in (tensor, view))
            raise ValueError(f"tensor {name!r} is {is_}, the layout says {expected}")
        view.copy_(tensor)
    return flat


def unflatten(flat: Tensor, layout: Layout) -> dict[str, Tensor]:
    """Views into ``flat`` (fp32 ``[layout.elements]``, contiguous): writing to a tensor writes to the vector.

    Raises:
        ValueError: the vector does not fit the layout.
    """
    check_flat(flat, layout.elements)
    return {
        spec.name: flat[offset : offset + spec.elements].view(spec.shape)
        for spec, offset in zip(layout.tensors, layout.offsets, strict=True)
    }


def check_flat(flat: Tensor, elements: int) -> None:
    """Refuse whatever is not a contiguous fp32 vector of this length on the CPU, with ``ValueError``."""
    if flat.dtype != torch.float32 or flat.ndim != 1 or not flat.is_contiguous() or flat.device.type != "cpu":
        raise ValueError(f"expected a contiguous fp32 vector on the CPU, got {_dtype(flat)}{list(flat.shape)}")
    if flat.numel() != elements:
        raise ValueError(f"expected {elements} elements, got {flat.numel()}")


def digest(flat: Tensor) -> str:
    """SHA-256 of the vector's little-endian fp32 bytes, in lower-case hexadecimal; nothing is copied on a
    little-endian machine."""
    check_flat(flat, flat.numel())
    return hashlib.sha256(flat.detach().numpy().astype("<f4", copy=False).data).hexdigest()


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
