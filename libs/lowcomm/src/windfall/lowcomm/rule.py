"""How what sites say moves the model: codec × merge × outer, as one pure step that whoever holds the base takes alike.

The coordinator takes it to commit a round; a site that holds the round's base takes it on the same contributions and
arrives at the same bits, so that no model has to travel. Nothing here depends on the order in which contributions
arrived, on threads, or on the device that trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from windfall.lowcomm import compressor as compressors
from windfall.lowcomm import outer as outers
from windfall.lowcomm.clip import clip_to_median
from windfall.lowcomm.codec import Buffer
from windfall.lowcomm.compressor import Compressor, parse_compressor
from windfall.lowcomm.contribution import decode, write
from windfall.lowcomm.contributors import contributor_mean
from windfall.lowcomm.merge import weighted_mean
from windfall.lowcomm.outer import Outer, average, parse_outer
from windfall.lowcomm.sparse import Contribution, Sparse, descend
from windfall.lowcomm.wire import HEADER_BYTES, Header, split

SPARSE: Final = ("topk-ef", "dct-momentum")
"""Codecs of which most coordinates stay unsaid: they merge per coordinate, and momentum on top of them does harm."""

_EXACT: Final = compressors.parse_compressor("fp32")


@dataclass(frozen=True)
class Split:
    """A flat vector of ``trained + exact`` elements: first what gradients move, which a codec may shorten, then what
    must arrive as it is (buffers, integers), which travels as fp32 and is averaged without momentum.

    Raises:
        ValueError: a length is negative.
    """

    trained: int
    exact: int = 0

    def __post_init__(self) -> None:
        if self.trained < 0 or self.exact < 0:
            raise ValueError(f"no vector has {self.trained} + {self.exact} elements")

    @property
    def elements(self) -> int:
        return self.trained + self.exact

    @property
    def parts(self) -> tuple[slice, ...]:
        """Where the parts lie that travel, in their order; a part without elements does not travel."""
        found = (slice(0, self.trained), slice(self.trained, self.elements))
        return tuple(part for part in found if part.stop > part.start)


@dataclass(frozen=True, eq=False)
class Said:
    """A contribution that was accepted: whose, what it weighs, and its parts in the order of ``Split.parts``."""

    site: str
    attempt: int
    tokens: float
    parts: tuple[Contribution, ...]

    @property
    def order(self) -> tuple[str, int]:
        """Contributions merge in this order, whatever the order of their arrival."""
        return (self.site, self.attempt)


@dataclass(frozen=True)
class Rule:
    """One way to synchronise. ``settings`` build it again elsewhere: ``Rule.parse(*rule.settings)``."""

    codec: Compressor
    outer: Outer
    clip: bool
    """Scale a contribution down to the median norm when it is longer."""
    settings: tuple[str, str, bool]

    @classmethod
    def parse(cls, codec: str, outer: str = "", clip: bool = False) -> "Rule":
        """Read settings like ``topk-ef`` and ``nesterov:momentum=0.6``. An outer optimizer that is left out is the one
        that goes with the codec: none for sparse ones, Nesterov with a momentum for short rounds for dense ones.

        Raises:
            ValueError: unknown names or values, or an outer momentum on a sparse codec.
        """
        compressor = parse_compressor(codec)
        sparse = compressor.name in SPARSE
        outer = outer or ("average" if sparse else "nesterov:lr=0.7,momentum=0.6")
        optimizer = parse_outer(outer)
        if sparse and optimizer.slots:
            raise ValueError(f"{codec} goes with the outer optimizer 'average', not with {outer!r}: momentum harms it")
        return cls(compressor, optimizer, clip, (codec, outer, clip))

    @property
    def sparse(self) -> bool:
        return self.codec.name in SPARSE

    def init(self, elements: Split) -> outers.State:
        """The outer optimizer's state before the first round, fp32 ``[trained]`` each."""
        return self.outer.init(elements.trained)

    def encode(
        self, state: compressors.State, gradient: Tensor, elements: Split, *, base: int, tokens: int, steps: int
    ) -> tuple[compressors.State, bytes]:
        """What a site says: a message per part, end to end.

        Args:
            state: from ``codec.init(elements.trained)`` or the last call.
            gradient: base − local, fp32 ``[elements]``.

        Raises:
            ValueError: the gradient is not finite; the old state still stands.
        """
        spoken = []
        for fragment, part in enumerate(elements.parts):
            lossy = part.stop <= elements.trained
            after, message = write(
                self.codec if lossy else _EXACT,
                state if lossy else (),
                gradient[part],
                fragment=fragment,
                base=base,
                tokens=tokens,
                steps=steps,
            )
            state = after if lossy else state
            spoken.append(message)
        return state, b"".join(spoken)

    def decode(
        self, messages: Buffer, elements: Split, *, whole: bool = False
    ) -> tuple[tuple[Header, ...], tuple[Contribution, ...]]:
        """Check and read what ``encode`` wrote.

        Args:
            whole: the bytes have been held against a cryptographic digest already, so their CRC is not looked at.

        Raises:
            ValueError: it is not what a site says under this rule about such a vector.
        """
        headers, parts = [], []
        rest = memoryview(messages)
        for fragment, part in enumerate(elements.parts):
            size = part.stop - part.start
            header, payload, rest = split(rest, max_elements=size, whole=whole)
            codec = (self.codec if part.stop <= elements.trained else _EXACT).name
            if (header.codec, header.fragment, header.elements) != (codec, fragment, size):
                raise ValueError(
                    f"part {fragment} is {header.codec} of {header.elements} elements as fragment {header.fragment}, "
                    f"not {codec} of {size}"
                )
            headers.append(header)
            parts.append(decode(header.codec, payload, size))
        if rest.nbytes:
            raise ValueError(f"{rest.nbytes} bytes follow the last part")
        return tuple(headers), tuple(parts)

    def merge(self, contributions: Sequence[Said], elements: Split) -> tuple[Contribution, ...]:
        """What all of them say together, part by part: the global pseudo-gradient. Sparse parts are averaged per
        coordinate over the sites that sent it, the others over all; every one weighs its tokens.

        Raises:
            ValueError: no contributions, or they are not of one shape.
        """
        ordered = sorted(contributions, key=lambda one: one.order)
        weights = [one.tokens for one in ordered]
        merged: list[Contribution] = []
        for index, part in enumerate(elements.parts):
            own = [one.parts[index] for one in ordered]
            if part.stop <= elements.trained and self.clip:
                own = clip_to_median(own)
            sparse = [one for one in own if isinstance(one, Sparse)]
            dense = [one for one in own if isinstance(one, Tensor)]
            merged.append(weighted_mean(dense, weights) if dense else contributor_mean(sparse, weights))
        return tuple(merged)

    def step(
        self, state: outers.State, base: Tensor, merged: Sequence[Contribution], elements: Split
    ) -> tuple[outers.State, Tensor]:
        """The outer step: the new state and the new base, fp32 ``[elements]``. Changes none of its arguments."""
        moved = []
        for part, gradient in zip(elements.parts, merged, strict=True):
            if part.stop > elements.trained:
                moved.append(_plain(base[part], gradient))
            elif isinstance(gradient, Sparse):
                moved.append(descend(base[part], gradient, self.outer.lr))
            else:
                state, ahead = self.outer.apply(state, base[part], gradient)
                moved.append(ahead)
        return state, moved[0] if len(moved) == 1 else torch.cat(moved) if moved else base.clone()

    def most_bytes(self, elements: Split) -> int:
        """More than any contribution has: what a receiver makes room for before it has seen a byte."""
        return sum(HEADER_BYTES + 1024 + 5 * (part.stop - part.start) for part in elements.parts)


def _plain(base: Tensor, gradient: Contribution) -> Tensor:
    assert isinstance(gradient, Tensor)
    return average().apply((), base, gradient)[1]
