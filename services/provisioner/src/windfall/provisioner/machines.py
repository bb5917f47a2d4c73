"""A counted set of machines as the API server has it: mirrored by two watches, changed by patches that nobody can
overtake, because each names the ``resourceVersion`` that it was decided on."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Final
from uuid import UUID

from windfall.provisioner.counted import Counted
from windfall.provisioner.holdings import Node
from windfall.provisioner.machine import DELETE_FIRST, NO_DETACH, NO_DRAIN, NODE_LABEL, Machine, read
from windfall.provisioner.manifests.labels import fenced, lease_annotations, lease_labels
from windfall.provisioner.roster import Roster
from windfall.provisioner.served_again import served_again
from windfall.servicekit.bus import back_off
from windfall.servicekit.errors import Transient
from windfall.servicekit.kube import Cluster, Conflict, Kind, Object

log = logging.getLogger(__name__)


ROSTER_MANAGER: Final = "windfall-roster"
"""Field manager of the roster and its count, and of nothing else: whoever keeps the rest of the object leaves them
alone."""


def counting(kind: Kind, found: Object, roster: Roster, spec: Object) -> Object:
    """What is applied to put a roster on an object as it was found, and on no later one."""
    kept = ("name", "namespace", "uid", "resourceVersion")
    metadata = {key: found["metadata"][key] for key in kept if key in found["metadata"]}
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {**metadata, "annotations": roster.annotation()},
        "spec": spec,
    }


class Machines:
    """See the module. Every method raises ``Transient`` or ``Mistake`` as :class:`Cluster` does.

    Args:
        site: whose leases these are.
        namespace: of the objects.
        cluster: the management cluster, not entered yet.
        counted: knows the object that counts.
        changed: called when something is other than before.
    """

    def __init__(
        self, site: str, namespace: str, cluster: Cluster, counted: Counted, changed: Callable[[], None]
    ) -> None:
        self.cluster = cluster
        self.fault: BaseException | None = None
        """Why a watch ended: a mistake that a person must mend, or a fault of ours."""
        self._site = site
        self._namespace = namespace
        self._counted = counted
        self._changed = changed
        self._object: Object | None = None
        self._found: dict[str, Object] = {}
        self.beside: dict[Kind, dict[str, Object]] = {}
        """What else of the platform is followed, as last seen, by kind and name."""
        self._deleted: set[str] = set()
        """Uids that were asked to go, and of which the watch may not have told yet."""
        self._kind: Kind
        self._machine_kind: Kind
        self._life = AsyncExitStack()
        self._watches: list[asyncio.Task[None]] = []
        self._opening = asyncio.Lock()

    # --- the mirror ---------------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Connect, choose the versions, look once, and watch from then on; once open, nothing."""
        async with self._opening:
            if self._watches:
                return
            if self.fault:
                raise self.fault
            async with AsyncExitStack() as opening:
                await opening.enter_async_context(self.cluster)
                self._kind, self._machine_kind = await self._counted.prepare(self.cluster)
                await self.refresh()
                self._life.push_async_exit(opening.pop_all())
            fields = f"metadata.name={self._counted.name}"
            self._watch(self._kind, fields, "", self._object_is)
            self._watch(self._machine_kind, "", self._counted.machine_labels(), self._machine_is)
            for kind, labels in self._counted.beside().items():
                self._watch(kind, "", labels, partial(_mirror, self.beside[kind]))

    async def close(self) -> None:
        for watch in self._watches:
            watch.cancel()
        if self._watches:
            await asyncio.wait(self._watches)
        self._watches.clear()
        await self._life.aclose()

    async def refresh(self) -> None:
        """Look anew at everything: what the watches will say may be late."""
        with served_again():
            self._object = await self.cluster.get(self._kind, self._counted.name, self._namespace)
            self._found = await self._named(self._machine_kind, self._counted.machine_labels())
            for kind, labels in self._counted.beside().items():
                there = await self._named(kind, labels)
                mirrored = self.beside.setdefault(kind, {})
                mirrored.clear()
                mirrored.update(there)

    async def _named(self, kind: Kind, labels: str) -> dict[str, Object]:
        listing = await self.cluster.list(kind, self._namespace, labels=labels)
        return {found["metadata"]["name"]: found for found in listing.items}

    @property
    def object(self) -> Object | None:
        """What counts, as last seen."""
        return self._object

    @property
    def roster(self) -> Roster:
        return Roster() if self._object is None else Roster.of(self._object)

    @property
    def surplus(self) -> int:
        """By how much the count is more than the roster says."""
        asked = None if self._object is None else self._counted.count(self._object)
        return 0 if asked is None else asked - self.roster.count

    @property
    def all(self) -> tuple[Machine, ...]:
        """As last seen, by name."""
        seen = (read(found) for _, found in sorted(self._found.items()))
        return tuple(replace(each, leaving=each.leaving or each.uid in self._deleted) for each in seen)

    def keep(self, found: Object) -> None:
        """What counts is so now, by the server's own answer."""
        self._object = found

    def _watch(self, kind: Kind, fields: str, labels: str, heard: Callable[[bool, Object], Any]) -> None:
        task = asyncio.create_task(self._follow(kind, fields, labels, heard), name=f"watch of {kind}")
        task.add_done_callback(self._ended)
        self._watches.append(task)

    async def _follow(self, kind: Kind, fields: str, labels: str, heard: Callable[[bool, Object], Any]) -> None:
        while True:
            try:
                with served_again():
                    await self._followed(kind, fields, labels, heard)
            except Transient as error:
                log.info("cannot follow %s yet: %s", kind.plural, error)
                await asyncio.sleep(back_off(1).total_seconds())

    async def _followed(self, kind: Kind, fields: str, labels: str, heard: Callable[[bool, Object], Any]) -> None:
        following = self.cluster.follow(kind, self._namespace, labels=labels, fields=fields)
        async with aclosing(following) as changes:
            async for change in changes:
                if change.verb != "synced":
                    heard(change.verb == "present", change.object)
                self._changed()

    def _ended(self, watch: asyncio.Task[None]) -> None:
        if not watch.cancelled():
            self.fault = watch.exception()
            self._changed()

    def _object_is(self, present: bool, found: Object) -> None:
        if not _overtaken(present, found, self._object):
            self._object = found if present else None

    def _machine_is(self, present: bool, found: Object) -> None:
        if _mirror(self._found, present, found) and not present:
            self._deleted.discard(found["metadata"].get("uid", ""))

    # --- the roster ---------------------------------------------------------------------------------------------------

    async def join(self, node: Node, wants: int) -> None:
        """Put a lease on the roster."""
        await self._enroll(lambda roster: roster.joined(node, self._site, wants))

    async def leave(self, lease_id: UUID) -> None:
        """Take a lease off the roster; the last one leaves it idle."""
        await self._enroll(lambda roster: roster.left(lease_id))

    async def recount(self) -> None:
        """The count is what the roster says, whoever else has written it."""
        await self._enroll(lambda roster: roster)

    async def _enroll(self, change: Callable[[Roster], Roster]) -> None:
        while self._object is not None:
            before = Roster.of(self._object)
            after = change(before)
            asked = self._counted.count(self._object)
            if after == before and (asked == after.count or (asked is None and not after.entries)):
                return
            enrolled = counting(self._kind, self._object, after, self._counted.counting(after.count))
            try:
                self._object = await self.cluster.apply(self._kind, enrolled, manager=ROSTER_MANAGER, force=True)
            except Conflict:
                # Somebody was first, so somebody got on: look again.
                self._object = await self.cluster.get(self._kind, self._counted.name, self._namespace)

    # --- the machines -------------------------------------------------------------------------------------------------

    async def give(self, node: Node, machine: Machine) -> None:
        """Put a machine in the name of a lease, and then on the roster."""
        metadata: dict[str, Any] = {
            "labels": {**lease_labels(node, self._site), NODE_LABEL: str(node.lease_id)},
            "annotations": lease_annotations(node),
        }
        if DELETE_FIRST in machine.annotations:
            metadata["annotations"][DELETE_FIRST] = None
        if machine.node != node or DELETE_FIRST in machine.annotations:
            await self._amend(machine, metadata, node.token)
        await self._enroll(lambda roster: roster.given(node.lease_id, machine.uid))

    async def mark(self, machine: Machine, token: int, *, kill: bool) -> None:
        """Say that a machine goes first; killed, that nobody waits for its pods and volumes."""
        wanted = {DELETE_FIRST, NO_DRAIN, NO_DETACH} if kill else {DELETE_FIRST}
        if missing := wanted - machine.annotations:
            await self._amend(machine, {"annotations": dict.fromkeys(sorted(missing), "")}, token)

    async def delete(self, machine: Machine) -> None:
        """Delete this very machine."""
        await self.cluster.delete(self._machine_kind, machine.name, self._namespace, uid=machine.uid)
        self._deleted.add(machine.uid)

    async def _amend(self, machine: Machine, metadata: Mapping[str, Any], token: int) -> None:
        found = self._found.get(machine.name)
        if found is None or found["metadata"]["uid"] != machine.uid or fenced(found, token):
            return
        guard = {"resourceVersion": found["metadata"]["resourceVersion"]}
        patch = {"metadata": {**metadata, **guard}}
        self._found[machine.name] = await self.cluster.patch(self._machine_kind, machine.name, self._namespace, patch)


def _mirror(there: dict[str, Object], present: bool, found: Object) -> bool:
    """Take up what a watch tells; false when that has been overtaken."""
    name = found["metadata"]["name"]
    if _overtaken(present, found, there.get(name)):
        return False
    if present:
        there[name] = found
    else:
        there.pop(name, None)
    return True


def _overtaken(present: bool, heard: Object, known: Object | None) -> bool:
    """Whether a watch tells what an answer of the server has overtaken. One that is gone does not come back; what is
    there is judged by its version. Versions of one kind are numbers that grow (KEP-5504, and so they have always been);
    where one is none, what is heard last counts."""
    if known is None:
        return False
    if not present:
        return bool(heard["metadata"].get("uid") != known["metadata"].get("uid"))
    versions = [str(found["metadata"].get("resourceVersion", "")) for found in (heard, known)]
    return all(version.isdecimal() for version in versions) and int(versions[0]) < int(versions[1])
