"""Journals and buses that fail when they are told to, and who is struck."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from windfall.contracts.envelope import MESSAGE_ID, Letter
from windfall.contracts.subjects import StreamSpec
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.journal import Journal
from windfall.servicekit.testing.memory_bus import MemoryBus, MemoryDomain


class Crashed(BaseException):
    """The process is gone: no handler of the product may catch it."""


@dataclass
class Doom:
    """What is about to happen to one service.

    Attributes:
        dead: nothing that this process still tries is done.
        before: commits until it dies ahead of one; none while it does not.
        after: commits until it dies behind one.
        awaits: steps of its tasks until it dies ahead of one.
        full: its disk has no room.
        said: chances in ten, by kind, for what it says.
        died: told when it has.
    """

    died: Callable[[], None]
    dead: bool = False
    before: int | None = None
    after: int | None = None
    awaits: int | None = None
    full: bool = False
    said: dict[str, int] = field(default_factory=dict)

    def die(self) -> None:
        """End it here.

        Raises:
            Crashed: always.
        """
        self.dead = True
        self.before = self.after = self.awaits = None
        self.died()
        raise Crashed

    def alive(self) -> None:
        if self.dead:
            raise Crashed

    def spare(self) -> None:
        """Nothing is about to happen to it any more."""
        self.before = self.after = self.awaits = None
        self.full = False
        self.said.clear()


class MortalJournal(Journal):
    """A journal in memory, which outlives its service."""

    def __init__(self, source: str, doom: Doom) -> None:
        super().__init__(None, source)
        self._doom = doom

    def commit(self, **kept: Any) -> None:
        doom = self._doom
        doom.alive()
        if doom.full:
            raise Mistake("the disk is full", "Free space and start again", ExitCode.DISK_FULL)
        if doom.before is not None:
            doom.before -= 1
            if doom.before <= 0:
                doom.die()
        super().commit(**kept)
        if doom.after is not None:
            doom.after -= 1
            if doom.after <= 0:
                doom.die()

    def mark_said(self, positions: Sequence[int]) -> None:
        self._doom.alive()
        super().mark_said(positions)

    def unsay_all(self) -> int:
        self._doom.alive()
        return super().unsay_all()

    def close(self) -> None:
        """Kept for the next process."""


class FaultyBus(MemoryBus):
    """A bus whose words get lost, late or doubled on their way."""

    def __init__(
        self,
        domain: MemoryDomain,
        service: str,
        streams: Sequence[StreamSpec],
        fail: Callable[[Mistake], None],
        lost: Callable[[], None],
        doom: Doom,
        dice: random.Random,
    ) -> None:
        super().__init__(domain, service, streams, fail, lost)
        self._doom = doom
        self._dice = dice

    async def publish(self, letter: Letter) -> None:
        self._doom.alive()
        happens = {kind for kind, chance in self._doom.said.items() if self._dice.random() < chance / 10}
        if "loss" in happens:
            raise Transient("lost on its way")
        if "delay" in happens:
            await asyncio.sleep(60)
            self._doom.alive()
        await super().publish(letter)
        if "duplicates" in happens:
            await super().publish(Letter(letter.subject, _without_id(letter.headers), letter.body))
        if "ack lost" in happens:
            raise Transient("stored, and not acknowledged")


def _without_id(headers: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key != MESSAGE_ID}
