"""Work on the runs of a long vector, spread over cores, with its results in order."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

_FEW: Final = 2**14
"""Elements, from where each run begins to the end of its part, that are done before a thread has begun."""
T = TypeVar("T")
Run = tuple[slice, int]
"""Of which part of the vector, and from which element."""

_TOGETHER: Final = 4
"""Runs that a thread takes at once, where there are many: handing one over costs a tenth of merging it."""


def spread(work: Callable[[slice, int], T], runs: Sequence[Run], cores: int | None = None) -> Iterator[T]:
    """Results in the order of the runs, a few of the next being computed beside whoever uses the last.

    numpy, torch and reads release the interpreter, so that threads are enough. Results that wait are bounded.

    Args:
        cores: threads; none is as many as this process may run on.
    """
    if len(runs) == 1 or sum(part.stop - start for part, start in runs) <= _FEW:
        # A thread would cost more than there is to do.
        yield from (work(*run) for run in runs)
        return
    cores = cores or len(os.sched_getaffinity(0))
    together = max(1, min(_TOGETHER, len(runs) // (4 * cores)))
    waiting: deque[Future[list[T]]] = deque()

    def some(first: int) -> list[T]:
        return [work(*run) for run in runs[first : first + together]]

    with ThreadPoolExecutor(cores) as threads:
        for first in range(0, len(runs), together):
            waiting.append(threads.submit(some, first))
            if len(waiting) > 2 * cores:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
