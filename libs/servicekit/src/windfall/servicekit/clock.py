"""Time as services see it.

Instants and durations of the product are *business time*: the time of the energy signal. Live, that is the wall clock.
In a replay it is the trace's time at a speed-up, so that a day's windows, graces and rounds pass in seconds and
every service agrees on them. Only transport deadlines (a gRPC call, an acknowledgement) are wall time.
"""

import asyncio
import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from windfall.contracts.message import instant


class Clock(Protocol):
    """Everything that waits, waits here."""

    def now(self) -> datetime:
        """The business instant, in UTC."""

    def wall(self, duration: timedelta) -> timedelta:
        """How long a business duration lasts on the wall clock."""

    async def sleep(self, duration: timedelta) -> None:
        """Let a business duration pass; none or a negative one only yields."""

    async def sleep_until(self, at: datetime) -> None:
        """Wait for a business instant; one in the past only yields. Afterwards ``now()`` is not before it."""


@dataclass(frozen=True)
class SystemClock:
    """Business time is wall time."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def wall(self, duration: timedelta) -> timedelta:
        return duration

    async def sleep(self, duration: timedelta) -> None:
        await asyncio.sleep(max(0.0, duration.total_seconds()))

    async def sleep_until(self, at: datetime) -> None:
        await _sleep_until(self, at)


@dataclass(frozen=True)
class ReplayClock:
    """Business time is a trace's: ``trace_start`` at ``wall_start``, running ``speed`` times as fast as the wall."""

    trace_start: datetime
    wall_start: datetime
    speed: float

    def now(self) -> datetime:
        return self.trace_start + (datetime.now(UTC) - self.wall_start) * self.speed

    def wall(self, duration: timedelta) -> timedelta:
        return duration / self.speed

    async def sleep(self, duration: timedelta) -> None:
        await asyncio.sleep(max(0.0, self.wall(duration).total_seconds()))

    async def sleep_until(self, at: datetime) -> None:
        await _sleep_until(self, at)

    def __str__(self) -> str:
        return f"replay:{self.trace_start.isoformat()}@{self.wall_start.isoformat()}x{self.speed!r}"


@dataclass(frozen=True)
class LoopClock:
    """Business time is the event loop's own: on a virtual loop a day passes in seconds, the same way every time."""

    start: datetime

    def now(self) -> datetime:
        return _after(self.start, asyncio.get_running_loop().time())

    def wall(self, duration: timedelta) -> timedelta:
        return duration

    async def sleep(self, duration: timedelta) -> None:
        await asyncio.sleep(max(0.0, duration.total_seconds()))

    async def sleep_until(self, at: datetime) -> None:
        await _sleep_until(self, at)


@lru_cache(maxsize=64)
def _after(start: datetime, seconds: float) -> datetime:
    """Many look at a virtual clock before it moves on."""
    return start + timedelta(seconds=round(seconds, 6))


async def _sleep_until(clock: Clock, at: datetime) -> None:
    # Timers may fire a moment early, and the wall clock may be set back under a long one.
    await clock.sleep(at - clock.now())
    while (left := at - clock.now()) > timedelta():
        await clock.sleep(left)


_FILE = "file:"
_REPLAY = re.compile(r"^replay:(?P<trace>[^@]+)@(?P<wall>[^@]+)x(?P<speed>[0-9.]+(?:e[+-]?[0-9]+)?)$")


def parse_clock(text: str) -> SystemClock | ReplayClock:
    """Read a clock from a setting: ``system``, ``replay:<trace instant>@<wall instant>x<speed>``, or ``file:<path>`` of
    a file that holds one of these.

    Raises:
        ValueError: not one of these, a file that cannot be read, an instant without a zone, or a speed that is not
            positive.
    """
    if text.startswith(_FILE):
        try:
            text = Path(text.removeprefix(_FILE)).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ValueError(f"{text!r} cannot be read ({error.strerror})") from error
    if text == "system":
        return SystemClock()
    match = _REPLAY.match(text)
    if match is None:
        raise ValueError(f"{text!r} is neither 'system' nor 'replay:<trace instant>@<wall instant>x<speed>'")
    speed = float(match["speed"])
    if not 0 < speed < math.inf:
        raise ValueError(f"the speed in {text!r} must be over 0 and finite")
    return ReplayClock(instant(match["trace"]), instant(match["wall"]), speed)
