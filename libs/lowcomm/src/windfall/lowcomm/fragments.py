"""A model in fragments that synchronise one after another, so that the link is never asked for all of it at once
(Streaming DiLoCo, arXiv 2501.18512): the peak falls to 1/P, and what is on its way overlaps with training.

Every fragment is a vector of its own: with its own messages, outer state, error feedback and log, and with its own
rounds, each ``steps`` local steps long. Only when they begin differs.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from windfall.lowcomm.layout import Split

CHUNK: Final = 4096
"""Fragments begin at multiples of it, so that the chunks of a sparse codec are the same in any number of fragments."""


@dataclass(frozen=True)
class Fragments:
    """Cuts ``model`` into ``count`` runs of nearly equal length; what must arrive exactly goes with the last one.

    Fragment ``p`` of ``P`` is told after the local steps ``s`` with s ≡ ⌊(p + 1)·H/P⌋ (mod H), where H is ``steps``;
    what became of it is applied ``delay`` steps later. A delay of H is one boundary: first the update of the last
    round is applied, then this round is told.

    Raises:
        ValueError: there are more fragments than steps or than chunks, or the delay is not in 1..``steps``.
    """

    model: Split
    count: int
    steps: int
    delay: int

    def __post_init__(self) -> None:
        chunks = max(1, -(-self.model.trained // CHUNK))
        if not 1 <= self.count <= min(self.steps, chunks):
            raise ValueError(
                f"{chunks} chunks in rounds of {self.steps} steps make 1 to {min(self.steps, chunks)} fragments, "
                f"not {self.count}"
            )
        if not 1 <= self.delay <= self.steps:
            raise ValueError(f"an update is applied 1 to {self.steps} steps later, not {self.delay}")

    @cached_property
    def parts(self) -> tuple[slice, ...]:
        """Where each fragment lies in the flat vector; together, end to end, all of it."""
        return tuple(self.part(p) for p in range(self.count))

    @cached_property
    def splits(self) -> tuple[Split, ...]:
        """Each fragment as a vector of its own, with the pieces of the tensors that lie in it."""
        return tuple(self.split(p) for p in range(self.count))

    def part(self, p: int) -> slice:
        """One of ``parts``, without the others: there may be very many."""
        chunks = -(-self.model.trained // CHUNK)
        begin, end = (min(chunks * each // self.count * CHUNK, self.model.trained) for each in (p, p + 1))
        return slice(begin, end if p + 1 < self.count else self.model.elements)

    def split(self, p: int) -> Split:
        """One of ``splits``."""
        part = self.part(p)
        begin, end = part.start, min(part.stop, self.model.trained)
        pieces = [min(span.stop, end) - max(span.start, begin) for span in self.model.spans]
        tensors = tuple(piece for piece in pieces if piece > 0) if self.model.tensors else ()
        return Split(end - begin, part.stop - end, tensors)

    def told(self, step: int) -> int | None:
        """Which fragment is told after this local step, counted from 1; none after most of them."""
        for p in range(self.count):
            if (step - (p + 1) * self.steps // self.count) % self.steps == 0:
                return p if step > 0 else None
        return None

    def applied(self, step: int) -> int | None:
        """Of which fragment an update is applied after this local step, before anything is told."""
        return self.told(step - self.delay)
