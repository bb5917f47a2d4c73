"""Processes that are forked from one in which everything is warm, so that a schedule costs what it computes.

What a run leaves behind is cycles that only the garbage collector could find; a process that ends after some runs
leaves nothing, which costs less.
"""

import gc
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

import torch

from tests.chaos.faults import drawn
from tests.chaos.verdict import tried

_TOGETHER: Final = 12
"""Runs of a process: each leaves some MiB."""
_LONGEST_LINE: Final = 4000
"""Bytes. Up to ``PIPE_BUF`` (POSIX; 4096 on Linux) the lines of several writers do not mix."""


def warm_up() -> None:
    """Have everything imported, built and cached that runs need, once for all processes."""
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    tried(0, drawn(0))
    gc.collect()
    gc.freeze()


def judged(seeds: Sequence[int], workers: int) -> Iterator[dict[str, Any]]:
    """Verdicts of seeds, by several processes, as they come.

    Raises:
        RuntimeError: a process ended before its time.
    """
    reading, writing = os.pipe()
    pids = [_forked(seeds[worker::workers], writing) for worker in range(workers)]
    os.close(writing)
    with os.fdopen(reading, "rb") as lines:
        yield from map(json.loads, lines)
    broken = [pid for pid in pids if os.waitpid(pid, 0)[1]]
    if broken:
        raise RuntimeError(f"{len(broken)} of {workers} workers ended before their time; what they said is above")


def _forked(seeds: Sequence[int], to: int) -> int:
    """A worker, which forks whoever runs the next few seeds."""
    if pid := os.fork():
        return pid
    code = 0
    for first in range(0, len(seeds), _TOGETHER):
        if not (child := os.fork()):
            _run(seeds[first : first + _TOGETHER], to)
        if os.waitpid(child, 0)[1]:
            code = 1
            break
    os._exit(code)


def _run(seeds: Sequence[int], to: int) -> None:
    gc.disable()
    code = 1
    try:
        for seed in seeds:
            line = json.dumps(asdict(tried(seed, drawn(seed)))).encode()
            assert len(line) < _LONGEST_LINE
            os.write(to, line + b"\n")
        code = 0
    finally:
        if code:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(code)
