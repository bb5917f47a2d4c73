"""The port to whatever nodes are made of. One adapter per file, one entry in
:data:`windfall.provisioner.backends.BACKENDS`."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from windfall.provisioner.holdings import Lease, Node
from windfall.servicekit.errors import Transient


class Untried(Transient):
    """Nothing was tried: it costs a lease no attempt."""


class Outage(Untried):
    """Nobody could be asked."""


class NoRoom(Untried):
    """Somebody was asked, and there is no place for a node now.

    Args:
        why: for whoever holds the lease, and for whom it tells: no machine is named.
        machines: of each machine, a line that says why it does not do; for who runs the site.
    """

    def __init__(self, why: str, machines: Sequence[str] = ()) -> None:
        super().__init__("; ".join((why, *machines)))
        self.why = why
        self.machines = tuple(machines)


class Backend(Protocol):
    """Starts, watches and ends nodes; decides nothing. A lease has one node at a time.

    Draining, killing or awaiting a node that is gone is not an error.
    """

    @property
    def name(self) -> str:
        """What ``node.ready`` calls it."""

    def describe(self) -> str:
        """One line for a person: what ``start`` would start."""

    async def plan(self, lease: Lease, environment: Mapping[str, str]) -> Sequence[str]:
        """What ``start`` would write, one JSON object each, in this order; nothing is written. Empty where a node is
        no object of a server.

        Raises:
            Transient: the server cannot say now whether it would take them.
            Mistake: it would not take them.
        """

    async def start(self, lease: Lease, environment: Mapping[str, str]) -> Node:
        """Start the node of a lease; when it runs already, that is the one.

        A crash at any moment of it, and a cancellation, leaves nothing that :meth:`adopt` or the next ``start`` of this
        lease does not find.

        Raises:
            Untried: nobody can be asked now, or there is no room.
            Transient: the machine refuses now and may not later.
            Mistake: it will go on refusing until a person mends the cause.
        """

    async def ready(self, node: Node) -> bool:
        """Wait until the node says that it is ready (true) or is gone (false)."""

    def troubles(self, node: Node) -> AsyncIterator[str]:
        """What keeps the node from being ready, in one line with the platform's own reason, each time that it is
        another; empty once nothing does. Ends at the latest when the node is gone."""

    async def drain(self, node: Node) -> None:
        """Ask the node to finish and go; asking twice is asking once.

        Raises:
            Transient: it could not be asked.
        """

    async def kill(self, node: Node) -> None:
        """End the node now, and whatever it started.

        Raises:
            Transient: it could not be ended.
        """

    async def wait(self, node: Node) -> int | None:
        """Wait until the node is gone; its exit code, negative for a signal, none when nobody can know it."""

    async def adopt(self) -> Sequence[Node]:
        """Take over every node that this backend started in any earlier life and that still runs."""

    async def close(self) -> None:
        """Let go of every node without touching it."""
