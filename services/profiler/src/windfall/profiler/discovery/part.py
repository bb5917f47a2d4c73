"""The port that every kind of part is found through, and what comes back.

A finder answers within its limit and does not raise: what it could not find out is named with the reason.
"""

from dataclasses import dataclass, field
from typing import Protocol

from windfall.contracts.hardware import Accelerator, Interconnect, Nic, Processor, Storage, System
from windfall.contracts.profile import Identity


@dataclass(frozen=True)
class Gpu:
    """One accelerator, which one it is, and what could not be found out of it."""

    accelerator: Accelerator
    identity: Identity
    missing: dict[str, str] = field(default_factory=dict)
    """Field of the accelerator → why."""


@dataclass(frozen=True)
class Part:
    """What one finder found. Whatever it does not look for stays empty."""

    gpus: tuple[Gpu, ...] = ()
    interconnects: tuple[Interconnect, ...] = ()
    """Numbered within ``gpus``."""
    processor: Processor | None = None
    nics: tuple[Nic, ...] = ()
    nic_names: tuple[str, ...] = ()
    storage: Storage | None = None
    storage_folder: str | None = None
    system: System | None = None
    missing: dict[str, str] = field(default_factory=dict)
    """Part → why, with paths where they help: they are left out of what leaves the site."""


class Finder(Protocol):
    """Looks for one kind of part.

    Raises:
        ValueError: what it was told cannot be read by anybody.
    """

    @property
    def name(self) -> str:
        """Of the part, as ``missing`` has it."""

    async def find(self) -> Part: ...
