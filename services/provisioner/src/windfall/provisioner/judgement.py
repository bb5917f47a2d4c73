"""What becomes of a lease whose node is machines, judged by what those machines say of themselves."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from windfall.provisioner.machine import Machine
from windfall.provisioner.roster import Roster, free

KILLED: Final = -9
FAILED: Final = 1
"""Exit code of a node whose machine failed."""


@dataclass(frozen=True)
class Stays:
    """It goes on.

    Args:
        trouble: what keeps it from being ready, for a person; empty while nothing does.
        whole: every machine is there and ready.
    """

    trouble: str
    whole: bool = False


@dataclass(frozen=True)
class Goes:
    """It is over.

    Args:
        because: for a person.
        code: what the node ends with; none when nobody can know it.
        kill: nobody waits for its pods and volumes.
    """

    because: str
    code: int | None
    kill: bool


def judged(mine: Sequence[Machine], given: Sequence[str], wants: int, hindrance: str) -> Stays | Goes:
    """
    Args:
        mine: the machines in the name of the lease.
        given: uids of those that the roster gives it.
        wants: how many it should have.
        hindrance: what keeps the set from having more machines, empty where nobody says.
    """
    there = {machine.uid: machine for machine in mine}
    theirs = [there[uid] for uid in given if uid in there]
    failed = next((machine.failure for machine in theirs if machine.failure is not None), None)
    if failed is not None:
        return Goes(failed, FAILED, kill=True)
    if len(theirs) < len(given):
        return Goes("its machine is gone", None, kill=True)
    if any(machine.leaving for machine in theirs):
        return Goes("its machine is being deleted", None, kill=False)
    unready = next((machine for machine in theirs if not machine.ready), None)
    if unready is not None:
        return Stays(unready.waits_for)
    if len(given) < wants:
        waits = "it waits for a machine" if wants == 1 else f"has {len(given)} of {wants} machines"
        return Stays(hindrance or waits)
    return Stays("", whole=True)


def fit(machines: Sequence[Machine], mine: Sequence[Machine], given: Sequence[str], roster: Roster) -> list[Machine]:
    """Machines that may be given to a lease: first those that are in its name already, by an earlier life."""
    named = [machine for machine in mine if not machine.leaving and machine.uid not in given]
    return [*named, *free(machines, roster)]


def idle(machines: Sequence[Machine], roster: Roster, surplus: int) -> Sequence[Machine]:
    """The machines that are nobody's and should go first, so that it is not somebody's that goes when the count falls.

    Args:
        surplus: by how much the count is more than the roster says.
    """
    staying = sum(not machine.leaving for machine in machines)
    return last(machines, roster, max(surplus, staying - roster.count))


def last(machines: Sequence[Machine], roster: Roster, count: int) -> Sequence[Machine]:
    """So many of those that are nobody's, the least useful."""
    return free(machines, roster)[-count:] if count > 0 else ()
