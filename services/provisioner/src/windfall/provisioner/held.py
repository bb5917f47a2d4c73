"""The leases that a backend of machines holds, and what each of them waits for."""

import asyncio
from collections.abc import Sequence
from uuid import UUID

from windfall.provisioner.holdings import Node


class Held:
    """A lease's node, and what will come of it."""

    def __init__(self, node: Node, wants: int, machines: Sequence[str] = (), leaving: bool = False) -> None:
        loop = asyncio.get_running_loop()
        self.node = node
        self.wants = wants
        """How many machines."""
        self.machines = list(machines)
        """Uids of those that the roster gives it."""
        self.leaving = leaving
        self.killed = False
        self.ended = False
        self.code: int | None = None
        """What the node will have ended with."""
        self.ready: asyncio.Future[bool] = loop.create_future()
        self.gone: asyncio.Future[int | None] = loop.create_future()
        self.adopted = False
        """An earlier life has started it."""
        self.draining = False
        """Its trainer is to be asked to go, once it is found."""
        self.training: asyncio.Task[None] | None = None
        self.trains = False
        """Its trainer has been started."""
        self.trouble = ""
        self.told = asyncio.Event()
        """Set once the trouble is another one, or there is nothing more to tell."""

    def leave(self, code: int | None, *, kill: bool = False, ended: bool = False) -> None:
        """It is on its way out. A kill overrides a drain, but not what the trainer has ``ended`` with."""
        if not self.ended and (ended or not self.leaving or (kill and not self.killed)):
            self.code = code
        self.leaving = True
        self.killed = self.killed or kill
        self.ended = self.ended or ended

    def say(self, trouble: str) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            told, self.told = self.told, asyncio.Event()
            told.set()

    def is_ready(self) -> None:
        self.say("")
        if not self.ready.done():
            self.ready.set_result(True)

    def end(self, fault: BaseException | None = None) -> None:
        if self.training:
            self.training.cancel()
        for future, result in ((self.gone, self.code), (self.ready, False)):
            if future.done():
                continue
            if fault is None:
                future.set_result(result)  # type: ignore[arg-type]
            else:
                future.set_exception(fault)
                # Whoever waits hears of it, and so does whoever asks next; nobody has to.
                future.exception()
        self.told.set()


class Holds:
    """All of them, by lease; and those that are over, for which nobody has waited yet."""

    def __init__(self) -> None:
        self._held: dict[UUID, Held] = {}
        self._over: dict[UUID, Held] = {}

    def __contains__(self, lease_id: UUID) -> bool:
        return lease_id in self._held

    @property
    def all(self) -> tuple[Held, ...]:
        return tuple(self._held.values())

    @property
    def ids(self) -> frozenset[UUID]:
        return frozenset(self._held)

    def get(self, lease_id: UUID) -> Held | None:
        return self._held.get(lease_id)

    def known(self, lease_id: UUID) -> Held | None:
        """Also if it is over."""
        return self._held.get(lease_id) or self._over.get(lease_id)

    def add(self, held: Held) -> None:
        self._over.pop(held.node.lease_id, None)
        self._held[held.node.lease_id] = held

    def over(self, held: Held) -> None:
        """Nothing of it is left; a later attempt of the same lease stays."""
        if self._held.get(held.node.lease_id) is held:
            del self._held[held.node.lease_id]
            self._over[held.node.lease_id] = held

    def waited(self, held: Held) -> None:
        """Somebody has heard its end."""
        if self._over.get(held.node.lease_id) is held:
            del self._over[held.node.lease_id]

    def give_up(self, fault: BaseException | None) -> None:
        """Nobody looks after them any more: whoever waits for one hears why."""
        for held in self._held.values():
            held.end(fault)
        self._held.clear()

    def let_go(self) -> None:
        """Without touching what they hold."""
        for held in self._held.values():
            held.gone.cancel()
            held.ready.cancel()
        self._held.clear()
        self._over.clear()
