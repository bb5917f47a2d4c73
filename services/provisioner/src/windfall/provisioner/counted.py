"""The port to whatever says how many machines there are: a MachineDeployment, or a ClusterDeployment."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from windfall.provisioner.machine import Machine
from windfall.servicekit.kube import Cluster, Kind, Object

Beside = Mapping[Kind, Mapping[str, Object]]
"""What of the platform's own objects is followed beside the machines, by kind and name."""


class Counted(Protocol):
    """Knows the object that leases are counted on, and what must be there before it. One adapter per platform."""

    @property
    def platform(self) -> str:
        """What ``node.ready`` calls it."""

    @property
    def cluster_name(self) -> str:
        """Of the cluster that the machines join, in Cluster API's words."""

    @property
    def name(self) -> str:
        """Of the object."""

    def describe(self) -> str:
        """One line for a person: what a lease holds."""

    async def prepare(self, cluster: Cluster) -> tuple[Kind, Kind]:
        """The kinds of the object and of its machines, in the version that this server is spoken to in.

        Raises:
            Transient: the server cannot say now.
            Mistake: it serves none that fits.
        """

    def machine_labels(self) -> str:
        """The selector of its machines."""

    def beside(self) -> Mapping[Kind, str]:
        """What else is followed, and the selector of each; once prepared."""

    def explained(self, machine: Machine, beside: Beside) -> Machine:
        """The same machine, with what the platform's own objects know of why it is not ready or has failed."""

    async def tend(self, cluster: Cluster, machines: Sequence[Machine], beside: Beside) -> None:
        """Write what of the platform's own objects should be otherwise.

        Raises:
            Transient: the server refuses now.
        """

    async def ensure(self, cluster: Cluster, owner: Object, *, dry_run: bool = False) -> Sequence[Object]:
        """Write whatever must be there, as far as it is not so already; the object itself is the last.

        Args:
            cluster: the management cluster.
            owner: of what is written.
            dry_run: the server checks it all and keeps nothing.

        Raises:
            Outage: it cannot be had now, and waiting costs no attempt: paused, or still being deleted.
            Transient: the server refuses now.
            Mistake: a person must mend it: not ours, not valid.
        """

    def count(self, found: Object) -> int | None:
        """How many machines the object asks for; none when it does not say."""

    def counting(self, count: int) -> Object:
        """The patch of its spec that asks for so many."""

    def hindrance(self, found: Object) -> str:
        """What keeps it from having its machines, for a person; empty while nothing does that it knows of."""

    async def idle(self, cluster: Cluster, found: Object) -> None:
        """No lease is left on it."""
