"""How the tensors of a model lie in one flat vector: what Pull and Push carry, and what a digest is taken of.

The vector is fp32 whatever the tensors are. First comes what gradients move, then what must arrive as it is: buffers,
and everything that is not floating point. Each half keeps the order of the model's own ``state_dict()``.
"""

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Final

import torch
from torch import Tensor, nn

FLOAT32_BYTES = 4
FLOATS: Final = ("float16", "bfloat16", "float32", "float64")
INTEGERS: Final = ("bool", "uint8", "int8", "int16", "int32", "int64")
MOST_INTEGER: Final = 2**24
"""fp32 has every integer up to it; a counter that has reached it would stand still."""


@dataclass(frozen=True)
class TensorSpec:
    """One named tensor of a model. ``shape`` is ``()`` for a scalar; ``exact`` is what no codec may shorten.

    Raises:
        ValueError: empty name, negative dimension, a dtype that is none of ``FLOATS`` and ``INTEGERS``, or integers
            that are not exact.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    exact: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a tensor needs a name")
        if any(size < 0 for size in self.shape):
            raise ValueError(f"tensor {self.name!r} has a negative dimension in {self.shape}")
        if self.dtype not in FLOATS + INTEGERS:
            raise ValueError(f"tensor {self.name!r} is {self.dtype}; only {', '.join(FLOATS + INTEGERS)} travel")
        if self.dtype in INTEGERS and not self.exact:
            raise ValueError(f"tensor {self.name!r} is {self.dtype}, which no gradient moves: it must be exact")

    @property
    def elements(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True)
class Split:
    """A flat vector of ``trained + exact`` elements: first what gradients move, which a codec may shorten, then what
    must arrive as it is (buffers, integers), which travels as fp32 and is averaged without momentum.

    ``tensors`` are the lengths of the trained tensors, for merges that look at each alone; without them the trained
    part is one.

    Raises:
        ValueError: a length is negative, or the tensors do not make up the trained part.
    """

    trained: int
    exact: int = 0
    tensors: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if min(self.trained, self.exact, *self.tensors) < 0:
            raise ValueError(f"no vector has {self.trained} + {self.exact} elements in tensors of {self.tensors}")
        if self.tensors and sum(self.tensors) != self.trained:
            raise ValueError(f"tensors of {sum(self.tensors)} elements are not the {self.trained} that are trained")

    @property
    def elements(self) -> int:
        return self.trained + self.exact

    @property
    def parts(self) -> tuple[slice, ...]:
        """Where the parts lie that travel, in their order; a part without elements does not travel."""
        found = (slice(0, self.trained), slice(self.trained, self.elements))
        return tuple(part for part in found if part.stop > part.start)

    @property
    def spans(self) -> tuple[slice, ...]:
        """Where each trained tensor lies that has elements."""
        ends = tuple(accumulate(self.tensors or (self.trained,)))
        return tuple(slice(a, b) for a, b in zip((0, *ends), ends, strict=False) if b > a)


@dataclass(frozen=True)
class Layout:
    """The tensors of a model in the order in which they lie end to end, without padding: the exact ones last.

    ``tied`` names tensors that share the memory of another, each with the one that travels for both.

    Raises:
        ValueError: a name stands twice, an exact tensor stands before one that is not, or a name is tied to none.
    """

    tensors: tuple[TensorSpec, ...]
    tied: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        name, times = next(iter(Counter(self.names).most_common(1)), ("", 0))
        if times > 1:
            raise ValueError(f"tensor {name!r} is named {times} times in one layout")
        for before, after in zip(self.tensors, self.tensors[1:], strict=False):
            if before.exact and not after.exact:
                raise ValueError(f"tensor {before.name!r} is exact and must lie behind {after.name!r}")
        owners = {spec.name for spec in self.tensors}
        for name, owner in self.tied:
            if owner not in owners:
                raise ValueError(f"tensor {name!r} is tied to {owner!r}, which does not travel")

    @property
    def names(self) -> tuple[str, ...]:
        """Of every tensor of the model, the tied ones last."""
        return (*(spec.name for spec in self.tensors), *(name for name, _ in self.tied))

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

    @cached_property
    def split(self) -> Split:
        """What a codec may shorten, and what it may not."""
        trained = tuple(spec.elements for spec in self.tensors if not spec.exact)
        return Split(sum(trained), self.elements - sum(trained), trained)


def layout_of(state: Mapping[str, Tensor], exact: Collection[str] = ()) -> Layout:
    """The layout of a model's ``state_dict()``.

    Args:
        exact: names of what no gradient moves, though it is floating point: the module's buffers. A tied tensor is
            exact when all of its names are.

    Raises:
        ValueError: a tensor is of a dtype that does not travel, or two begin at the same memory but are not the same
            tensor (one is the other's transpose, say).
    """
    names: dict[int, list[str]] = {}
    alone: list[list[str]] = []
    for name, tensor in state.items():
        # A tensor without elements shares nothing; one on the meta device has no memory but may be the same object.
        same = id(tensor) if tensor.is_meta or not tensor.numel() else tensor.data_ptr()
        group = names.setdefault(same, [])
        if group and _form(state[group[0]]) != _form(tensor):
            raise ValueError(f"tensors {group[0]!r} and {name!r} share their memory but not their form")
        if not group:
            alone.append(group)
        group.append(name)
    specs = [
        TensorSpec(
            group[0],
            tuple(state[group[0]].shape),
            _dtype(state[group[0]]),
            _dtype(state[group[0]]) in INTEGERS or all(name in exact for name in group),
        )
        for group in alone
    ]
    return Layout(
        tuple(sorted(specs, key=lambda spec: spec.exact)),
        tuple((name, group[0]) for group in alone for name in group[1:]),
    )


def layout_of_model(module: nn.Module) -> Layout:
    """The layout of a module's whole state, in which its buffers are exact.

    Raises:
        ValueError: as ``layout_of``.
    """
    return layout_of(
        module.state_dict(keep_vars=True), {name for name, _ in module.named_buffers(remove_duplicate=False)}
    )


def flatten(state: Mapping[str, Tensor], layout: Layout) -> Tensor:
    """Copy tensors into one flat vector, in fp32.

    Returns:
        fp32, contiguous, on the CPU, shape ``[layout.elements]``.

    Raises:
        ValueError: a tensor is missing, unknown to the layout, or differs from it in shape or dtype; an integer has
            no exact fp32; or two tensors that the layout ties are different.
    """
    known = set(layout.names)
    if strange := sorted(known ^ set(state)):
        raise ValueError(f"tensor {strange[0]!r} is {'missing' if strange[0] in known else 'not part of the layout'}")
    flat = torch.empty(layout.elements, dtype=torch.float32)
    for spec, view in zip(layout.tensors, _views(flat, layout), strict=True):
        tensor = state[spec.name].detach()
        if (tuple(tensor.shape), _dtype(tensor)) != (spec.shape, spec.dtype):
            is_, expected = f"{_dtype(tensor)}{list(tensor.shape)}", f"{spec.dtype}{list(spec.shape)}"
            raise ValueError(f"tensor {spec.name!r} is {is_}, the layout says {expected}")
        if spec.dtype in ("int32", "int64") and tensor.numel():
            low, high = int(tensor.min()), int(tensor.max())
            if low <= -MOST_INTEGER or high >= MOST_INTEGER:
                raise ValueError(
                    f"tensor {spec.name!r} holds {low if low <= -MOST_INTEGER else high}; integers travel as fp32, "
                    f"below {MOST_INTEGER} in magnitude"
                )
        view.copy_(tensor)
    for name, owner in layout.tied:
        ours, theirs = state[name], state[owner]
        if ours.data_ptr() != theirs.data_ptr() and not torch.equal(ours, theirs):
            raise ValueError(f"tensors {name!r} and {owner!r} are tied in the layout and differ")
    return flat


def unflatten(flat: Tensor, layout: Layout) -> dict[str, Tensor]:
    """Views into ``flat`` (fp32 ``[layout.elements]``, contiguous), fp32 whatever the dtype of the tensor: writing to
    a view writes to the vector. Tied names have the same view.

    Raises:
        ValueError: the vector does not fit the layout.
    """
    views = dict(zip((spec.name for spec in layout.tensors), _views(flat, layout), strict=True))
    return views | {name: views[owner] for name, owner in layout.tied}


def restore(flat: Tensor, layout: Layout) -> dict[str, Tensor]:
    """The model's ``state_dict()`` in its own dtypes, for ``load_state_dict``: float32 tensors are views into ``flat``,
    the others are copies; tied names share memory.

    Integers are rounded, half to even. What a dtype cannot hold becomes the largest that it can; no integer leaves
    ±2²⁴.

    Raises:
        ValueError: the vector does not fit the layout.
    """
    state = {
        spec.name: _cast(view, spec.dtype) for spec, view in zip(layout.tensors, _views(flat, layout), strict=True)
    }
    return state | {name: state[owner] for name, owner in layout.tied}


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


def _views(flat: Tensor, layout: Layout) -> list[Tensor]:
    check_flat(flat, layout.elements)
    return [
        flat[offset : offset + spec.elements].view(spec.shape)
        for spec, offset in zip(layout.tensors, layout.offsets, strict=True)
    ]


def _cast(view: Tensor, dtype: str) -> Tensor:
    kind: torch.dtype = getattr(torch, dtype)
    if dtype == "bool":
        return view.round() != 0
    if dtype in INTEGERS:
        limits = torch.iinfo(kind)
        return view.round().clamp_(max(limits.min, -MOST_INTEGER), min(limits.max, MOST_INTEGER)).to(kind)
    if dtype == "float16":
        limit = torch.finfo(kind).max
        return torch.where(view.isfinite(), view.clamp(-limit, limit), view).to(kind)
    return view.to(kind)


def _form(tensor: Tensor) -> tuple[object, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
