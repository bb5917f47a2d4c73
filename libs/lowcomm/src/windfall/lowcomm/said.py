"""What every site says about a round, decoded anew each time that it is looked at: it may be large."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from windfall.lowcomm.clip import scale
from windfall.lowcomm.sparse import Contribution, Sparse

if TYPE_CHECKING:
    from torch import Tensor

SPARSE: Final = ("topk-ef", "dct-momentum")
"""Codecs of which most coordinates stay unsaid: they merge per coordinate, and momentum on top of them does harm."""


@dataclass(frozen=True, eq=False)
class Said:
    """A contribution that was accepted: whose, what it weighs, and its parts in the order of ``Split.parts``."""

    site: str
    attempt: int
    tokens: float
    parts: Sequence[Contribution]
    codec: str = ""
    """Of the part that gradients move, where the parts are decoded each time; empty: it is seen by looking."""

    @property
    def order(self) -> tuple[str, int]:
        """Contributions merge in this order, whatever the order of their arrival."""
        return (self.site, self.attempt)


@dataclass(frozen=True, eq=False)
class Spoken(Iterable[Contribution]):
    """What every site says about one part, scaled, each time anew: decoding again is cheaper than holding on to all."""

    ordered: Sequence[Said]
    index: int
    factors: Sequence[float]
    lossy: bool
    """The part is one that gradients move, which a codec may shorten."""

    def __len__(self) -> int:
        return len(self.ordered)

    def __iter__(self) -> Iterator[Contribution]:
        return map(self._scaled, self.ordered, self.factors)

    def only(self, chosen: Sequence[int]) -> Spoken:
        """Of these sites alone."""
        return replace(
            self,
            ordered=[self.ordered[one] for one in chosen],
            factors=[self.factors[one] for one in chosen],
        )

    @property
    def sparse(self) -> bool:
        """Whether all of them leave most unsaid. Where the rule has just been changed, some may not."""
        return self.lossy and all(
            one.codec in SPARSE if one.codec else isinstance(one.parts[self.index], Sparse) for one in self.ordered
        )

    def _scaled(self, one: Said, factor: float) -> Contribution:
        return scale(one.parts[self.index], factor)


@dataclass(frozen=True, eq=False)
class Vectors(Iterable["Tensor"]):
    """The same as vectors. No loop's name holds on to the last one while the next is decoded."""

    spoken: Iterable[Contribution]

    def __iter__(self) -> Iterator[Tensor]:
        return map(vector, self.spoken)


def vector(contribution: Contribution) -> Tensor:
    """fp32 ``[elements]``, zero where nothing was said."""
    return contribution.dense() if isinstance(contribution, Sparse) else contribution
