"""Work on the runs of a long vector, spread over cores, with its results in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
Run = tuple[slice, int]
"""Of which part of the vector, and from which element."""


def spread(work: Callable[[slice, int], T], runs: Iterable[Run], cores: int | None = None) -> Iterator[T]:
    """Results in the order of the runs, a few of the next being computed beside whoever uses the last.

    numpy, torch and reads release the interpreter, so that threads are enough. Results that wait are bounded.

    Args:
        cores: threads; none is as many as this process may run on.
    """
    cores = cores or len(os.sched_getaffinity(0))
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(cores) as threads:
        for run in runs:
            waiting.append(threads.submit(work, *run))
            if len(waiting) > 2 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
