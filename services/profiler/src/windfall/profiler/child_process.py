"""Programs that may hang, crash or babble, run so that nothing of it reaches us: bounded in time and in bytes.

A vendor's library or tool lives in a process of its own, because a driver that hangs cannot be interrupted from
within. Whatever such a program starts ends with it.
"""

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

REAPING_S = 5.0
MOST_BYTES = 4 * 2**20
_CHUNK = 2**16
CHILDREN = Path(__file__).with_name("child")
"""Programs of ours, run by path: they import nothing of this package."""


@dataclass(frozen=True)
class Heard:
    """What a program said on its standard output before it ended or was ended."""

    text: str
    error: str = ""
    """The last line of its standard error."""
    why: str = ""
    """What is wrong with its end, as the second half of a sentence: ``did not answer within 5 s``; empty when nothing.
    """
    absent: bool = False
    """There is no such program."""

    @property
    def lines(self) -> list[str]:
        """Without one that was cut."""
        return [line for line in self.text.split("\n")[:-1] if line]


async def hear(
    command: Sequence[str],
    within: timedelta,
    environment: Mapping[str, str] | None = None,
    most_bytes: int = MOST_BYTES,
) -> Heard:
    """Run a program and keep what it says."""
    try:
        child = await asyncio.create_subprocess_exec(
            *command,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env=None if environment is None else os.environ | environment,
            start_new_session=True,  # so that whatever it starts ends with it
        )
    except FileNotFoundError:
        return Heard("", why="is not installed", absent=True)
    except OSError as error:
        return Heard("", why=f"cannot be started ({error.strerror})")
    out, err = bytearray(), bytearray()
    why = ""
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        async with asyncio.timeout(within.total_seconds()):
            whole, _, code = await asyncio.gather(
                _kept(child.stdout, out, most_bytes, child), _last(child.stderr, err), child.wait()
            )
        if code:
            why = died(code)
        if not whole:
            why = f"said more than {most_bytes} bytes"
    except TimeoutError:
        why = f"did not answer within {within.total_seconds():g} s"
    finally:
        await ended(child)
    last = err.decode(errors="replace").strip().rpartition("\n")[2]
    return Heard(out.decode(errors="replace"), last.strip(), why)


async def _kept(stream: asyncio.StreamReader, into: bytearray, most_bytes: int, child: Process) -> bool:
    """Whether all of it was kept; whoever says more is ended."""
    while chunk := await stream.read(_CHUNK):
        into += chunk
        if len(into) > most_bytes:
            del into[most_bytes:]
            await ended(child)
            return False
    return True


async def _last(stream: asyncio.StreamReader, into: bytearray) -> None:
    while chunk := await stream.read(_CHUNK):
        into += chunk
        del into[:-_CHUNK]


def died(code: int) -> str:
    """What an exit status means."""
    return f"ended with code {code}" if code > 0 else f"was ended by {signal.Signals(-code).name}"


async def ended(child: Process) -> None:
    """Kill the child with all that it started, and reap it."""
    if child.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
    # A process that hangs inside a driver ignores even SIGKILL; it must not take us along.
    with suppress(TimeoutError):
        await asyncio.wait_for(child.wait(), REAPING_S)
