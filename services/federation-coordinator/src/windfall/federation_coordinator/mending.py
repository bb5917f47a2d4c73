"""The newest checkpoint while it is made again: the coordinator answers, and whoever reads the model waits."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.offload import Offload

_STANDS_FIRST_S: Final = 5.0
"""For which it waits, where the bus is away, until the service stands: torch, which takes the processor from it, is
loaded after that."""


class Mending:
    """See the module.

    Args:
        again: makes the newest checkpoint again, in a thread, and says whether it came to what it was; none when it is
            whole.
    """

    def __init__(self, again: Callable[[], bool] | None = None) -> None:
        self._again = again
        self._over = asyncio.Event()
        if again is None:
            self._over.set()

    @property
    def pending(self) -> bool:
        """Something is to be made again."""
        return not self._over.is_set()

    async def whole(self) -> None:
        """Wait until the newest checkpoint is what the journal says."""
        await self._over.wait()

    async def work(self, offload: Offload, standing: asyncio.Event) -> bool:
        """Make it again once the service stands; false when it did not come to what it was. A disk that is full is a
        ``Mistake``."""
        assert self._again is not None
        with suppress(TimeoutError):
            async with asyncio.timeout(_STANDS_FIRST_S):
                await standing.wait()
        if not await offload(self._again):
            return False
        self._over.set()
        return True


def given_up(round_number: int) -> Mistake:
    """The next start goes back to the round before."""
    return Mistake(
        f"the damaged model of round {round_number} was not made again to the same digest",
        "Start it again: it goes on from the model of the round before, and says what is lost",
        ExitCode.RESOURCE,
    )
