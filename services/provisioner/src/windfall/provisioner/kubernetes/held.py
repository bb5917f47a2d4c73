"""A node of this life: what has been ordered of it, and how it is by what the watches tell."""

import asyncio
from dataclasses import dataclass, field, replace
from uuid import UUID

from windfall.provisioner.holdings import Node
from windfall.provisioner.mirror import Mirror
from windfall.provisioner.workers import End, Seen, ended, look


@dataclass
class Held:
    """See the module."""

    node: Node
    workers: int
    draining: bool = False
    end: End | None = None
    """How it ends, once it is being killed."""
    clearing: asyncio.Task[None] | None = field(default=None, repr=False)

    @property
    def killed(self) -> bool:
        return self.end is not None

    def seen(self, mirror: Mirror) -> Seen:
        lease_id = self.node.lease_id
        pods = mirror.pods(lease_id)
        seen = look(self.workers, mirror.jobs(lease_id), pods, mirror.ends(lease_id), mirror.events)
        # One that is being ended goes with its last pod, whatever its workers have said.
        alive = any(not ended(pod) for pod in pods)
        return replace(seen, gone=seen.gone and not (self.killed and alive))

    def over(self, mirror: Mirror) -> bool:
        """Whether it is gone, or what stood for it is being taken away."""
        return self.clearing is not None or self.seen(mirror).gone


HeldNodes = dict[UUID, Held]
"""By their leases."""
