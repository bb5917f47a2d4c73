"""Looks at the storage of a folder and measures it: a program of its own, because a disk or a file server may hang.

It writes into one file without a name, so that nothing of it stays, however it ends. Each part is said as a JSON line
when it is known: ``{"error": why}`` or ``{"folder": real path, "total_bytes": …, "free_bytes": …}``, then
``{"fsync_ms": …}``, ``{"write_mb_per_s": …}``, ``{"read_mb_per_s": …}``, or ``{"missing": {part: why}}``.
"""

import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

BLOCK = 2**20
PAGE = 4096
SHARE = 10
"""At most this part of what is free is written."""


def say(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)  # noqa: T201 - standard output is this program's answer


def fsync_ms(file: int, budget_s: float) -> float:
    """Median of a page written and synchronised, as a journal does."""
    taken: list[float] = []
    ends = time.perf_counter() + budget_s
    page = os.urandom(PAGE)
    while not taken or (time.perf_counter() < ends and len(taken) < 64):
        begun = time.perf_counter()
        os.pwrite(file, page, len(taken) * PAGE)
        os.fsync(file)
        taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken)


def write_mb_per_s(file: int, budget_s: float, most_bytes: int) -> float:
    """Blocks that do not compress, one after the other; what is on the disk at the end counts."""
    block = os.urandom(BLOCK)
    begun = time.perf_counter()
    written = 0
    while written < most_bytes and time.perf_counter() - begun < budget_s:
        written += os.pwrite(file, block, written)
    os.fsync(file)
    return written / (time.perf_counter() - begun) / 1e6


def read_mb_per_s(file: int, budget_s: float) -> float:
    os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    begun = time.perf_counter()
    seen = 0
    while (block := os.pread(file, BLOCK, seen)) and time.perf_counter() - begun < budget_s:
        seen += len(block)
    return seen / (time.perf_counter() - begun) / 1e6


def nameless(folder: str) -> int:
    with contextlib.suppress(OSError):  # not every file system has O_TMPFILE
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o600)
    file, path = tempfile.mkstemp(dir=folder)
    os.unlink(path)  # noqa: PTH108
    return file


def main(folder: str, budget_s: float, most_bytes: int) -> None:
    try:
        room = os.statvfs(folder)
    except OSError as error:
        say({"error": error.strerror})
        return
    free_bytes = room.f_frsize * room.f_bavail
    real = os.path.realpath(folder)
    say({"folder": real, "total_bytes": room.f_frsize * room.f_blocks, "free_bytes": free_bytes})
    try:
        file = nameless(folder)
    except OSError as error:
        parts = ("fsync_ms", "write_mb_per_s", "read_mb_per_s")
        say({"missing": dict.fromkeys(parts, f"nothing can be written there: {error.strerror}")})
        return
    measures: dict[str, Callable[[], float]] = {
        "fsync_ms": lambda: fsync_ms(file, 0.3 * budget_s),
        "write_mb_per_s": lambda: write_mb_per_s(file, 0.4 * budget_s, min(most_bytes, free_bytes // SHARE)),
        "read_mb_per_s": lambda: read_mb_per_s(file, 0.3 * budget_s),
    }
    for part, measure in measures.items():
        try:
            say({part: measure()})
        except OSError as error:
            say({"missing": {part: error.strerror}})


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
