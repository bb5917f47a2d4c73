"""Nodes that are machines of Cluster API: one machine of a counted set for each lease."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

from windfall.provisioner.backend import Outage
from windfall.provisioner.counted import Counted
from windfall.provisioner.counted_plan import lines
from windfall.provisioner.held import Held, Holds
from windfall.provisioner.holdings import Lease, Node
from windfall.provisioner.judgement import KILLED
from windfall.provisioner.machine_passes import Passes
from windfall.provisioner.machines import Machines
from windfall.provisioner.roster import bound
from windfall.provisioner.served_again import served_again
from windfall.provisioner.trainer import Trainer
from windfall.servicekit.errors import Transient
from windfall.servicekit.kube import Cluster, Object

log = logging.getLogger(__name__)


class LeasedMachines:
    """The :class:`~windfall.provisioner.backend.Backend` of whatever is counted.

    Args:
        site: whose leases these are.
        namespace: of the objects.
        cluster: the management cluster, not entered yet.
        counted: what the leases are counted on.
        owner: makes sure that the owner of the site's objects is there, and gives it.
        trainer: starts a lease's site-trainer in the workload cluster; none where it is there already.
    """

    def __init__(
        self,
        site: str,
        namespace: str,
        cluster: Cluster,
        counted: Counted,
        owner: Callable[[Cluster], Awaitable[Object]],
        trainer: Trainer | None = None,
    ) -> None:
        self._site = site
        self._counted = counted
        self._owner = owner
        self._trainer = trainer
        self._wake = asyncio.Event()
        self._holds = Holds()
        self._machines = Machines(site, namespace, cluster, counted, self._wake.set)
        self._passes = Passes(counted, self._machines, self._holds, trainer, self._wake)

    @property
    def name(self) -> str:
        return self._counted.platform

    def describe(self) -> str:
        return self._counted.describe()

    async def plan(self, lease: Lease, environment: Mapping[str, str]) -> Sequence[str]:
        await self._open()
        cluster = self._machines.cluster
        written = await self._counted.ensure(cluster, await self._owner(cluster), dry_run=True)
        after = self._machines.roster.joined(Node.of(lease), self._site, _wants(lease))
        return lines(written, after, self._counted.counting(after.count))

    async def start(self, lease: Lease, environment: Mapping[str, str]) -> Node:
        node = Node.of(lease)
        held = self._holds.get(node.lease_id)
        if held and not held.leaving:
            return held.node
        async with _nothing_tried():
            await self._open()
            cluster = self._machines.cluster
            async with self._passes.one_at_a_time:
                if held:
                    # An earlier attempt: its machine is not this one's.
                    held.leave(held.code, kill=True)
                    await self._passes.see_off(held, bound(node.lease_id, self._machines.all))
                owner = await self._owner(cluster)
                written = await self._counted.ensure(cluster, owner)
                self._machines.keep(written[-1])
                if self._trainer:
                    await self._trainer.keep(cluster, owner, lease, environment)
                await self._machines.join(node, _wants(lease))
                self._hold(Held(node, _wants(lease)))
        return node

    async def ready(self, node: Node) -> bool:
        held = self._holds.known(node.lease_id)
        return False if held is None else await asyncio.shield(held.ready)

    async def troubles(self, node: Node) -> AsyncIterator[str]:
        held = self._holds.get(node.lease_id)
        said = ""
        while held and not held.gone.done():
            told = held.told
            if held.trouble != said:
                said = held.trouble
                yield said
            else:
                await told.wait()

    async def drain(self, node: Node) -> None:
        held = await self._find(node)
        if held is None or held.leaving:
            return
        if self._trainer and held.trains:
            # Its end is what the machine waits for.
            return await self._trainer.drain(self._machines.cluster, node)
        if self._trainer and held.adopted and held.machines:
            # One that an earlier life has started is found first, and then asked.
            held.draining = True
            return
        if held.training:
            held.training.cancel()
        held.leave(0)
        self._wake.set()

    async def kill(self, node: Node) -> None:
        held = await self._find(node)
        if held is None:
            if self._trainer:
                # Its start ended before it was on the roster.
                await self._trainer.forget(self._machines.cluster, node)
            return
        held.leave(KILLED, kill=True)
        self._wake.set()
        if held.training:
            held.training.cancel()
        if self._trainer and (held.training or held.adopted):
            try:
                await self._trainer.kill(self._machines.cluster, node)
            except Transient as error:
                log.warning("%s: its trainer cannot be told and goes with the machine: %s", node.name, error)

    async def wait(self, node: Node) -> int | None:
        held = self._holds.known(node.lease_id)
        if held is None:
            return None
        code = await asyncio.shield(held.gone)
        self._holds.waited(held)
        return code

    async def adopt(self) -> Sequence[Node]:
        await self._open()
        await self._machines.refresh()
        for entry in self._machines.roster.entries:
            if entry.site == self._site and entry.node.lease_id not in self._holds:
                self._hold(Held(entry.node, entry.wants, entry.machines), adopted=True)
        for machine in self._machines.all:
            if machine.node and machine.node.lease_id not in self._holds:
                self._hold(Held(machine.node, 1, [machine.uid], leaving=True), adopted=True)
        if self._trainer:
            await self._trainer.forget_all_but(self._machines.cluster, self._holds.ids)
        return tuple(held.node for held in self._holds.all)

    async def close(self) -> None:
        await self._passes.close()
        self._holds.let_go()
        if self._trainer:
            await self._trainer.close()
        await self._machines.close()

    async def _open(self) -> None:
        await self._machines.open()
        if self._machines.fault:
            raise self._machines.fault
        self._passes.start()

    def _hold(self, held: Held, *, adopted: bool = False) -> None:
        held.adopted = adopted
        self._holds.add(held)
        self._wake.set()

    async def _find(self, node: Node) -> Held | None:
        """The node, also if its start was cancelled after the server had heard of it."""
        if held := self._holds.get(node.lease_id):
            return held
        await self._open()
        await self._machines.refresh()
        entry = self._machines.roster.entry(node.lease_id)
        mine = bound(node.lease_id, self._machines.all)
        if entry is None and not mine:
            return None
        found = Held(node, entry.wants, entry.machines) if entry else Held(node, 1, [mine[0].uid], leaving=True)
        self._hold(found, adopted=True)
        return found


@asynccontextmanager
async def _nothing_tried() -> AsyncIterator[None]:
    """A server that cannot be asked costs a lease no attempt."""
    try:
        with served_again():
            yield
    except Outage:
        raise
    except Transient as error:
        raise Outage(str(error), error.retry_after) from error


def _wants(lease: Lease) -> int:
    """A machine for each of its workers."""
    return lease.workers or 1
