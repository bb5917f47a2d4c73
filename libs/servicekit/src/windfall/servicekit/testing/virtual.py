"""An asyncio loop whose time jumps to the next timer instead of waiting for it.

Everything that waits on the loop (``asyncio.sleep``, ``timeout``, :class:`~windfall.servicekit.clock.LoopClock`) runs
on virtual time: a day passes in as long as its events take to compute, and in the same order every time. It does no
real I/O and knows no threads; a loop with nothing left to wait for is a deadlock and says so.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")


_MOST_TURNS: Final = 200_000
"""Of the loop in one instant: whoever takes more goes round in a circle."""


class Deadlock(RuntimeError):
    """Every task waits for something that will never come, or some go on for ever in one instant."""


class _Jump(selectors.SelectSelector):
    """A selector that never blocks: it moves the loop's time by what it was asked to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout == 0:
            # What is ready goes on without a look at descriptors, which would cost more than most turns do.
            self._turns += 1
            if self._turns > _MOST_TURNS:
                self._turns = 0
                raise Deadlock(f"{_MOST_TURNS:,} turns of the loop in one instant")
            return []
        self._turns = 0
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise Deadlock("nothing is ready and no timer is set")
        self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)
        # A timer rings when it is due within this. Real clocks have a nanosecond, which vanishes beside a float of a
        # hundred days: the loop would wait for the last bit for ever.
        self._clock_resolution = 1e-7

    def time(self) -> float:
        return self._jump.now


def run_virtual(work: Coroutine[Any, Any, T]) -> T:
    """Run to completion on virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
