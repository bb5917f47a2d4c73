"""Which of several processes may work: the one that holds the lease.

The lease is one entry of a register with compare-and-set. Its leader renews it, which gives the entry a new revision.
Who stands by reads it over and over, and takes it when it has seen the same revision for longer than the lease lasts,
on its own monotonic clock: no two clocks are compared, and while the register cannot be read nothing runs out. Each
time that it is taken its token grows. What makes a takeover safe is the journal, which knows the highest token and
refuses every other: a leader that slept through its lease cannot commit (``Journal.fence``). The idea of the lease is
from Gray and Cheriton, "Leases" (SOSP 1989).

A leader that cannot reach the register goes on: nobody can take over through a register that is away, and if it is away
from the leader alone, the journal decides.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

from windfall.servicekit.errors import Transient, deposed

log = logging.getLogger(__name__)

_RENEWALS: Final = 3
"""How often a lease is renewed before it would run out."""
_LOOKS: Final = 10
"""How often one who stands by looks in the time that a lease lasts."""


@dataclass(frozen=True)
class Lease:
    """Who leads."""

    holder: str
    """Name of a process, different for every start; empty when it was given back."""
    token: int
    """Fencing token: higher with every leader."""


@dataclass(frozen=True)
class Entry:
    """A lease as it stands in the register."""

    lease: Lease
    revision: int


class Conflict(Exception):
    """Somebody else has written meanwhile."""


class Register(Protocol):
    """One entry that survives, with compare-and-set."""

    async def read(self) -> Entry | None:
        """What stands there; none when nothing does, or everything was lost.

        An older entry than the newest may be given: whoever acts on it meets ``Conflict``.

        Raises:
            Transient: it cannot be read.
        """

    async def write(self, lease: Lease, over: int | None) -> int:
        """Put a lease in the place of the entry with that revision, or of none; gives the new revision.

        Raises:
            Conflict: something else stands there.
            Transient: whether it was written is not known.
        """

    async def close(self) -> None:
        """Let go of the register, not of the lease."""


@dataclass(frozen=True)
class Sight:
    """What one who stands by has seen, and since when, in seconds of its own monotonic clock."""

    entry: Entry | None
    since_s: float


def seen(before: Sight | None, entry: Entry | None, now_s: float) -> Sight:
    """The register was read."""
    if before is not None and before.entry == entry:
        return before
    return Sight(entry, now_s)


def free(sight: Sight, now_s: float, lease_s: float) -> bool:
    """Whether the lease may be taken: nobody holds it, or its holder has not renewed it for all that time."""
    return sight.entry is None or not sight.entry.lease.holder or now_s - sight.since_s > lease_s


class Leadership:
    """One process's part in it.

    Args:
        register: where the lease stands.
        holder: name of this process and no other, ever.
        lease: wall time.
    """

    def __init__(self, register: Register, holder: str, lease: timedelta) -> None:
        self._register = register
        self._holder = holder
        self._lease_s = lease.total_seconds()
        self._revision = 0
        self._away = False
        self.token = 0
        """Ours, once we lead."""

    async def lead(self, standing_by: Callable[[str], None] = lambda holder: None) -> int:
        """Return when this process leads, with its token.

        Args:
            standing_by: told who leads, each time that it is somebody else than before.
        """
        sight: Sight | None = None
        told: str | None = None
        while True:
            try:
                sight = seen(sight, await self._register.read(), _now())
                self._back()
                if free(sight, _now(), self._lease_s):
                    await self._take(sight.entry)
                    return self.token
                if sight.entry is not None and sight.entry.lease.holder != told:
                    told = sight.entry.lease.holder
                    standing_by(told)
            except Conflict:
                # Another one that stood by was faster; or it was us, and the answer was lost: then it runs out.
                pass
            except Transient as error:
                # Nobody could renew what could not be read: begin to count anew.
                sight = None
                self._gone(error)
            await asyncio.sleep(self._lease_s / _LOOKS)

    async def outbid(self, token: int) -> int:
        """The journal has seen that token already (the register was lost): take a higher one.

        Raises:
            Mistake: another process has the lease.
        """
        while self.token <= token:
            try:
                await self._renew(Lease(self._holder, token + 1))
            except Transient as error:
                self._gone(error)
                await asyncio.sleep(self._lease_s / _LOOKS)
        return self.token

    async def keep(self) -> None:
        """Renew the lease for ever.

        Raises:
            Mistake: another process has it.
        """
        while True:
            try:
                await self._renew(Lease(self._holder, self.token))
                self._back()
            except Transient as error:
                self._gone(error)
            await asyncio.sleep(self._lease_s / _RENEWALS)

    async def release(self) -> None:
        """Give the lease back, so that nobody waits for it to run out. If that fails, it runs out."""
        try:
            await self._register.write(Lease("", self.token), self._revision)
        except Conflict:
            log.debug("the lease is another's already")
        except Transient as error:
            log.info("the lease runs out by itself: %s", error)

    async def _take(self, entry: Entry | None) -> None:
        lease = Lease(self._holder, 1 if entry is None else entry.lease.token + 1)
        self._revision = await self._register.write(lease, None if entry is None else entry.revision)
        self.token = lease.token

    async def _renew(self, lease: Lease) -> None:
        try:
            self._revision = await self._register.write(lease, self._revision)
        except Conflict:
            entry = await self._register.read()
            if entry is None:
                log.warning("the register has lost the lease: writing it again")
                self._revision = await self._written_anew(lease)
            elif entry.lease.holder == self._holder:
                # An answer was lost: what we asked for was done. Ours it is, and the next renewal goes on from here.
                self._revision, lease = entry.revision, entry.lease
            else:
                raise deposed() from None
        self.token = lease.token

    async def _written_anew(self, lease: Lease) -> int:
        try:
            return await self._register.write(lease, None)
        except Conflict:
            raise deposed() from None

    def _gone(self, error: Transient) -> None:
        # Loud once: it is tried again several times a second.
        log.log(logging.DEBUG if self._away else logging.WARNING, "the lease cannot be seen: %s", error)
        self._away = True

    def _back(self) -> None:
        if self._away:
            log.info("the lease can be seen again")
        self._away = False


def _now() -> float:
    return asyncio.get_running_loop().time()
