"""How what sites say moves the model: codec × merge × outer, as one pure step that whoever holds the base takes alike.

The coordinator takes it to commit a round; a site that holds the round's base takes it on the same contributions and
arrives at the same bits, so that no model has to travel. Nothing here depends on the order in which contributions
arrived, on threads, or on the device that trained.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, overload

import torch
from torch import Tensor

from windfall.lowcomm import compressor as compressors
from windfall.lowcomm import outer as outers
from windfall.lowcomm.clip import clip_factors, norm, scale
from windfall.lowcomm.codec import CODECS, Buffer
from windfall.lowcomm.compressor import Compressor, parse_compressor
from windfall.lowcomm.contribution import decode, write
from windfall.lowcomm.contributors import contributor_mean
from windfall.lowcomm.layout import Split as Split
from windfall.lowcomm.merge import streamed_mean
from windfall.lowcomm.outer import Outer, average, parse_outer
from windfall.lowcomm.rda import radial_directional_mean
from windfall.lowcomm.sparse import Contribution, Sparse, descend
from windfall.lowcomm.wire import HEADER_BYTES, Header, split

SPARSE: Final = ("topk-ef", "dct-momentum")
"""Codecs of which most coordinates stay unsaid: they merge per coordinate, and momentum on top of them does harm."""

MERGES: Final = ("mean", "rda")
"""Weighted by tokens: plainly, or per tensor by length and direction (``windfall.lowcomm.rda``)."""

_RUN: Final = 1 << 16
_EXACT: Final = compressors.parse_compressor("fp32")


@dataclass(frozen=True, eq=False)
class Said:
    """A contribution that was accepted: whose, what it weighs, and its parts in the order of ``Split.parts``."""

    site: str
    attempt: int
    tokens: float
    parts: Sequence[Contribution]

    @property
    def order(self) -> tuple[str, int]:
        """Contributions merge in this order, whatever the order of their arrival."""
        return (self.site, self.attempt)


class Unread(Sequence[Contribution]):
    """The parts of messages that were checked, decoded each time that they are looked at: they may be large."""

    def __init__(self, rule: "Rule", messages: Buffer, elements: Split, codec: str = "") -> None:
        self._payloads = rule.payloads(messages, elements, whole=True, codec=codec)

    def __len__(self) -> int:
        return len(self._payloads)

    @overload
    def __getitem__(self, index: int) -> Contribution: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Contribution]: ...
    def __getitem__(self, index: int | slice) -> Contribution | Sequence[Contribution]:
        if isinstance(index, slice):
            return [self[each] for each in range(*index.indices(len(self)))]
        header, payload = self._payloads[index]
        return decode(header.codec, payload, header.elements)


@dataclass(frozen=True)
class Rule:
    """One way to synchronise. ``settings`` build it again elsewhere: ``Rule.parse(*rule.settings)``."""

    codec: Compressor
    outer: Outer
    clip: bool
    """Scale a contribution down to the median norm when it is longer."""
    radial: bool
    """Merge trained tensors by radial-directional averaging."""
    settings: tuple[str, str, bool, str]

    @classmethod
    def parse(cls, codec: str, outer: str = "", clip: bool = False, merge: str = "mean") -> "Rule":
        """Read settings like ``topk-ef`` and ``nesterov:momentum=0.6``. An outer optimizer that is left out is the one
        that goes with the codec: none for sparse ones, Nesterov with a momentum for short rounds for dense ones.
        ``merge`` is one of ``MERGES``.

        Raises:
            ValueError: unknown names or values, or an outer momentum or ``rda`` on a sparse codec.
        """
        compressor = parse_compressor(codec)
        sparse = compressor.name in SPARSE
        outer = outer or ("average" if sparse else "nesterov:lr=0.7,momentum=0.6")
        optimizer = parse_outer(outer)
        if sparse and optimizer.slots:
            raise ValueError(f"{codec} goes with the outer optimizer 'average', not with {outer!r}: momentum harms it")
        if merge not in MERGES:
            raise ValueError(f"unknown merge {merge!r}; known are {', '.join(MERGES)}")
        if sparse and merge == "rda":
            raise ValueError(f"{codec} goes with the merge 'mean', not with 'rda': most coordinates are unsaid")
        return cls(compressor, optimizer, clip, merge == "rda", (codec, outer, clip, merge))

    @property
    def sparse(self) -> bool:
        return self.codec.name in SPARSE

    @property
    def elementwise(self) -> bool:
        """Whether chunks of the vectors may be merged and moved one after the other, with the same bits."""
        return self.codec.name in CODECS and not (self.clip or self.radial or self.outer.counters)

    @property
    def followed(self) -> bool:
        """Whether a site that holds the base is better off with what the others said than with a new model. Codecs of
        16 bits and more say as much as the model itself as soon as there are two of them."""
        return self.codec.name not in CODECS

    def init(self, elements: Split) -> outers.State:
        """The outer optimizer's state before the first round, as long as ``outer.sizes(trained)`` says."""
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
        read = self.payloads(messages, elements, whole=whole)
        return tuple(header for header, _ in read), tuple(
            decode(header.codec, payload, header.elements) for header, payload in read
        )

    def payloads(
        self, messages: Buffer, elements: Split, *, whole: bool = False, codec: str = ""
    ) -> tuple[tuple[Header, memoryview], ...]:
        """As ``decode``, but of the payloads nothing is read yet. ``codec`` names another one than the rule's, for a
        contribution that was accepted before the rule was changed."""
        read = []
        rest = memoryview(messages)
        for fragment, part in enumerate(elements.parts):
            size = part.stop - part.start
            header, payload, rest = split(rest, max_elements=size, whole=whole)
            self.check(header, fragment, elements, codec)
            read.append((header, payload))
        if rest.nbytes:
            raise ValueError(f"{rest.nbytes} bytes follow the last part")
        return tuple(read)

    def check(self, header: Header, fragment: int, elements: Split, codec: str = "") -> None:
        """Refuse a header that is not what part ``fragment`` has under this rule, with ``ValueError``."""
        part = elements.parts[fragment]
        size, expected = part.stop - part.start, codec or self.codec.name
        if part.start >= elements.trained:
            expected = _EXACT.name
        if (header.codec, header.fragment, header.elements) != (expected, fragment, size):
            raise ValueError(
                f"part {fragment} is {header.codec} of {header.elements} elements as fragment {header.fragment}, "
                f"not {expected} of {size}"
            )

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
            lossy = part.stop <= elements.trained
            factors = [1.0] * len(ordered)
            if self.clip and lossy:
                factors = clip_factors([norm(one.parts[index]) for one in ordered])
            spoken = _Spoken(ordered, index, factors)
            # Where the rule has just been changed, what was said under the old one may still be among them.
            sparse = [one for one in spoken if isinstance(one, Sparse)] if self.sparse and lossy else []
            if sparse and len(sparse) == len(ordered):
                merged.append(contributor_mean(sparse, weights))
            elif self.radial and lossy:
                merged.append(radial_directional_mean(_Dense(spoken), weights, elements.spans))
            else:
                merged.append(streamed_mean(_Dense(spoken), weights))
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
                state, ahead = _run_by_run(self.outer, state, base[part], gradient)
                moved.append(ahead)
        return state, moved[0] if len(moved) == 1 else torch.cat(moved) if moved else base.clone()

    def most_bytes(self, elements: Split) -> int:
        """More than any contribution has: what a receiver makes room for before it has seen a byte."""
        return sum(HEADER_BYTES + 1024 + 5 * (part.stop - part.start) for part in elements.parts)


