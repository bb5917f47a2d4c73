"""What a machine adds: a clock that somebody sets, and files that rot."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from windfall.servicekit.clock import Clock


@dataclass
class MachineClock:
    """As a machine's clock: ``off`` is how far it is from the true one, and may change under whoever sleeps."""

    true: Clock
    off: timedelta = timedelta()

    def now(self) -> datetime:
        return self.true.now() + self.off

    def wall(self, duration: timedelta) -> timedelta:
        return duration

    async def sleep(self, duration: timedelta) -> None:
        await self.true.sleep(duration)

    async def sleep_until(self, at: datetime) -> None:
        await self.sleep(at - self.now())
        while (left := at - self.now()) > timedelta():
            await self.sleep(left)


def rot(folder: Path, dice: random.Random) -> bool:
    """Flip a bit in one of a folder's files; false where none has a byte."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    if not files:
        return False
    path = dice.choice(files)
    data = bytearray(path.read_bytes())
    data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    # A file of its own: another name of the same contents lies elsewhere on a real disk.
    path.unlink()
    path.write_bytes(data)
    return True
