"""A double of the register that ships: several leaders in one process, on virtual time if need be."""

from dataclasses import dataclass, field

from windfall.servicekit.errors import Transient
from windfall.servicekit.leadership import Conflict, Entry, Lease


@dataclass
class MemoryStore:
    """What stands behind the registers of all processes."""

    entry: Entry | None = None
    down: bool = False
    """Nobody answers."""
    forgets_answers: bool = False
    """What is asked for is done, and nobody hears of it."""
    revisions: int = 0

    def lose(self) -> None:
        """Everything that stood there is gone."""
        self.entry = None


@dataclass
class MemoryRegister:
    """See :class:`windfall.servicekit.leadership.Register`."""

    store: MemoryStore = field(default_factory=MemoryStore)

    async def read(self) -> Entry | None:
        self._answered()
        return self.store.entry

    async def write(self, lease: Lease, over: int | None) -> int:
        self._answered()
        stands = None if self.store.entry is None else self.store.entry.revision
        if stands != over:
            raise Conflict(f"revision {stands} stands there, not {over}")
        self.store.revisions += 1
        self.store.entry = Entry(lease, self.store.revisions)
        if self.store.forgets_answers:
            raise Transient("the answer was lost")
        return self.store.revisions

    async def close(self) -> None:
        """Nothing is held."""

    def _answered(self) -> None:
        if self.store.down:
            raise Transient("the register is away")
