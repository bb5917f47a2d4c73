"""The pool of machines that are reached by SSH: who has which, which of them did not answer, and what a person is told.

k0smotron takes a machine of the pool for each Machine of Cluster API, and says nothing anywhere when there is none. Of
several it always takes the same one, so that one which does not answer would be tried again and again while others
wait. Here it goes to the back: out of the pool while another one is free, until it has been made a node of.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from windfall.provisioner.machine import Machine, current, failure, line
from windfall.provisioner.manifests.labels import LEASE
from windfall.provisioner.manifests.pooled_machines import UNREACHABLE, Place

_LONGEST: Final = 250
"""Of a reason, in characters."""


@dataclass(frozen=True)
class Pooled:
    """One machine of a pool."""

    name: str
    address: str
    pool: str
    taken_by: str | None
    """Name of the RemoteMachine that has it."""
    unreachable: str
    """Why it could not be made a node of when that was last tried."""


@dataclass(frozen=True)
class Remote:
    """A machine of Cluster API, as k0smotron makes a node of it."""

    name: str
    machine: str | None
    """Name of the Machine that owns it."""
    pool: str
    """Empty where it takes none of a pool."""
    failure: str
    provisioned: bool
    leaving: bool
    labelled: bool
    """It says whose lease it is."""


def pooled(found: Mapping[str, Any]) -> Pooled:
    """
    Args:
        found: a PooledRemoteMachine as the API server gave it.
    """
    metadata, spec, status = found["metadata"], found["spec"], found.get("status") or {}
    taken_by = (status.get("machineRef") or {}).get("name") if status.get("reserved") else None
    return Pooled(
        name=metadata["name"],
        address=spec["machine"]["address"],
        pool=spec["pool"],
        taken_by=taken_by or None,
        unreachable=(metadata.get("annotations") or {}).get(UNREACHABLE, ""),
    )


def remote(found: Mapping[str, Any]) -> Remote:
    """
    Args:
        found: a RemoteMachine as the API server gave it.
    """
    metadata, spec, status = found["metadata"], found.get("spec") or {}, found.get("status") or {}
    owners = metadata.get("ownerReferences") or ()
    provisioned = bool(
        spec.get("providerID") or status.get("ready") or (status.get("initialization") or {}).get("provisioned")
    )
    return Remote(
        name=metadata["name"],
        machine=next((owner["name"] for owner in owners if owner["kind"] == "Machine"), None),
        pool=spec.get("pool", ""),
        failure="" if provisioned else _fault(found),
        provisioned=provisioned,
        leaving=bool(metadata.get("deletionTimestamp")),
        labelled=LEASE in (metadata.get("labels") or {}),
    )


def places(pool: str, pooled: Sequence[Pooled], remotes: Iterable[Remote]) -> dict[str, Place]:
    """Where each machine should stand, by its name.

    One that is taken stays where it is until whoever has it lets it go: k0smotron would take another one in its place.

    Args:
        pool: the site's.
        pooled: the machines of the site.
        remotes: whoever has them.
    """
    having = {each.name: each for each in remotes}
    faults = {each.name: _unreachable(each, having.get(each.taken_by or "")) for each in pooled}
    others = any(each.taken_by is None and not faults[each.name] for each in pooled)
    placed = {}
    for each in pooled:
        holder = having.get(each.taken_by or "")
        lets_go = each.taken_by is None or (holder is not None and holder.leaving)
        where = aside(pool) if faults[each.name] and others else pool
        placed[each.name] = Place(where if lets_go else each.pool, faults[each.name])
    return placed


def aside(pool: str) -> str:
    """Where machines stand that did not answer, while others are free."""
    return f"{pool}-unreachable"


def gone(pooled: Iterable[Pooled], named: Iterable[str]) -> list[str]:
    """The names of machines that are in the settings no more, once nobody has them."""
    return sorted({each.name for each in pooled if each.taken_by is None} - set(named))


def unlabelled(machines: Iterable[Machine], remotes: Iterable[Remote]) -> list[tuple[Machine, Remote]]:
    """Machines of leases whose RemoteMachine does not say so."""
    named = {machine.name: machine for machine in machines if machine.node and not machine.leaving}
    return [
        (named[each.machine], each)
        for each in remotes
        if each.machine in named and not each.labelled and not each.leaving
    ]


def explained(machine: Machine, pooled: Sequence[Pooled], remotes: Iterable[Remote]) -> Machine:
    """The same machine, saying of the pool what Cluster API cannot know.

    Args:
        machine: of a lease.
        pooled: every machine of any pool.
        remotes: whoever has them.
    """
    mine = next((each for each in remotes if each.machine == machine.name), None)
    if mine is None or machine.ready:
        return machine
    taken = next((each for each in pooled if each.taken_by == mine.name), None)
    if taken is None:
        waits_for = _waits(mine.pool, pooled) if mine.pool and not mine.provisioned else mine.failure
        return replace(machine, waits_for=waits_for or machine.waits_for)
    failed = machine.failure and _of(taken, machine.failure)
    return replace(machine, failure=failed, waits_for=_of(taken, mine.failure or machine.waits_for))


def _of(taken: Pooled, said: str) -> str:
    """What is said of a machine, by its name: where it is does not leave the site with a lease's reason."""
    return f"{taken.name}: {said.replace(taken.address, taken.name)}"


def _waits(pool: str, pooled: Sequence[Pooled]) -> str:
    """What keeps k0smotron from taking one."""
    whole = [each for each in pooled if each.pool in (pool, aside(pool))]
    free = sum(each.taken_by is None for each in whole)
    if not whole:
        return f"the pool {pool} has no machines: name some as machines, or fill it"
    if not free:
        return f"the pool {pool} is exhausted: all {len(whole)} of its machines are taken"
    return f"k0smotron has not taken any of the {free} free machines of the pool {pool} yet"


def _unreachable(each: Pooled, holder: Remote | None) -> str:
    if holder is None:
        return each.unreachable
    return "" if holder.provisioned else (holder.failure or each.unreachable)[:_LONGEST]


def _fault(found: Mapping[str, Any]) -> str:
    if why := failure(found):
        return why
    false = [each for each in current(found).values() if each["status"] == "False" and each.get("message")]
    return line(false[0]) if false else ""
