"""The port to a lease's site-trainer inside the cluster that its machine joins."""

from collections.abc import Collection, Mapping
from typing import Protocol
from uuid import UUID

from windfall.provisioner.holdings import Lease, Node
from windfall.servicekit.kube import Cluster, Object


class Trainer(Protocol):
    """Starts, watches and ends site-trainers in a workload cluster, which may not be there yet."""

    async def keep(self, cluster: Cluster, owner: Object, lease: Lease, environment: Mapping[str, str]) -> None:
        """Keep what :meth:`run` will need, in the management cluster: it may be called in another life."""

    async def forget(self, cluster: Cluster, node: Node) -> None:
        """The lease is over: nothing of it stays."""

    async def forget_all_but(self, cluster: Cluster, leases: Collection[UUID]) -> None:
        """No other lease of the site is held: what a life that ended too early has kept for one goes."""

    async def run(self, cluster: Cluster, node: Node) -> None:
        """Start it, once the machine has joined; when it runs already, nothing.

        Raises:
            Transient: the workload cluster cannot be asked now.
            Mistake: it will go on refusing.
        """

    async def ready(self, node: Node) -> bool:
        """Wait until it is ready (true) or gone (false)."""

    async def wait(self, node: Node) -> int | None:
        """Wait until it is gone; its exit code."""

    async def drain(self, cluster: Cluster, node: Node) -> None:
        """Ask it to finish and go."""

    async def kill(self, cluster: Cluster, node: Node) -> None:
        """End it now."""

    async def close(self) -> None:
        """Let go of everything."""
