"""What both ends of a mutual TLS connection need, and where none is needed."""

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

Stamp = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Tls:
    """PEM files of one end of a mutual TLS connection."""

    certificate: Path
    key: Path
    authority: Path
    revoked: Path | None = None
    """Serials of certificates that no longer count, for who serves."""

    @property
    def shown(self) -> tuple[Path, Path, Path]:
        """What a handshake shows and believes."""
        return self.certificate, self.key, self.authority


def stamp(files: Iterable[Path]) -> Stamp:
    """Changes when one of the files is replaced.

    Raises:
        OSError: one is not there.
    """
    found = [path.stat() for path in files]
    return tuple((one.st_ino, one.st_mtime_ns) for one in found)


def is_loopback(address: str) -> bool:
    """Whether ``host:port`` (or ``unix:``) can be reached from this machine alone."""
    if address.startswith("unix:"):
        return True
    host = address.rsplit(":", 1)[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