@dataclass(frozen=True, eq=False)
class _Spoken(Iterable[Contribution]):
    """What every site says about one part, scaled, each time anew: decoding again is cheaper than holding on to all."""

    ordered: Sequence[Said]
    index: int
    factors: Sequence[float]

    def __iter__(self) -> Iterator[Contribution]:
        return map(self._scaled, self.ordered, self.factors)

    def _scaled(self, one: Said, factor: float) -> Contribution:
        return scale(one.parts[self.index], factor)


@dataclass(frozen=True, eq=False)
class _Dense(Iterable[Tensor]):
    """The same as vectors. No loop's name holds on to the last one while the next is decoded."""

    spoken: _Spoken

    def __iter__(self) -> Iterator[Tensor]:
        return map(_dense, self.spoken)


def _dense(contribution: Contribution) -> Tensor:
    return contribution.dense() if isinstance(contribution, Sparse) else contribution


def _run_by_run(outer: Outer, state: outers.State, base: Tensor, gradient: Tensor) -> tuple[outers.State, Tensor]:
    """``outer.apply``, to the same bits, in runs that stay in the processor's cache: no vector lies between."""
    slots, counters = state[: outer.slots], state[outer.slots :]
    ahead, *moved = (torch.empty_like(vector) for vector in (base, *slots))
    after = state
    for begin in range(0, len(base), _RUN):
        run = slice(begin, begin + _RUN)
        after, ahead[run] = outer.apply((*(slot[run] for slot in slots), *counters), base[run], gradient[run])
        for into, chunk in zip(moved, after, strict=False):
            into[run] = chunk
    return (*moved, *after[outer.slots :]), ahead


def _plain(base: Tensor, gradient: Contribution) -> Tensor:
    assert isinstance(gradient, Tensor)
    return average().apply((), base, gradient)[1]
