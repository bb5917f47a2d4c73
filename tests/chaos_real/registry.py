"""All faults, in the order in which they are run; and those of which something else tells."""

from typing import Final

from tests.chaos_real import api_server, asleep, disks, keys, killed, places, servers, soak, upgrades, ways
from tests.chaos_real.fault import Fault
from tests.chaos_real.needs import Needs

_ALL: Final[tuple[Fault, ...]] = (
    *killed.FAULTS,
    *places.FAULTS,
    *asleep.FAULTS,
    *servers.FAULTS,
    *disks.FAULTS,
    *ways.FAULTS,
    *keys.FAULTS,
    *api_server.FAULTS,
    *upgrades.FAULTS,
    *soak.FAULTS,
)
FAULTS: Final = tuple(sorted(_ALL, key=lambda fault: fault.needs is not Needs))
"""First those that share the usual fleet."""


def named(name: str) -> tuple[Fault, ...]:
    """Faults whose name is this one, or else begins with it; several are separated by commas. Nothing names all of
    them but the long ones.

    Raises:
        LookupError: there is no such fault.
    """
    if not name:
        return tuple(fault for fault in FAULTS if not fault.long)
    found: list[Fault] = []
    for wish in (part.strip() for part in name.split(",")):
        exact = [fault for fault in FAULTS if fault.name == wish]
        some = exact or [fault for fault in FAULTS if fault.name.startswith(wish)]
        if not some:
            raise LookupError(f"no fault is called {wish!r}; there are: {', '.join(one.name for one in FAULTS)}")
        found += [fault for fault in some if fault not in found]
    return tuple(found)
