"""The global pseudo-gradient of a round, run by run, from contributions on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from math import fsum
from pathlib import Path
from threading import local
from typing import TYPE_CHECKING, Final

import numpy as np

from windfall.federation_coordinator.federation import Contribution
from windfall.federation_coordinator.on_disk import Floats, Parts, Runs
from windfall.federation_coordinator.spread import spread
from windfall.lowcomm.bands import RUN
from windfall.lowcomm.clip import clip_factors, root_of, squares
from windfall.lowcomm.codec import CODECS
from windfall.lowcomm.columns import Pick, pick_columns
from windfall.lowcomm.distances import Doubles, inner_products, squared_distances
from windfall.lowcomm.later import torch
from windfall.lowcomm.merge import add_share
from windfall.lowcomm.rule import Rule, Said, Split
from windfall.lowcomm.sparse import Sparse

if TYPE_CHECKING:
    from torch import Tensor

LONGEST_RUN: Final = 2 * RUN
"""Elements merged at a time: what fits the caches merges three times as fast as what does not."""

_SHORTEST_RUN: Final = 4096
_CACHED: Final = 1 << 20
_MOST_BESIDE: Final = 1 << 24
"""Elements of all contributions that lie in memory beside each other while their distances are taken."""

Gradient = Callable[[slice, int, int], "Tensor"]
"""A run of the pseudo-gradient: of which part, from which element of the vector, how many. Any thread may ask for any
run; what it is given is its own until it asks again."""


def gradient_of(
    rule: Rule,
    elements: Split,
    contributions: Sequence[Contribution],
    messages: Sequence[Path],
    stack: ExitStack,
    cores: int | None = None,
) -> Gradient:
    """Merge contributions in the order given; the files stay open as long as the stack stands.

    Codecs that code every element alone are merged run by run, in memory of a few runs per core. All others are merged
    at once: the merged vector, and beside it one decoded contribution or a band of each.
    """
    if rule.merging.radial or not all(one.codec in CODECS for one in contributions):
        return _merged_first(rule, elements, contributions, messages)
    sources = [
        Runs(stack.enter_context(path.open("rb", buffering=0)), elements, one.codec)
        for one, path in zip(contributions, messages, strict=True)
    ]
    of_part = {part.start: _part(rule, elements, part, contributions, sources, cores) for part in elements.parts}
    return lambda part, start, count: of_part[part.start](part, start, count)


def longest_run(rule: Rule, contributions: int) -> int:
    """Elements that are best merged at a time: one run of each contribution, where all must be there at once."""
    if rule.merging.pick is None:
        return LONGEST_RUN
    return max(_SHORTEST_RUN, min(LONGEST_RUN, _CACHED // max(1, contributions) // _SHORTEST_RUN * _SHORTEST_RUN))


def _part(
    rule: Rule,
    elements: Split,
    part: slice,
    contributions: Sequence[Contribution],
    sources: Sequence[Runs],
    cores: int | None,
) -> Gradient:
    """Of codecs that code every element alone: what must be known of the whole part first, and then its runs."""
    factors = [1.0] * len(sources)
    weights = [one.weight for one in contributions]
    if rule.clip and part.stop <= elements.trained:
        factors = clip_factors([_norm(source, part, cores) for source in sources])
    if rule.merging.choose is not None:
        chosen = rule.merging.choose(squared_distances(_products(sources, factors, part, cores)))
        sources, factors = [sources[one] for one in chosen], [factors[one] for one in chosen]
        weights = [1.0] * len(chosen)
    if rule.merging.pick is not None:
        return _picked(rule.merging.pick, sources, factors)
    total = fsum(weights)
    return _mean(sources, factors, [weight / total for weight in weights])


class _Spare(local):
    """Room of each thread for the runs that it works on; reused, because fresh memory costs a fault per page."""

    def __init__(self) -> None:
        self.mean = np.empty(LONGEST_RUN, np.float32)
        self.chunk = np.empty(LONGEST_RUN, np.float32)


def _mean(sources: Sequence[Runs], factors: Sequence[float], shares: Sequence[float]) -> Gradient:
    spare = _Spare()

    def run(part: slice, start: int, count: int) -> Tensor:
        mean, chunk = spare.mean[:count], spare.chunk[:count]
        for index, (source, factor, share) in enumerate(zip(sources, factors, shares, strict=True)):
            into = chunk if index else mean
            _read(source, factor, part, start, into)
            if index:
                add_share(mean, chunk, share)
            else:
                mean *= np.float32(share)
        return torch.from_numpy(mean)

    return run


def _picked(pick: Pick, sources: Sequence[Runs], factors: Sequence[float]) -> Gradient:
    def run(part: slice, start: int, count: int) -> Tensor:
        return torch.from_numpy(pick_columns(pick, _beside(sources, factors, part, start, count)))

    return run


def _beside(sources: Sequence[Runs], factors: Sequence[float], part: slice, start: int, count: int) -> list[Floats]:
    rows = [np.empty(count, np.float32) for _ in sources]
    for source, factor, row in zip(sources, factors, rows, strict=True):
        _read(source, factor, part, start, row)
    return rows


def _read(source: Runs, factor: float, part: slice, start: int, into: Floats) -> None:
    source.read(part, start, into)
    if factor != 1.0:
        into *= np.float32(factor)


def _norm(source: Runs, part: slice, cores: int | None) -> float:
    def of_run(part: slice, start: int) -> list[float]:
        values = np.empty(min(RUN, part.stop - start), np.float32)
        source.read(part, start, values)
        return squares(values)

    runs = [(part, start) for start in range(part.start, part.stop, RUN)]
    return root_of(one for found in spread(of_run, runs, cores) for one in found)


def _products(sources: Sequence[Runs], factors: Sequence[float], part: slice, cores: int | None) -> Iterator[Doubles]:
    def of_run(part: slice, start: int) -> Doubles:
        rows = _beside(sources, factors, part, start, min(RUN, part.stop - start))
        (products,) = inner_products([torch.from_numpy(row) for row in rows])
        return products

    # A run of every contribution, as fp64 too, takes room that must not grow with cores times sites.
    cores = max(1, min(cores or len(os.sched_getaffinity(0)), _MOST_BESIDE // (RUN * len(sources))))
    return spread(of_run, [(part, start) for start in range(part.start, part.stop, RUN)], cores)


def _merged_first(
    rule: Rule, elements: Split, contributions: Sequence[Contribution], messages: Sequence[Path]
) -> Gradient:
    said = [
        Said(one.site, one.attempt, one.weight, Parts(path, rule, elements, one.codec), one.codec)
        for one, path in zip(contributions, messages, strict=True)
    ]
    merged = dict(zip((part.start for part in elements.parts), rule.merge(said, elements), strict=True))
    whole = {start: one.dense() if isinstance(one, Sparse) and one.dct else one for start, one in merged.items()}

    def run(part: slice, start: int, count: int) -> Tensor:
        gradient, begin = whole[part.start], start - part.start
        if isinstance(gradient, torch.Tensor):
            return gradient[begin : begin + count]
        first, last = np.searchsorted(gradient.positions, (begin, begin + count))
        flat = np.zeros(count, np.float32)
        flat[gradient.positions[first:last] - begin] = gradient.values[first:last]
        return torch.from_numpy(flat)

    return run
