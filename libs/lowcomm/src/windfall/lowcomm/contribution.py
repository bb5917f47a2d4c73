"""What a site says at the end of a round, from a gradient to bytes and from bytes to a contribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from windfall.lowcomm.blocks import decode_blocks
from windfall.lowcomm.codec import CODECS, Buffer
from windfall.lowcomm.compressor import Compressor, State
from windfall.lowcomm.gradient import checked
from windfall.lowcomm.sparse import Contribution, Sparse
from windfall.lowcomm.topk import read_largest
from windfall.lowcomm.twobit import read_bins
from windfall.lowcomm.wire import MAX_ELEMENTS, Header, compose, parse

if TYPE_CHECKING:
    from torch import Tensor


def write(
    compressor: Compressor,
    state: State,
    gradient: Tensor,
    *,
    fragment: int = 0,
    base: int,
    tokens: int,
    steps: int,
) -> tuple[State, bytes]:
    """Encode a fragment's gradient, fp32 ``[n]``: the new state, and the message of ``windfall.lowcomm.wire``.

    Raises:
        ValueError: the gradient is not finite (nothing is lost: the old state still stands), or a number is too large.
    """
    header = Header(compressor.name, fragment, gradient.numel(), base, tokens, steps)
    state, payload = compressor.encode(state, gradient)
    return state, compose(header, payload)


def read(message: Buffer, *, max_elements: int = MAX_ELEMENTS) -> tuple[Header, Contribution]:
    """Check and decode a message. Memory is bounded by ``max_elements``, which the receiver knows from its model.

    Raises:
        ValueError: not such a message, or a payload that no encoder writes.
    """
    header, payload = parse(message, max_elements=max_elements)
    return header, decode(header.codec, payload, header.elements)


def decode(codec: str, payload: Buffer, elements: int) -> Contribution:
    """The contribution in a payload of that codec: a fp32 vector ``[elements]``, or its known coordinates.

    Raises:
        ValueError: an unknown codec, or no payload of a vector of that length.
    """
    if codec not in _DECODE:
        raise ValueError(f"unknown codec {codec!r}; known are {', '.join(_DECODE)}")
    return _DECODE[codec](payload, elements)


def _decode_plain(codec: str, payload: Buffer, elements: int) -> Tensor:
    values = CODECS[codec].decode(payload)
    checked(values, elements)
    return values


_DECODE: Final[dict[str, Callable[[Buffer, int], Contribution]]] = {
    "fp32": lambda payload, elements: _decode_plain("fp32", payload, elements),
    "bf16": lambda payload, elements: _decode_plain("bf16", payload, elements),
    "int8-block": lambda payload, elements: decode_blocks(payload, elements, 8),
    "int4-block": lambda payload, elements: decode_blocks(payload, elements, 4),
    "q2-ef": read_bins,
    "topk-ef": lambda payload, elements: Sparse(elements, *read_largest(payload, elements)),
    "dct-momentum": lambda payload, elements: Sparse(elements, *read_largest(payload, elements), dct=True),
}
