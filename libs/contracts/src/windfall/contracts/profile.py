"""The profile of a node as one document: what it is made of, what it was measured to do, and the settings that follow.

At its site it is ``profile.json`` in the profiler's folder, with :class:`Local`; whoever reads ``node.profiled``
elsewhere makes it with :func:`told`, without. Fields are added to a version and never change their meaning.
"""

from typing import Final, Literal

from pydantic import ConfigDict, Field

from windfall.contracts.events import Measured, NodeProfiled, Recommendation
from windfall.contracts.hardware import Hardware, Part
from windfall.contracts.message import Instant, Name

API_VERSION: Final = "windfall.dev/profile/v1"
PROFILE_FILE: Final = "profile.json"
"""In the profiler's folder of state."""


class Identity(Part):
    """Which accelerator it is."""

    uuid: str | None = None
    pci_address: str | None = None
    """``domain:bus:device.function`` in lower-case hexadecimal, four digits of domain: ``0000:1b:00.0``."""
    partitions: tuple[str, ...] = ()
    """UUIDs, in the order of the accelerator's partitions."""


class Local(Part):
    """What stays at the site: which devices they are and where they are found. No message has a field of this type."""

    accelerators: tuple[Identity, ...] = ()
    """In the order of ``Hardware.accelerators``."""
    nics: tuple[str, ...] = ()
    """Names of the interfaces, in the order of ``Hardware.nics``."""
    storage: str | None = None
    """The folder whose storage was looked at."""
    details: dict[str, str] = Field(default_factory=dict)
    """Part that is missing → why in full, with the paths that the sentence in ``Hardware.missing`` leaves out."""


class Profile(Part):
    """One node, at one time."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    api_version: Literal["windfall.dev/profile/v1"] = Field(default=API_VERSION, alias="apiVersion")
    site: Name
    node: Name
    at: Instant
    hardware: Hardware
    measured: Measured
    recommendation: Recommendation
    local: Local | None = None
    """None outside the site."""


def told(event: NodeProfiled, local: Local | None = None) -> Profile:
    """The profile that an event tells of; a speaker from before hardware was told made it of nothing."""
    return Profile(
        site=event.site,
        node=event.node,
        at=event.at,
        hardware=event.hardware or Hardware(),
        measured=event.measured,
        recommendation=event.recommendation,
        local=local,
    )
