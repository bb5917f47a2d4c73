"""How what sites say moves the model: codec × merge × outer, as one pure step that whoever holds the base takes alike.

The coordinator takes it to commit a round; a site that holds the round's base takes it on the same contributions and
arrives at the same bits, so that no model has to travel. Nothing here depends on the order in which contributions
arrived, on threads, or on the device that trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from windfall.lowcomm import compressor as compressors
from windfall.lowcomm import outer as outers
from windfall.lowcomm.bands import bands, joined
from windfall.lowcomm.clip import clip_factors, norm
from windfall.lowcomm.codec import CODECS, Buffer
from windfall.lowcomm.columns import merge_columns
from windfall.lowcomm.compressor import Compressor, parse_compressor
from windfall.lowcomm.contribution import decode, write
from windfall.lowcomm.contributors import contributor_mean
from windfall.lowcomm.distances import inner_products, squared_distances
from windfall.lowcomm.later import torch
from windfall.lowcomm.layout import Split as Split
from windfall.lowcomm.merge import streamed_mean
from windfall.lowcomm.merging import Merging, parse_merging
from windfall.lowcomm.outer import Outer, apply_run_by_run, average, parse_outer
from windfall.lowcomm.rda import radial_directional_mean
from windfall.lowcomm.said import SPARSE as SPARSE
from windfall.lowcomm.said import Said as Said
from windfall.lowcomm.said import Spoken, Vectors
from windfall.lowcomm.sparse import Contribution, Sparse, descend
from windfall.lowcomm.unread import Unread as Unread
from windfall.lowcomm.wire import HEADER_BYTES, Header, split

if TYPE_CHECKING:
    from torch import Tensor

MEMORYLESS: Final = ("fp32", "bf16", "int8-block", "int4-block")
"""Codecs that leave nothing for the next time. Every rule understands them beside its own: a site that was alone for
long says in one of them all that it learnt."""

_EXACT: Final = compressors.parse_compressor("fp32")


@dataclass(frozen=True)
class Rule:
    """One way to synchronise. ``settings`` build it again elsewhere: ``Rule.parse(*rule.settings)``."""

    codec: Compressor
    outer: Outer
    clip: bool
    """Scale a contribution down to the median norm when it is longer."""
    merging: Merging
    """How contributions become one."""
    settings: tuple[str, str, bool, str]

    @classmethod
    def parse(cls, codec: str, outer: str = "", clip: bool = False, merge: str = "mean") -> Rule:
        """Read settings like ``topk-ef`` and ``nesterov:momentum=0.6``. An outer optimizer that is left out is the one
        that goes with the codec: none for sparse ones, Nesterov with a momentum for short rounds for dense ones.
        ``merge`` is one of ``windfall.lowcomm.merging``, with its settings.

        Raises:
            ValueError: unknown names or values, or an outer momentum or ``rda`` on a sparse codec.
        """
        compressor = parse_compressor(codec)
        sparse = compressor.name in SPARSE
        outer = outer or ("average" if sparse else "nesterov:lr=0.7,momentum=0.6")
        optimizer = parse_outer(outer)
        if sparse and optimizer.slots:
            raise ValueError(f"{codec} goes with the outer optimizer 'average', not with {outer!r}: momentum harms it")
        merging = parse_merging(merge)
        if sparse and merging.radial:
            raise ValueError(f"{codec} goes with the merge 'mean', not with 'rda': most coordinates are unsaid")
        return cls(compressor, optimizer, clip, merging, (codec, outer, clip, merge))

    @property
    def sparse(self) -> bool:
        return self.codec.name in SPARSE

    @property
    def elementwise(self) -> bool:
        """Whether any run of the vectors may be merged and moved by itself, with the same bits, once it is known which
        contributions count, and by which factor."""
        return self.codec.name in CODECS and not self.merging.radial

    @property
    def followed(self) -> bool:
        """Whether a site that holds the base is better off with what the others said than with a new model. Codecs of
        16 bits and more say as much as the model itself as soon as there are two of them."""
        return self.codec.name not in CODECS

    def init(self, elements: Split) -> outers.State:
        """The outer optimizer's state before the first round, as long as ``outer.sizes(trained)`` says."""
        return self.outer.init(elements.trained)

    def encode(
        self,
        state: compressors.State,
        gradient: Tensor,
        elements: Split,
        *,
        base: int,
        tokens: int,
        steps: int,
        codec: str = "",
    ) -> tuple[compressors.State, bytes]:
        """What a site says: a message per part, end to end.

        Args:
            state: from ``codec.init(elements.trained)`` or the last call.
            gradient: base − local, fp32 ``[elements]``.
            codec: another one than the rule's, without memory, for a site that is alone and has more to say at once.
                The state stays as it is.

        Raises:
            ValueError: the gradient is not finite; the old state still stands.
        """
        spoken = []
        own = self.codec if codec in ("", self.codec.name) else parse_compressor(codec)
        keeps = own is self.codec
        for fragment, part in enumerate(elements.parts):
            lossy = part.stop <= elements.trained
            after, message = write(
                own if lossy else _EXACT,
                state if lossy and keeps else own.init(part.stop - part.start) if lossy else (),
                gradient[part],
                fragment=fragment,
                base=base,
                tokens=tokens,
                steps=steps,
            )
            state = after if lossy and keeps else state
            spoken.append(message)
        return state, b"".join(spoken)

    def decode(
        self, messages: Buffer, elements: Split, *, whole: bool = False, codec: str = ""
    ) -> tuple[tuple[Header, ...], tuple[Contribution, ...]]:
        """Check and read what ``encode`` wrote.

        Args:
            whole: the bytes have been held against a cryptographic digest already, so their CRC is not looked at.
            codec: as in ``payloads``.

        Raises:
            ValueError: it is not what a site says under this rule about such a vector.
        """
        read = self.payloads(messages, elements, whole=whole, codec=codec)
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
        """What all of them say together, part by part: the global pseudo-gradient.

        A mean weighs tokens: sparse parts are averaged per coordinate over the sites that sent it, the others over all.
        The robust merges weigh nothing, and are taken of each part by itself, the exact one too. Memory: what is
        merged, one decoded contribution, and for merges that look at all of them at once about as much again.

        Raises:
            ValueError: no contributions, or they are not of one shape.
        """
        ordered = sorted(contributions, key=lambda one: one.order)
        if not ordered:
            raise ValueError("a merge needs at least one contribution")
        merged = []
        for index, part in enumerate(elements.parts):
            factors = [1.0] * len(ordered)
            lossy = part.stop <= elements.trained
            if self.clip and lossy:
                factors = clip_factors([norm(one.parts[index]) for one in ordered])
            merged.append(self._merge_part(Spoken(ordered, index, factors, lossy), part, elements))
        return tuple(merged)

    def _merge_part(self, spoken: Spoken, part: slice, elements: Split) -> Contribution:
        size = part.stop - part.start
        weights = [one.tokens for one in spoken.ordered]
        if self.merging.choose is not None:
            products = (run for band in bands(spoken, size) for run in inner_products(band.contributions))
            spoken = spoken.only(self.merging.choose(squared_distances(products)))
            weights = [1.0] * len(spoken)
        if self.merging.pick is not None:
            pick = self.merging.pick
            found = ((band.begin, merge_columns(pick, band.contributions)) for band in bands(spoken, size))
            return joined(found, size)
        if self.sparse and spoken.sparse:
            means = (
                (band.begin, contributor_mean([one for one in band.contributions if isinstance(one, Sparse)], weights))
                for band in bands(spoken, size)
            )
            return joined(means, size)
        if spoken.lossy and self.merging.radial:
            return radial_directional_mean(Vectors(spoken), weights, elements.spans)
        return streamed_mean(Vectors(spoken), weights)

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
                state, ahead = apply_run_by_run(self.outer, state, base[part], gradient)
                moved.append(ahead)
        return state, moved[0] if len(moved) == 1 else torch.cat(moved) if moved else base.clone()

    def most_bytes(self, elements: Split, codec: str = "") -> int:
        """What no honest contribution exceeds: a receiver refuses more before it has seen a byte. ``codec`` names
        another one than the rule's."""
        own = self.codec if codec in ("", self.codec.name) else parse_compressor(codec)
        of_part = [own if part.stop <= elements.trained else _EXACT for part in elements.parts]
        sizes = [part.stop - part.start for part in elements.parts]
        return sum(HEADER_BYTES + one.most_bytes(size) for one, size in zip(of_part, sizes, strict=True))


def _plain(base: Tensor, gradient: Contribution) -> Tensor:
    assert isinstance(gradient, torch.Tensor)
    return average().apply((), base, gradient)[1]
