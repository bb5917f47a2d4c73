"""SIGTERM, heard between steps and while waiting for others, but never inside a step.

The agent sends it when the group is about to form anew, or when it is itself asked to end. A wait for other members may
last as long as their timeout, and torch waits where no signal is heard; so others are waited for in a thread, and the
main thread waits for the thread and for the signal at once. It waits on a socket, because the kernel may hand the
signal to any thread, and then nothing else would wake the main one.
"""

import select
import signal
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from time import monotonic
from types import FrameType
from typing import Self, TypeVar

T = TypeVar("T")


class Stopped(Exception):
    """We were asked to end."""


class Stop:
    """A context of the main thread, in which SIGTERM and SIGINT are heard."""

    def __init__(self) -> None:
        self._asked = False
        self._others = ThreadPoolExecutor(1, "others")
        self._bell, self._ring = socket.socketpair()
        self._bell.setblocking(False)
        self._ring.setblocking(False)

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGTERM, signal.SIGINT)}
        self._fd_before = signal.set_wakeup_fd(self._ring.fileno(), warn_on_full_buffer=False)
        return self

    def __exit__(self, *error: object) -> None:
        signal.set_wakeup_fd(self._fd_before)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._others.shutdown(wait=False)
        self._bell.close()
        self._ring.close()

    def look(self) -> None:
        """Raise ``Stopped`` if we were asked to end."""
        if self._asked:
            raise Stopped

    def wait_for(self, work: Callable[..., T], *arguments: object) -> T:
        """What ``work`` gives, in a thread of its own. On ``Stopped`` it is left behind, and the process must end."""
        self.look()
        done = self._others.submit(work, *arguments)
        done.add_done_callback(self._over)
        while not done.done():
            self._rest(None)
        return done.result()

    def patiently(self, seconds: float) -> None:
        """Wait to be asked to end.

        Raises:
            Stopped: we were, in time.
        """
        deadline = monotonic() + seconds
        while (left := deadline - monotonic()) > 0:
            self._rest(left)

    def _rest(self, seconds: float | None) -> None:
        """Until the bell rings: for a signal, for work that is done, or for one that was done before."""
        self.look()
        if select.select([self._bell], [], [], seconds)[0]:
            self._bell.recv(4096)
        self.look()

    def _over(self, done: Future[T]) -> None:
        # Nobody listens any more when the wait was left behind.
        with suppress(OSError):
            self._ring.send(b"\0")

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
