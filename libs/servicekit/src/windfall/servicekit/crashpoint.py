"""Places at which a process can be told to die, as by ``kill -9``: nothing is flushed, said or tidied up.

A rehearsal names them in ``WINDFALL_CRASH_AT``, as in ``merge.begun`` or, for the third time that a process comes by,
``outbox.published:3``; several are separated by commas, and the first that is reached counts. Each service lists its
own, one sentence each, in ``crashpoints.py``; those of the kit are in :data:`KIT`. Unset, a place costs a look into an
empty dictionary.
"""

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from windfall.servicekit.errors import Mistake

VARIABLE: Final = "WINDFALL_CRASH_AT"

KIT: Final[Mapping[str, str]] = {
    "journal.written": "A decision is in the journal's transaction, which is not committed.",
    "journal.committed": "A decision is on disk, and nothing has followed from it.",
    "outbox.unsaid": "The oldest word of the outbox is about to be said.",
    "outbox.published": "The bus has acknowledged a word that the journal still holds unsaid.",
    "outbox.marked": "The journal knows that a word was said.",
}
"""Every place in servicekit itself, which every service comes by."""

_armed: Final[dict[str, int]] = {}
_ends: Final[list[Callable[[], None]]] = [lambda: os.kill(os.getpid(), signal.SIGKILL)]


def reach(name: str) -> None:
    """The process comes by this place; it ends here if it was told to."""
    if name in _armed:
        _armed[name] -= 1
        if not _armed[name]:
            _ends[-1]()


def arm(text: str, own: Mapping[str, str]) -> None:
    """Tell this process where to die; an empty text tells it to live.

    Args:
        text: of ``WINDFALL_CRASH_AT``.
        own: the places of this service, beside the kit's.

    Raises:
        Mistake: a place that does not exist, or a count that is not 1 or more.
    """
    armed: dict[str, int] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, count = entry.partition(":")
        if name not in own and name not in KIT:
            known = ", ".join(sorted({*own, *KIT}))
            raise Mistake(
                f"{VARIABLE} names {name!r}, where this service never comes by", f"Unset it, or take: {known}"
            )
        if count and not (count.isdecimal() and int(count)):
            raise Mistake(f"{VARIABLE} has {entry!r}", "Count from 1, as in outbox.published:3")
        armed[name] = int(count or 1)
    _armed.clear()
    _armed.update(armed)


@contextmanager
def ending_with(end: Callable[[], None]) -> Iterator[None]:
    """Within the block a process that was told to end calls this instead: for a fleet that lives in one process."""
    _ends.append(end)
    try:
        yield
    finally:
        _ends.pop()
