"""Nodes that are machines of Cluster API: one machine of a counted set for each lease.

Level-triggered: every change and every order sets off one pass over all leases, and a pass writes only where what is
there differs from what should be. So it does not matter at which line an earlier life ended, nor how often an order is
given. A machine leaves in this order, each step of which may be repeated:

    1. it is marked to go first and, when it is killed, to go without being drained;
    2. its lease leaves the roster, and the count falls with it;
    3. when it is killed, and nobody has taken it yet, it is deleted by its uid;
    4. its finalizers run, however long, and then the node is gone.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from windfall.provisioner.backend import Outage
from windfall.provisioner.counted import Counted
from windfall.provisioner.holdings import Lease, Node
from windfall.provisioner.machine import Machine
from windfall.provisioner.machines import Machines
from windfall.provisioner.roster import bound, free
from windfall.provisioner.trainer import Trainer
from windfall.servicekit.bus import back_off
from windfall.servicekit.errors import Mistake, Transient
from windfall.servicekit.kube import Cluster, Conflict, Object

log = logging.getLogger(__name__)

KILLED: Final = -9
FAILED: Final = 1
"""Exit code of a node whose machine failed."""


class _Held:
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
        self._held: dict[UUID, _Held] = {}
        self._over: dict[UUID, _Held] = {}
        """Nodes that are gone, and for which nobody has waited yet."""
        self._wake = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()
        self._machines = Machines(site, namespace, cluster, counted, self._wake.set)
        self._passing: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return self._counted.platform

    def describe(self) -> str:
        return self._counted.describe()

    # --- the port -----------------------------------------------------------------------------------------------------

    async def plan(self, lease: Lease, environment: Mapping[str, str]) -> Sequence[str]:
        await self._open()
        cluster = self._machines.cluster
        written = await self._counted.ensure(cluster, await self._owner(cluster), dry_run=True)
        *before, counted = [_plain(found) for found in written]
        after = self._machines.roster.joined(Node.of(lease), self._site, _wants(lease))
        counted["metadata"].setdefault("annotations", {}).update(after.annotation())
        _merge(counted["spec"], self._counted.counting(after.count))
        return tuple(json.dumps(found, sort_keys=True) for found in (*before, counted))

    async def start(self, lease: Lease, environment: Mapping[str, str]) -> Node:
        node = Node.of(lease)
        held = self._held.get(node.lease_id)
        if held and not held.leaving:
            return held.node
        async with _nothing_tried():
            await self._open()
            cluster = self._machines.cluster
            async with self._one_at_a_time:
                if held:
                    # An earlier attempt: its machine is not this one's.
                    held.leave(held.code, kill=True)
                    await self._see_off(held, bound(node.lease_id, self._machines.all))
                owner = await self._owner(cluster)
                written = await self._counted.ensure(cluster, owner)
                self._machines.keep(written[-1])
                if self._trainer:
                    await self._trainer.keep(cluster, owner, lease, environment)
                await self._machines.join(node, _wants(lease))
                self._hold(_Held(node, _wants(lease)))
        return node

    async def ready(self, node: Node) -> bool:
        held = self._held.get(node.lease_id) or self._over.get(node.lease_id)
        return False if held is None else await asyncio.shield(held.ready)

    async def troubles(self, node: Node) -> AsyncIterator[str]:
        held = self._held.get(node.lease_id)
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
        held = self._held.get(node.lease_id) or self._over.get(node.lease_id)
        if held is None:
            return None
        code = await asyncio.shield(held.gone)
        if self._over.get(node.lease_id) is held:
            del self._over[node.lease_id]
        return code

    async def adopt(self) -> Sequence[Node]:
        await self._open()
        await self._machines.refresh()
        for entry in self._machines.roster.entries:
            if entry.site == self._site and entry.node.lease_id not in self._held:
                self._hold(_Held(entry.node, entry.wants, entry.machines), adopted=True)
        for machine in self._machines.all:
            if machine.node and machine.node.lease_id not in self._held:
                self._hold(_Held(machine.node, 1, [machine.uid], leaving=True), adopted=True)
        if self._trainer:
            await self._trainer.forget_all_but(self._machines.cluster, self._held)
        return tuple(held.node for held in self._held.values())

    async def close(self) -> None:
        tasks = [held.training for held in self._held.values() if held.training]
        tasks += [self._passing] if self._passing else []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._passing = None
        for held in self._held.values():
            held.gone.cancel()
            held.ready.cancel()
        self._held.clear()
        self._over.clear()
        if self._trainer:
            await self._trainer.close()
        await self._machines.close()

    async def _open(self) -> None:
        await self._machines.open()
        if self._machines.fault:
            raise self._machines.fault
        if self._passing is None:
            self._passing = asyncio.create_task(self._pass_for_ever(), name=f"leases of {self._counted.name}")
            self._passing.add_done_callback(self._gave_up)

    def _hold(self, held: _Held, *, adopted: bool = False) -> None:
        held.adopted = adopted
        self._over.pop(held.node.lease_id, None)
        self._held[held.node.lease_id] = held
        self._wake.set()

    async def _find(self, node: Node) -> _Held | None:
        """The node, also if its start was cancelled after the server had heard of it."""
        if held := self._held.get(node.lease_id):
            return held
        await self._open()
        await self._machines.refresh()
        entry = self._machines.roster.entry(node.lease_id)
        mine = bound(node.lease_id, self._machines.all)
        if entry is None and not mine:
            return None
        found = _Held(node, entry.wants, entry.machines) if entry else _Held(node, 1, [mine[0].uid], leaving=True)
        self._hold(found, adopted=True)
        return self._held[node.lease_id]

    # --- the passes ---------------------------------------------------------------------------------------------------

    async def _pass_for_ever(self) -> None:
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._machines.fault:
                raise self._machines.fault
            try:
                async with self._one_at_a_time:
                    if failures:
                        await self._machines.refresh()
                    await self._pass()
                failures = 0
            except Transient as error:
                failures += 1
                # A conflict is no failure: somebody else has got on.
                pause = error.retry_after or back_off(1 if isinstance(error, Conflict) else failures)
                log.info("leases of %s: again in %.2f s: %s", self._counted.name, pause.total_seconds(), error)
                await asyncio.sleep(pause.total_seconds())
                self._wake.set()

    async def _pass(self) -> None:
        for held in list(self._held.values()):
            await self._settle(held)
        if self._held or self._machines.roster.entries:
            staying = sum(not machine.leaving for machine in self._machines.all)
            await self._offer(max(self._machines.surplus, staying - self._machines.roster.count))
            await self._machines.recount()

    async def _offer(self, count: int) -> None:
        """Let machines that are nobody's go first, so that it is not somebody's that goes when the count falls."""
        if count > 0:
            for machine in free(self._machines.all, self._machines.roster)[-count:]:
                await self._machines.mark(machine, 0, kill=False)

    async def _settle(self, held: _Held) -> None:
        machines = self._machines.all
        mine = bound(held.node.lease_id, machines)
        if held.leaving:
            return await self._see_off(held, mine)
        entry = self._machines.roster.entry(held.node.lease_id)
        if entry is None:
            await self._machines.refresh()
            entry = self._machines.roster.entry(held.node.lease_id)
            if entry is None:
                log.warning("%s is on the roster no more", held.node.name)
                held.leave(None)
                return await self._see_off(held, bound(held.node.lease_id, self._machines.all))
        for machine in self._fit(held, mine)[: held.wants - len(held.machines)]:
            await self._machines.give(held.node, machine)
            held.machines.append(machine.uid)
        mine = bound(held.node.lease_id, self._machines.all)
        if len(held.machines) < held.wants:
            found = self._machines.object
            waits = (
                "it waits for a machine" if held.wants == 1 else f"has {len(held.machines)} of {held.wants} machines"
            )
            held.say((found and self._counted.hindrance(found)) or waits)
        self._judge(held, mine)
        if held.leaving:
            await self._see_off(held, mine)

    def _fit(self, held: _Held, mine: Sequence[Machine]) -> list[Machine]:
        """Machines that may be given to a lease: first those that are in its name already, by an earlier life."""
        named = [machine for machine in mine if not machine.leaving and machine.uid not in held.machines]
        return [*named, *free(self._machines.all, self._machines.roster)]

    def _judge(self, held: _Held, mine: Sequence[Machine]) -> None:
        there = {machine.uid: machine for machine in mine}
        theirs = [there[uid] for uid in held.machines if uid in there]
        failed = next((machine.failure for machine in theirs if machine.failure is not None), None)
        unready = next((machine for machine in theirs if not machine.ready), None)
        if failed is not None:
            held.say(failed)
            held.leave(FAILED, kill=True)
        elif len(theirs) < len(held.machines):
            held.say("its machine is gone")
            held.leave(None, kill=True)
        elif any(machine.leaving for machine in theirs):
            held.say("its machine is being deleted")
            held.leave(None)
        elif unready is not None:
            held.say(unready.waits_for)
        elif len(held.machines) < held.wants:
            return
        elif self._trainer is None:
            self._is_ready(held)
        elif held.training is None:
            held.training = asyncio.create_task(self._train(held), name=f"trainer of {held.node.name}")

    async def _see_off(self, held: _Held, mine: Sequence[Machine]) -> None:
        if not mine and self._machines.roster.entry(held.node.lease_id):
            await self._offer(held.wants)
        for machine in mine:
            await self._machines.mark(machine, held.node.token, kill=held.killed)
        await self._machines.leave(held.node.lease_id)
        for machine in mine:
            if held.killed and not machine.leaving:
                await self._machines.delete(machine)
        if mine:
            # Why it failed is what a person wants to know to the end.
            if held.code in (0, KILLED):
                held.say(mine[0].leaves)
            return
        cluster = self._machines.cluster
        if self._trainer:
            await self._trainer.forget(cluster, held.node)
        if self._held.get(held.node.lease_id) is held:
            del self._held[held.node.lease_id]
            self._over[held.node.lease_id] = held
        found = self._machines.object
        if found and not self._held and not self._machines.roster.entries:
            await self._counted.idle(cluster, found)
        held.end()

    def _is_ready(self, held: _Held) -> None:
        held.say("")
        if not held.ready.done():
            held.ready.set_result(True)

    def _gave_up(self, passing: asyncio.Task[None]) -> None:
        """Nobody looks after the leases any more: whoever waits for one hears why, and so does whoever asks next."""
        if passing.cancelled():
            return
        self._machines.fault = fault = passing.exception()
        for held in self._held.values():
            held.end(fault)
        self._held.clear()

    # --- the trainer --------------------------------------------------------------------------------------------------

    async def _train(self, held: _Held) -> None:
        try:
            held.leave(await self._trained_to_the_end(held), ended=True)
        except Mistake as mistake:
            log.error("%s: %s", held.node.name, mistake)
            held.say(str(mistake))
            held.leave(FAILED, ended=True)
        self._wake.set()

    async def _trained_to_the_end(self, held: _Held) -> int | None:
        assert self._trainer is not None
        failures = 0
        while True:
            try:
                await self._trainer.run(self._machines.cluster, held.node)
                held.trains = True
                if held.draining:
                    await self._trainer.drain(self._machines.cluster, held.node)
                break
            except Transient as error:
                failures += 1
                held.say(f"its trainer cannot be started: {error}")
                await asyncio.sleep((error.retry_after or back_off(failures)).total_seconds())
        readiness = asyncio.create_task(self._trainer.ready(held.node))
        readiness.add_done_callback(lambda done: self._trained(held, done))
        try:
            return await self._trainer.wait(held.node)
        finally:
            readiness.cancel()

    def _trained(self, held: _Held, readiness: "asyncio.Task[bool]") -> None:
        if not readiness.cancelled() and readiness.exception() is None and readiness.result():
            self._is_ready(held)


@asynccontextmanager
async def _nothing_tried() -> AsyncIterator[None]:
    """A server that cannot be asked costs a lease no attempt."""
    try:
        yield
    except Outage:
        raise
    except Transient as error:
        raise Outage(str(error), error.retry_after) from error


def _wants(lease: Lease) -> int:
    """A machine for each of its workers."""
    return lease.workers or 1


def _plain(found: Object) -> Object:
    """Without what the server writes into it."""
    kept = ("name", "namespace", "labels", "annotations", "ownerReferences")
    metadata = {key: value for key, value in found["metadata"].items() if key in kept}
    return {**{key: value for key, value in found.items() if key != "status"}, "metadata": metadata}


def _merge(at: Object, patch: Object) -> None:
    for key, value in patch.items():
        if isinstance(value, dict):
            _merge(at.setdefault(key, {}), value)
        else:
            at[key] = value
