"""The outer step from files to files, in memory that does not grow with the number of sites."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from io import SEEK_CUR, FileIO
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import torch
from torch import Tensor

from windfall.federation_coordinator.durable import RESTORE, Whole
from windfall.federation_coordinator.rounds import Contribution
from windfall.lowcomm.codec import CODECS
from windfall.lowcomm.layout import FLOAT32_BYTES
from windfall.lowcomm.merge import weighted_mean
from windfall.lowcomm.outer import average
from windfall.lowcomm.rule import Rule, Said, Split, Unread
from windfall.lowcomm.sparse import Sparse
from windfall.lowcomm.wire import HEADER_BYTES
from windfall.servicekit.errors import ExitCode, Mistake

T = TypeVar("T")

_CHUNK: Final = 128 * 1024
"""Elements merged at a time: what fits the caches merges three times as fast as what does not."""


@dataclass(frozen=True)
class Base:
    """A base model on disk: where its tensors begin, and how many bytes they are."""

    path: Path
    data_start: int
    nbytes: int


@dataclass(frozen=True)
class Step:
    """From where to where: a base and the outer optimizer's state beside it, and their successors."""

    base: Base
    states: Sequence[Path]
    next_base: Path
    next_states: Sequence[Path]
    header: bytes
    """Of the next base's file; the tensors follow."""


def take_step(
    step: Step, rule: Rule, elements: Split, contributions: Sequence[Contribution], messages: Sequence[Path]
) -> str:
    """Merge contributions, in the order given, and write the next base; gives its digest.

    Raises:
        Mistake: a file is shorter than the model.
    """
    with ExitStack() as stack:
        # Left in reverse: the states become whole before the base, so a base that stands has its state beside it.
        new = stack.enter_context(Whole(step.next_base))
        moved_states = [stack.enter_context(Whole(path)) for path in step.next_states]
        old = stack.enter_context(step.base.path.open("rb", buffering=0))
        states = [stack.enter_context(path.open("rb", buffering=0)) for path in step.states]
        if rule.elementwise and all(one.codec in CODECS for one in contributions):
            sources = [stack.enter_context(path.open("rb", buffering=0)) for path in messages]
            gradients = _read_along(elements, contributions, sources)
        else:
            gradients = _merged_first(rule, elements, contributions, messages)
        slots = rule.outer.slots
        # Counters count rounds, not chunks: every chunk is given them as they were.
        counters = tuple(_floats(file, 1) for file in states[slots:])
        after = counters
        sha = hashlib.sha256()
        new.write(step.header)
        old.seek(step.base.data_start)

        def moved(part: slice, start: int) -> tuple[Tensor, tuple[Tensor, ...]]:
            count = min(_CHUNK, part.stop - start)
            gradient, chunk = gradients(part, start, count), _floats(old, count)
            if part.start >= elements.trained:
                return average().apply((), chunk, gradient)[1], ()
            kept = tuple(_floats(file, count) for file in states[:slots])
            state, chunk = rule.outer.apply((*kept, *counters), chunk, gradient)
            return chunk, state

        # One chunk is computed while the one before it is hashed and written.
        starts = [(part, start) for part in elements.parts for start in range(part.start, part.stop, _CHUNK)]
        for chunk, state in _ahead(moved, starts):
            sha.update(raw(chunk))
            new.write(raw(chunk))
            for output, vector in zip(moved_states[:slots], state, strict=False):
                output.write(raw(vector))
            after = state[slots:] or after
        for output, vector in zip(moved_states[slots:], after, strict=True):
            output.write(raw(vector))
        return sha.hexdigest()


Gradients = Callable[[slice, int, int], Tensor]
"""A run of the global pseudo-gradient: of which part, from which element, how many. Runs are asked for in order."""


def _read_along(elements: Split, contributions: Sequence[Contribution], sources: Sequence[FileIO]) -> Gradients:
    """Of codecs that code every element alone: merged run by run, in memory of a few runs per contribution."""
    weights = [one.tokens for one in contributions]

    def run(part: slice, start: int, count: int) -> Tensor:
        said = []
        for one, source in zip(contributions, sources, strict=True):
            if start == part.start:
                source.seek(HEADER_BYTES, SEEK_CUR)
            codec = CODECS[one.codec if part.start < elements.trained else "fp32"]
            said.append(codec.decode(_exactly(source, count * codec.bytes_per_element)))
        return weighted_mean(said, weights)

    return run


def _merged_first(
    rule: Rule, elements: Split, contributions: Sequence[Contribution], messages: Sequence[Path]
) -> Gradients:
    """Of all others: merged at once, one decoded contribution beside the mean; sparse ones take only what they say."""
    said = [
        Said(one.site, one.attempt, one.tokens, Unread(rule, path.read_bytes(), elements, one.codec))
        for one, path in zip(contributions, messages, strict=True)
    ]
    merged = dict(zip((part.start for part in elements.parts), rule.merge(said, elements), strict=True))
    whole = {start: one.dense() if isinstance(one, Sparse) and one.dct else one for start, one in merged.items()}

    def run(part: slice, start: int, count: int) -> Tensor:
        gradient, begin = whole[part.start], start - part.start
        if isinstance(gradient, Tensor):
            return gradient[begin : begin + count]
        first, last = np.searchsorted(gradient.positions, (begin, begin + count))
        flat = np.zeros(count, np.float32)
        flat[gradient.positions[first:last] - begin] = gradient.values[first:last]
        return torch.from_numpy(flat)

    return run


def raw(vector: Tensor) -> memoryview:
    """The little-endian bytes of a fp32 vector."""
    return vector.numpy().astype("<f4", copy=False).data.cast("B")


def _ahead(work: Callable[[slice, int], T], inputs: Iterable[tuple[slice, int]]) -> Iterator[T]:
    """Results in order, the next one being computed beside whoever uses the last."""
    with ThreadPoolExecutor(1) as beside:
        waiting: Future[T] | None = None
        for one in inputs:
            waiting, ready = beside.submit(work, *one), waiting
            if ready is not None:
                yield ready.result()
        if waiting is not None:
            yield waiting.result()


def _floats(file: FileIO, count: int) -> Tensor:
    data = _exactly(file, count * FLOAT32_BYTES)
    return torch.from_numpy(np.frombuffer(data, "<f4").astype(np.float32, copy=False))


def _exactly(file: FileIO, size: int) -> bytearray:
    buffer = bytearray(size)
    view = memoryview(buffer)
    filled = 0
    while filled < size:
        read = file.readinto(view[filled:])
        if not read:
            raise Mistake(f"{file.name!r} is shorter than the model", RESTORE, ExitCode.RESOURCE)
        filled += read
    return buffer
