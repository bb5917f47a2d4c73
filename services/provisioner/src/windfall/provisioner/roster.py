"""Which leases a set of machines is counted on, decided without touching anything.

Machines of Cluster API have no names that anybody could choose: somebody says how many there are. So that two leases
cannot forget each other, and a crash cannot leave a machine that nobody asked for, the leases themselves stand on the
object that counts, in an annotation, and its count is their number: both are written in one patch that names the
``resourceVersion`` that was read. Whoever comes second looks again.

Which machine is whose is said by labels on the machine. It is the roster that is right: a machine in the name of a
lease that is not on it is leaving.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from windfall.provisioner.holdings import Node
from windfall.provisioner.machine import Machine
from windfall.provisioner.manifests.labels import TOKEN

ROSTER: Final = "windfall.dev/roster"
"""The annotation: JSON by lease id."""


@dataclass(frozen=True)
class Entry:
    """A lease that holds machines of the set."""

    node: Node
    site: str
    wants: int = 1
    """How many machines."""
    machines: tuple[str, ...] = ()
    """Uids of those that it has been given, in that order."""


@dataclass(frozen=True)
class Roster:
    """The leases of one set of machines, by growing token."""

    entries: tuple[Entry, ...] = ()

    @classmethod
    def of(cls, counted: Mapping[str, Any]) -> "Roster":
        """What stands on the object that counts. What cannot be read was not written by us and counts nothing.

        Args:
            counted: a MachineDeployment or ClusterDeployment as the API server gave it.
        """
        text = (counted["metadata"].get("annotations") or {}).get(ROSTER, "{}")
        try:
            said = json.loads(text)
            entries = [
                Entry(
                    Node(UUID(lease), UUID(entry["window"]), int(entry["token"]), str(entry["node"])),
                    str(entry["site"]),
                    int(entry.get("wants", 1)),
                    tuple(str(uid) for uid in entry.get("machines", ())),
                )
                for lease, entry in said.items()
            ]
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return cls()
        return cls(tuple(sorted(entries, key=lambda entry: (entry.site, entry.node.token))))

    @property
    def count(self) -> int:
        """How many machines there should be."""
        return sum(entry.wants for entry in self.entries)

    def entry(self, lease_id: UUID) -> Entry | None:
        return next((entry for entry in self.entries if entry.node.lease_id == lease_id), None)

    def joined(self, node: Node, site: str, wants: int) -> "Roster":
        """With this lease; when it is there, as it is."""
        return self if self.entry(node.lease_id) else Roster((*self.entries, Entry(node, site, wants)))

    def given(self, lease_id: UUID, machine: str) -> "Roster":
        """With one more of this lease's machines; of those that are there, as it is."""
        return Roster(
            tuple(_given(entry, machine) if entry.node.lease_id == lease_id else entry for entry in self.entries)
        )

    def left(self, lease_id: UUID) -> "Roster":
        """Without this lease."""
        return Roster(tuple(entry for entry in self.entries if entry.node.lease_id != lease_id))

    def annotation(self) -> dict[str, str]:
        """As it stands on the object."""
        said = {
            str(entry.node.lease_id): {
                "window": str(entry.node.window_id),
                "token": entry.node.token,
                "node": entry.node.name,
                "site": entry.site,
                "wants": entry.wants,
                "machines": list(entry.machines),
            }
            for entry in self.entries
        }
        return {ROSTER: json.dumps(said, sort_keys=True)}


def free(machines: Iterable[Machine], roster: Roster) -> Sequence[Machine]:
    """The machines that a lease may be given: nobody's, and not leaving. Those that have joined come first, and the
    oldest of them; those that have failed come last, because somebody must find that out: nobody else replaces them."""
    taken = {uid for entry in roster.entries for uid in entry.machines}
    fit = [
        machine
        for machine in machines
        if machine.node is None
        and TOKEN not in machine.annotations
        and not machine.leaving
        and machine.uid not in taken
    ]
    return sorted(
        fit, key=lambda machine: (machine.failure is not None, machine.joined is None, machine.created, machine.name)
    )


def bound(lease_id: UUID, machines: Iterable[Machine]) -> Sequence[Machine]:
    """The machines in the name of a lease, those of earlier attempts with them while they are leaving."""
    return [machine for machine in machines if machine.node and machine.node.lease_id == lease_id]


def counted_yet(found: Mapping[str, Any] | None, count: int | None) -> bool:
    """Whether any lease has been counted on an object. Until then whoever writes it says that it has no machines: an
    object without a count would be given one.

    Args:
        found: as the API server gave it; none when it is not there.
        count: how many machines it asks for; none when it does not say.
    """
    return found is not None and (ROSTER in (found["metadata"].get("annotations") or {}) or bool(count))


def _given(entry: Entry, machine: str) -> Entry:
    return entry if machine in entry.machines else replace(entry, machines=(*entry.machines, machine))
