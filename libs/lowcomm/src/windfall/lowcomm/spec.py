"""What a layout is, as data: a participant knows how a model lies before torch is loaded."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Final

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
