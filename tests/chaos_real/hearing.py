"""What a fleet of real processes says, as its hub has it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from windfall.cli.fleet import Plan
from windfall.cli.server import connection, letters
from windfall.contracts.envelope import Unreadable, unseal
from windfall.contracts.message import Message
from windfall.contracts.subjects import EVENTS_STREAM

M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Heard:
    """A sentence, and when it arrived here."""

    message: Message
    at: datetime


class Hearing:
    """Hears a hub, and remembers all of it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.heard: dict[UUID, Heard] = {}
        """Everything that the hub has ever had in its stream, by id, as it came."""
        self._came = asyncio.Event()

    async def listen(self) -> None:
        """Hear the hub, for ever; a server that comes back empty is heard from its beginning again."""
        async with connection(self.plan.hub_url) as hub:
            async for stored in letters(hub, EVENTS_STREAM):
                with suppress(Unreadable):
                    message = unseal(stored.letter)
                    if message.id not in self.heard:
                        self.heard[message.id] = Heard(message, datetime.now(UTC))
                        self._came.set()

    def said(self, kind: type[M]) -> list[M]:
        """Everything of a kind so far, as it came."""
        return [one.message for one in self.heard.values() if isinstance(one.message, kind)]

    async def until(
        self, kind: type[M], since: datetime, fine: Callable[[M], bool] = lambda _: True, within_s: float = 120.0
    ) -> M:
        """Wait for the first sentence of a kind that was said, by its own time, after this instant of the wall.

        Raises:
            TimeoutError: none came in time.
        """
        try:
            async with asyncio.timeout(within_s):
                while True:
                    self._came.clear()
                    for message in self.said(kind):
                        if self.wall(message) > since and fine(message):
                            return message
                    await self._came.wait()
        except TimeoutError:
            raise TimeoutError(f"no {kind.topic} as it is waited for, in {within_s:.0f} s") from None

    async def news(self) -> None:
        """Wait for the next sentence that was not heard before."""
        self._came.clear()
        await self._came.wait()

    def wall(self, message: Message) -> datetime:
        """When something was said, on the wall."""
        clock = self.plan.clock
        return clock.wall_start + (message.at - clock.trace_start) / clock.speed
