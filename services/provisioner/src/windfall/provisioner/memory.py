"""Nodes that are tasks of this event loop: a fleet in one process, on virtual time.

It outlives the provisioner that uses it, as processes do: give the next one the same object.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from windfall.provisioner.holdings import Lease, Node

KILLED = -9


@dataclass(frozen=True)
class Life:
    """What a node is born with."""

    node: Node
    environment: Mapping[str, str]
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    """The node sets it when it is ready."""
    drain: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the node is asked to finish and go."""


class MemoryBackend:
    """One task per lease.

    Args:
        live: what a node does; its result is the exit code. A kill cancels it.
    """

    name = "memory"

    def __init__(self, live: Callable[[Life], Awaitable[int]]) -> None:
        self._live = live
        self._nodes: dict[UUID, tuple[Life, asyncio.Task[int]]] = {}

    def describe(self) -> str:
        return "one task of this process"

    async def plan(self, lease: Lease, environment: Mapping[str, str]) -> Sequence[str]:
        return ()

    async def start(self, lease: Lease, environment: Mapping[str, str]) -> Node:
        if running := self._running(lease.lease_id):
            return running[0].node
        node = Node.of(lease)
        life = Life(node, {**environment, **node.environment})
        task = asyncio.create_task(self._run(life), name=node.name)
        self._nodes[lease.lease_id] = (life, task)
        return node

    async def ready(self, node: Node) -> bool:
        if node.lease_id not in self._nodes:
            return False
        life, task = self._nodes[node.lease_id]
        readiness = asyncio.create_task(life.ready.wait())
        try:
            await asyncio.wait({readiness, task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            readiness.cancel()
        return life.ready.is_set()

    async def troubles(self, node: Node) -> AsyncIterator[str]:
        """None that it could know of."""
        return
        yield ""

    async def drain(self, node: Node) -> None:
        if running := self._running(node.lease_id):
            running[0].drain.set()

    async def kill(self, node: Node) -> None:
        if running := self._running(node.lease_id):
            running[1].cancel()

    async def wait(self, node: Node) -> int | None:
        if node.lease_id not in self._nodes:
            return None
        held = self._nodes[node.lease_id]
        await asyncio.wait({held[1]})
        if self._nodes.get(node.lease_id) is held:
            del self._nodes[node.lease_id]
        return KILLED if held[1].cancelled() else held[1].result()

    async def adopt(self) -> Sequence[Node]:
        return tuple(life.node for life, task in self._nodes.values() if not task.done())

    async def close(self) -> None:
        """Nodes go on; end them with :meth:`kill`."""

    def _running(self, lease_id: UUID) -> tuple[Life, asyncio.Task[int]] | None:
        held = self._nodes.get(lease_id)
        return held if held and not held[1].done() else None

    async def _run(self, life: Life) -> int:
        return await self._live(life)
