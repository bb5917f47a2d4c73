"""The outer step from files to files: spread over cores, in memory that does not grow with the number of sites.

Where a round synchronises one fragment, the rest of the model and of the outer state goes over as it is, run by run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from windfall.federation_coordinator.durable import Whole
from windfall.federation_coordinator.federation import Contribution
from windfall.federation_coordinator.gradient import LONGEST_RUN, gradient_of, longest_run
from windfall.federation_coordinator.on_disk import raw, read_floats
from windfall.federation_coordinator.spread import spread
from windfall.lowcomm.later import torch
from windfall.lowcomm.layout import FLOAT32_BYTES
from windfall.lowcomm.outer import average
from windfall.lowcomm.rotation import Rotation, rotation
from windfall.lowcomm.rule import Rule, Split

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Base:
    """A base model on disk: where its tensors begin, and how many bytes they are."""

    path: Path
    data_start: int
    nbytes: int


Stretch = Base | bytes
"""What goes down to a site: a stretch of a file, or bytes."""


def size_of(stretches: Sequence[Stretch]) -> int:
    """Bytes of all of them."""
    return sum(len(one) if isinstance(one, bytes) else one.nbytes for one in stretches)


@dataclass(frozen=True)
class Step:
    """From where to where: a base and the outer optimizer's state beside it, and their successors."""

    base: Base
    states: Sequence[Path]
    next_base: Path
    next_states: Sequence[Path]
    header: bytes
    """Of the next base's file; the tensors follow."""
    round: int = 0
    """Which fragment moves, where they take turns."""


def take_step(
    step: Step,
    rule: Rule,
    elements: Split | Rotation,
    contributions: Sequence[Contribution],
    messages: Sequence[Path],
    cores: int | None = None,
) -> str:
    """Merge contributions, in the order given, and write the next base; gives its digest.

    Runs of the model are merged and moved on all cores; they are hashed and written behind, in order. Neither the
    number of cores nor the length of a run changes a bit.

    Args:
        elements: the model, or the fragments of it that take turns.
        cores: threads; none is as many as this process may run on.

    Raises:
        Mistake: a file is shorter than the model.
    """
    fragments = rotation(elements)
    moving, split, turn = fragments.part(step.round), fragments.split(step.round), fragments.turn(step.round)
    trained, begin, end = fragments.model.trained, moving.start, moving.start + split.trained
    with ExitStack() as stack:
        # Left in reverse: the states become whole before the base, so a base that stands has its state beside it.
        new = stack.enter_context(Whole(step.next_base))
        moved_states = [stack.enter_context(Whole(path)) for path in step.next_states]
        old = stack.enter_context(step.base.path.open("rb", buffering=0))
        states = [stack.enter_context(path.open("rb", buffering=0)) for path in step.states]
        gradient = gradient_of(rule, split, contributions, messages, stack, cores)
        slots, longest = rule.outer.slots, longest_run(rule, len(contributions))
        # Counters count rounds, not runs: every run is given them as they were.
        counters = tuple(_floats(file, turn, 1) for file in states[slots:])
        after = counters
        sha = hashlib.sha256()
        new.write(step.header)
        for block in _blocks(old, 0, begin, step.base.data_start):
            sha.update(block)
            new.write(block)
        for file, output in zip(states[:slots], moved_states, strict=False):
            output.writelines(_blocks(file, 0, begin))

        def moved(part: slice, start: int) -> tuple[Tensor, tuple[Tensor, ...]]:
            count = min(longest, part.stop - start)
            towards, base = gradient(part, start, count), _floats(old, begin + start, count, step.base.data_start)
            if part.start >= split.trained:
                return average().apply((), base, towards)[1], ()
            kept = tuple(_floats(file, begin + start, count) for file in states[:slots])
            state, ahead = rule.outer.apply((*kept, *counters), base, towards)
            return ahead, state

        starts = [(part, start) for part in split.parts for start in range(part.start, part.stop, longest)]
        for ahead, state in spread(moved, starts, cores):
            sha.update(raw(ahead))
            new.write(raw(ahead))
            for output, vector in zip(moved_states[:slots], state, strict=False):
                output.write(raw(vector))
            after = state[slots:] or after
        for block in _blocks(old, moving.stop, fragments.model.elements, step.base.data_start):
            sha.update(block)
            new.write(block)
        for file, output in zip(states[:slots], moved_states, strict=False):
            output.writelines(_blocks(file, end, trained))
        for file, output, vector in zip(states[slots:], moved_states[slots:], after, strict=True):
            counts = _floats(file, 0, fragments.count)
            counts[turn] = vector[0]
            output.write(raw(counts))
        return sha.hexdigest()


def _blocks(file: FileIO, begin: int, end: int, data_start: int = 0) -> Iterator[memoryview]:
    """The bytes of a file's elements from one up to another, a run at a time."""
    for start in range(begin, end, LONGEST_RUN):
        yield raw(_floats(file, start, min(LONGEST_RUN, end - start), data_start))


def _floats(file: FileIO, start: int, count: int, data_start: int = 0) -> Tensor:
    values = np.empty(count, np.float32)
    read_floats(file, data_start + start * FLOAT32_BYTES, values)
    return torch.from_numpy(values)
