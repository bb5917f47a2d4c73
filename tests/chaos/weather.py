"""A site's link: gRPC that is slow, and bytes that flip on their way."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, cast

from windfall.servicekit.testing.memory_rpc import MemoryChannel, MemoryServer

_BULK: Final = ("/Pull", "/Push")
_HEAD_BYTES: Final = 64
"""Longer than the head of a pull."""


@dataclass
class Weather:
    """Of one site's link.

    Attributes:
        late_s: how long each message to the coordinator takes.
        garbles: of ten messages of bulk bytes, how many have a bit flipped.
    """

    dice: random.Random
    late_s: float = 0.0
    garbles: int = 0

    def clear(self) -> None:
        self.late_s, self.garbles = 0.0, 0

    def through(self, message: bytes) -> bytes:
        """A message of bulk bytes as it arrives. What stands before the bytes is held against itself by gRPC."""
        if not self.garbles or len(message) <= _HEAD_BYTES or self.dice.random() >= self.garbles / 10:
            return message
        garbled = bytearray(message)
        garbled[self.dice.randrange(len(garbled) // 2, len(garbled))] ^= 1 << self.dice.randrange(8)
        return bytes(garbled)


class FaultyChannel(MemoryChannel):
    """A connection through such weather."""

    def __init__(self, server: MemoryServer, weather: Weather) -> None:
        super().__init__(server)
        self._weather = weather

    def _method(self, method: str, write: Any, read: Any, spread: Callable[[Any], AsyncIterator[Any]]) -> Any:
        weather = self._weather

        async def slowly(request: Any) -> AsyncIterator[Any]:
            async with aclosing(cast(Any, spread(request))) as messages:
                async for message in messages:
                    if weather.late_s:
                        await asyncio.sleep(weather.late_s)
                    yield message

        def written(message: Any) -> bytes:
            # A manifest is a message, what it tells of is bytes.
            return weather.through(message) if isinstance(message, bytes) else cast(bytes, write(message))

        if not method.endswith(_BULK):
            return super()._method(method, write, read, slowly)
        return super()._method(method, written, lambda message: read(weather.through(message)), slowly)
