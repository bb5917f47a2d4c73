"""How the tensors of a model lie in one flat vector: what Pull and Push carry, and what a digest is taken of.

The vector is fp32 whatever the tensors are. First comes what gradients move, then what must arrive as it is: buffers,
and everything that is not floating point. Each half keeps the order of the model's own ``state_dict()``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from windfall.lowcomm.later import torch
from windfall.lowcomm.spec import FLOAT32_BYTES as FLOAT32_BYTES
from windfall.lowcomm.spec import FLOATS as FLOATS
from windfall.lowcomm.spec import INTEGERS as INTEGERS
from windfall.lowcomm.spec import MOST_INTEGER as MOST_INTEGER
from windfall.lowcomm.spec import Layout as Layout
from windfall.lowcomm.spec import Split as Split
from windfall.lowcomm.spec import TensorSpec as TensorSpec

if TYPE_CHECKING:
    from torch import Tensor, nn


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
