"""Passes over all leases of a counted set of machines.

Level-triggered: every change and every order sets off one, and a pass writes only where what is there differs from what
should be. So it does not matter at which line an earlier life ended, nor how often an order is given. A machine leaves
in this order, each step of which may be repeated:

    1. it is marked to go first and, when it is killed, to go without being drained;
    2. its lease leaves the roster, and the count falls with it;
    3. when it is killed, and nobody has taken it yet, it is deleted by its uid;
    4. its finalizers run, however long, and then the node is gone.
"""

import asyncio
import logging
from collections.abc import Sequence

from windfall.provisioner.counted import Counted
from windfall.provisioner.held import Held, Holds
from windfall.provisioner.judgement import KILLED, Goes, fit, idle, judged, last
from windfall.provisioner.machine import Machine
from windfall.provisioner.machine_trainer import trained
from windfall.provisioner.machines import Machines
from windfall.provisioner.roster import Entry, bound
from windfall.provisioner.served_again import served_again
from windfall.provisioner.trainer import Trainer
from windfall.servicekit.bus import back_off
from windfall.servicekit.errors import Transient
from windfall.servicekit.kube import Conflict

log = logging.getLogger(__name__)


class Passes:
    """See the module.

    Args:
        counted: what the leases are counted on.
        machines: open while passes are made.
        holds: the leases.
        trainer: of the workload cluster; none where it is there already.
        wake: set when there is something to look at.
    """

    def __init__(
        self, counted: Counted, machines: Machines, holds: Holds, trainer: Trainer | None, wake: asyncio.Event
    ) -> None:
        self.one_at_a_time = asyncio.Lock()
        """Held by a pass, and by whoever else writes."""
        self._counted = counted
        self._machines = machines
        self._holds = holds
        self._trainer = trainer
        self._wake = wake
        self._passing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Pass from now on; once begun, nothing."""
        if self._passing is None:
            self._passing = asyncio.create_task(self._for_ever(), name=f"leases of {self._counted.name}")
            self._passing.add_done_callback(self._gave_up)

    async def close(self) -> None:
        tasks = [held.training for held in self._holds.all if held.training]
        tasks += [self._passing] if self._passing else []
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._passing = None

    async def see_off(self, held: Held, mine: Sequence[Machine]) -> None:
        """One step further out.

        Args:
            mine: the machines in the name of the lease.
        """
        if not mine and self._machines.roster.entry(held.node.lease_id):
            await self._offer(last(self._machines.all, self._machines.roster, held.wants))
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
        self._holds.over(held)
        found = self._machines.object
        if found and not self._holds.all and not self._machines.roster.entries:
            await self._counted.idle(cluster, found)
        held.end()

    async def _for_ever(self) -> None:
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._machines.fault:
                raise self._machines.fault
            try:
                async with self.one_at_a_time:
                    with served_again():
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
        for held in self._holds.all:
            await self._settle(held)
        if self._holds.all or self._machines.roster.entries:
            await self._offer(idle(self._machines.all, self._machines.roster, self._machines.surplus))
            await self._machines.recount()
        await self._counted.tend(self._machines.cluster, self._machines.all, self._machines.beside)

    async def _offer(self, machines: Sequence[Machine]) -> None:
        for machine in machines:
            await self._machines.mark(machine, 0, kill=False)

    async def _settle(self, held: Held) -> None:
        lease_id = held.node.lease_id
        if held.leaving:
            return await self.see_off(held, bound(lease_id, self._machines.all))
        if await self._entry(held) is None:
            log.warning("%s is on the roster no more", held.node.name)
            held.leave(None)
            return await self.see_off(held, bound(lease_id, self._machines.all))
        mine = bound(lease_id, self._machines.all)
        fitting = fit(self._machines.all, mine, held.machines, self._machines.roster)
        for machine in fitting[: held.wants - len(held.machines)]:
            await self._machines.give(held.node, machine)
            held.machines.append(machine.uid)
        mine = bound(lease_id, self._machines.all)
        await self._become(held, mine)

    async def _entry(self, held: Held) -> Entry | None:
        """What the roster says of it; asked anew before it is believed to say nothing."""
        entry = self._machines.roster.entry(held.node.lease_id)
        if entry is None:
            await self._machines.refresh()
            entry = self._machines.roster.entry(held.node.lease_id)
        return entry

    async def _become(self, held: Held, mine: Sequence[Machine]) -> None:
        found = self._machines.object
        hindrance = self._counted.hindrance(found) if found and len(held.machines) < held.wants else ""
        said = [self._counted.explained(machine, self._machines.beside) for machine in mine]
        judgement = judged(said, held.machines, held.wants, hindrance)
        if isinstance(judgement, Goes):
            held.say(judgement.because)
            held.leave(judgement.code, kill=judgement.kill)
            await self.see_off(held, mine)
        elif not judgement.whole:
            held.say(judgement.trouble)
        elif self._trainer is None:
            held.is_ready()
        elif held.training is None:
            held.training = trained(self._machines.cluster, self._trainer, held, self._wake.set)

    def _gave_up(self, passing: asyncio.Task[None]) -> None:
        """Whoever asks next hears why as well."""
        if not passing.cancelled():
            self._machines.fault = fault = passing.exception()
            self._holds.give_up(fault)
