"""By which keys a hub will know a tenant's services: those that it names, else such as are made in the hub's folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from windfall.cli.identity.folders import COORDINATOR, HubFolder
from windfall.cli.nkeys import made
from windfall.contracts.subjects import HUB
from windfall.contracts.tenancy import Tenant
from windfall.servicekit import nkey
from windfall.servicekit.errors import Mistake
from windfall.servicekit.nats_rules import ADMIN

_USERS: Final = (COORDINATOR, ADMIN)


def keys_for(hub: Path, tenant: str, given: Sequence[str]) -> tuple[Mapping[str, str], Sequence[str]]:
    """Public nkeys of its services by name, and a line for each seed that lies in the hub's folder.

    Raises:
        Mistake: there is no hub there, or a name or a key is none.
    """
    folder = HubFolder(hub)
    folder.read()
    try:
        Tenant(tenant, {})
    except ValueError as error:
        raise Mistake(str(error), f"A tenant is none of {HUB}'s services; name who they are, like lab") from error
    known = dict(map(_read, given))
    missing = [name for name in _USERS if name not in known]
    for _ in made(folder.tenant(tenant), missing):
        pass
    files = {name: folder.tenant(tenant) / f"{name}.nk" for name in missing}
    known |= {name: nkey.read(file).public for name, file in files.items()}
    return known, [f"{name}: its seed is {file}" for name, file in files.items()]


def _read(text: str) -> tuple[str, str]:
    name, _, key = text.partition("=")
    if name not in _USERS or not nkey.is_public(key):
        raise Mistake(
            f"{text!r} is no user's key", f"Write NAME=U…, as `windfall nkeys` prints it; there are {', '.join(_USERS)}"
        )
    return name, key
