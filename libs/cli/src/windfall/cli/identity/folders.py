"""Where a hub and a site keep what they stand on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from windfall.cli.counting import counted
from windfall.cli.identity.authority import put
from windfall.contracts.message import Name
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.tls import Tls

ENROLMENT: Final = "enrolment"
COORDINATOR: Final = "federation-coordinator"
NATS: Final = "nats"
F = TypeVar("F", bound=BaseModel)


class HubFile(BaseModel):
    """What a hub was begun with, and is again: its addresses are in certificates and tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    federation: Name
    host: str
    """Under which sites reach it."""
    listen: str
    """Address at which its doors are."""
    enrolment_port: int
    leaf_port: int
    coordinator_port: int
    nats_port: int
    """Of clients on the hub itself, on loopback."""


class SiteFile(BaseModel):
    """What a site was admitted to."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    site: Name
    hub: str
    """``host:port`` of its enrolment."""
    federation: Name
    coordinator: str
    leaf: str
    nats_port: int


@dataclass(frozen=True)
class Folder:
    """Of a hub or a site."""

    path: Path

    @property
    def nkeys(self) -> Path:
        return self.path / "nkeys"

    @property
    def nats(self) -> Path:
        return self.path / NATS

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def keys(self) -> Path:
        return self.path / "keys"

    def state(self, service: str) -> Path:
        return self.path / "state" / service

    def tls(self, service: str, revoked: Path | None = None) -> Tls:
        """The files of one service."""
        keys = self.keys / service
        return Tls(keys / "tls.crt", keys / "tls.key", keys / "ca.crt", revoked)


@dataclass(frozen=True)
class HubFolder(Folder):
    """Of a hub: also the authority's."""

    @property
    def authority(self) -> Path:
        return self.keys / "authority"

    @property
    def revoked(self) -> Path:
        return self.state(ENROLMENT) / "revoked"

    @property
    def sites(self) -> Path:
        """Names of the default tenant's sites that are enrolled, one a line."""
        return self.state(ENROLMENT) / "sites"

    @property
    def lends(self) -> Path:
        """What the default tenant lends others, one loan a line."""
        return self.state(ENROLMENT) / "lends"

    @property
    def owners(self) -> Path:
        """Whose sites are, as JSON."""
        return self.state(ENROLMENT) / "owners"

    def tenant(self, name: str) -> Path:
        """Nkeys that were made here for another tenant."""
        return self.path / "tenants" / name

    @property
    def desk(self) -> Path:
        """Socket at which whoever may write this folder is served."""
        return self.path / "desk"

    def read(self) -> HubFile:
        """
        Raises:
            Mistake: no hub was begun here.
        """
        return _read(
            self.path / "hub.json", HubFile, "hub", "Name the folder of one with --dir, or run `windfall hub up`"
        )

    def write(self, hub: HubFile) -> None:
        put(self.path / "hub.json", hub.model_dump_json(indent=2).encode(), 0o644)


@dataclass(frozen=True)
class SiteFolder(Folder):
    """Of a site."""

    def read(self) -> SiteFile:
        """
        Raises:
            Mistake: no site was enrolled here.
        """
        cure = "Ask whoever runs the hub for a token, and give it with --token"
        return _read(self.path / "site.json", SiteFile, "enrolled site", cure)

    def write(self, site: SiteFile) -> None:
        put(self.path / "site.json", site.model_dump_json(indent=2).encode(), 0o644)

    @property
    def enrolled(self) -> bool:
        return (self.path / "site.json").exists()


def _read(path: Path, kind: type[F], what: str, cure: str) -> F:
    try:
        return kind.model_validate_json(path.read_bytes())
    except FileNotFoundError as error:
        raise Mistake(f"there is no {what} in {path.parent}", cure, ExitCode.RESOURCE) from error
    except ValidationError as error:
        raise Mistake(
            f"{path} cannot be read ({counted(error.error_count(), 'faults')})",
            "Restore it from a backup",
            ExitCode.RESOURCE,
        ) from error
