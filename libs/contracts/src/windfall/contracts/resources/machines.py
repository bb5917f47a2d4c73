"""Machines of a site that are reached by SSH. Keys are named, and are never in it."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, StringConstraints

from windfall.contracts.resources.fields import Part

MachineName = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=50)]
"""RFC 1035, with room for what controllers append to it in 63 characters."""
SecretName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253)
]


class SshMachine(Part):
    """A machine that is reached by SSH, and waits in the site's pool until a window needs it."""

    name: MachineName
    address: str = Field(min_length=1, max_length=253, pattern=r"^[^\s@/]+$")
    """Name or address, without user and port."""
    port: int = Field(default=22, ge=1, le=65535)
    user: str = Field(default="root", min_length=1, max_length=64)
    use_sudo: bool = False
    ssh_key_secret: SecretName
    """Secret that holds the private key under ``value``; it is named, never read."""
    clean_up: tuple[str, ...] = Field(default=(), max_length=64)
    """Commands that clean the machine when it has left."""


def repeated(machines: Sequence[SshMachine]) -> str:
    """What two machines have in common that would make them one; empty when nothing."""
    for what, values in (
        ("name", [machine.name for machine in machines]),
        ("address", [f"{machine.address}:{machine.port}" for machine in machines]),
    ):
        if twice := sorted({value for value in values if values.count(value) > 1}):
            return f"two machines have the {what} {', '.join(twice)}"
    return ""
