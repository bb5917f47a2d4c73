"""The operator at work, once it leads."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

import kopf

from windfall.provisioner.operator.applying import KINDS
from windfall.provisioner.operator.draining import Release
from windfall.provisioner.operator.facts import Facts
from windfall.provisioner.operator.hearsay import Hearsay
from windfall.provisioner.operator.marks import FEDERATION, SELECTOR, SITE
from windfall.provisioner.operator.reconcile import Reconciler
from windfall.provisioner.operator.store import Owner, Store
from windfall.provisioner.operator.watching import hearing_of_ends, registry, settings
from windfall.provisioner.operator.work_queue import WorkQueue
from windfall.servicekit.clock import Clock
from windfall.servicekit.errors import Transient
from windfall.servicekit.kube import Cluster, Connection, Kind, Object
from windfall.servicekit.kube.kinds import PDB

log = logging.getLogger(__name__)

_LISTS: Final = timedelta(seconds=1)
"""A server has listed everything after so long; wall time."""

Guard = Callable[[Callable[[Owner], Awaitable[timedelta | None]]], Callable[[Owner], Awaitable[timedelta | None]]]


class Operating:
    """One namespace's.

    Args:
        resync: how often everything is looked at anew, whatever was seen.
        release: asks a site's provisioner to drain what it holds.
        guard: put around each reconciling by the composition root.
    """

    def __init__(
        self,
        cluster: Cluster,
        connection: Connection,
        namespace: str,
        facts: Facts,
        clock: Clock,
        resync: timedelta,
        release: Release,
        guard: Guard = lambda work: work,
    ) -> None:
        self._cluster = cluster
        self._connection = connection
        self._namespace = namespace
        self._clock = clock
        self._resync = resync
        self.kinds: tuple[Kind, ...] = (
            SITE,
            FEDERATION,
            *(facts.pdb if kind == PDB else kind for kind in KINDS),
        )
        self.store = Store()
        self.hearsay = Hearsay()
        self.reconciler = Reconciler(
            cluster, self.store, facts, clock, self.hearsay, lambda owner: self.queue.add(owner), release
        )
        self.queue = WorkQueue(guard(self.reconciler.reconcile), clock)
        self.primed = False
        self._listed = asyncio.Event()

    async def run(self) -> None:
        """Until the process is asked to end, of which kopf takes notice.

        Raises:
            Transient: the server was away while everything was listed for the first time, or it refused a watch; run
                again.
            Mistake: it refuses us.
        """
        # Nothing is decided before everything is known: a site that has not been seen would cost a pool its nodes.
        await self.prime()
        self.primed = True
        async with asyncio.TaskGroup() as group:
            others = [
                group.create_task(self.queue.run(), name="queue"),
                group.create_task(self._resyncs(), name="resync"),
                group.create_task(self._look_for_gone(), name="gone"),
            ]
            given_up = await self._watch()
            for task in others:
                task.cancel()
        if given_up:
            # Outside the group, which would wrap it.
            raise Transient(given_up)

    def seen(self, kind: Kind, found: Object, gone: bool) -> None:
        for owner in self.store.gone(kind, found) if gone else self.store.seen(kind, found):
            self.queue.add(owner)

    async def prime(self) -> None:
        """List everything, and look at it."""
        await self._compare()
        for owner in self._owners():
            self.queue.add(owner)

    async def _compare(self) -> None:
        """What is there is seen, and what a watch has missed the end of is gone."""
        for kind in self.kinds:
            labels = "" if kind in (SITE, FEDERATION) else SELECTOR
            listing = await self._cluster.list(kind, self._namespace, labels=labels)
            there = {item["metadata"]["name"] for item in listing.items}
            for item in listing.items:
                self.seen(kind, item, gone=False)
            for lost in [found for found in self._known(kind) if found["metadata"]["name"] not in there]:
                self.seen(kind, lost, gone=True)

    async def _watch(self) -> str:
        """Until kopf ends, or gives up a watch: says which one."""
        # Not kopf.operator(), which at its end takes every task of the loop that it does not know for one that hangs.
        tasks = await kopf.spawn_tasks(
            registry=registry(self.kinds, self._connection, self.seen, self._listed.set),
            settings=settings(self.kinds),
            namespaces=[self._namespace],
            standalone=True,
        )
        given_up: asyncio.Queue[str] = asyncio.Queue()
        first = asyncio.create_task(given_up.get())
        try:
            with hearing_of_ends(given_up.put_nowait):
                done, _ = await asyncio.wait([*tasks, first], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, first):
                task.cancel()
            await asyncio.wait([*tasks, first])
        for task in done:
            task.result()
        return first.result() if first in done else ""

    async def _resyncs(self) -> None:
        """Everything anew once per ``resync``, a little at a time, so that no server has to bear it at once."""
        while True:
            owners = self._owners()
            for owner in owners:
                await self._clock.sleep(self._resync / (len(owners) + 1))
                self.reconciler.applying.forget(owner)
                self.queue.add(owner)
            if not owners:
                await self._clock.sleep(self._resync)
            await self._later(self.prime)

    async def _look_for_gone(self) -> None:
        """What went before a watch began is told by nobody: not at the start, between our list and kopf's, and not when
        a watch was given up."""
        while True:
            await self._listed.wait()
            # All kinds are listed about then.
            await self._clock.sleep(_LISTS)
            self._listed.clear()
            await self._later(self._compare)

    async def _later(self, look: Callable[[], Awaitable[None]]) -> None:
        try:
            await look()
        except Transient as error:
            log.info("the resync comes later: %s", error)

    def _owners(self) -> list[Owner]:
        return [*((SITE, name) for name in self.store.sites), *((FEDERATION, name) for name in self.store.federations)]

    def _known(self, kind: Kind) -> list[Object]:
        if kind == SITE:
            return [found for found, _ in self.store.sites.values()]
        if kind == FEDERATION:
            return [found for found, _ in self.store.federations.values()]
        return [
            {"metadata": {"name": child.name, "uid": child.uid, "labels": dict(child.labels)}}
            for (of, _), child in self.store.children.items()
            if of == kind
        ]
