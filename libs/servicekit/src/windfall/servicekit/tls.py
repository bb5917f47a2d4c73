"""What both ends of a mutual TLS connection need, and where none is needed."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tls:
    """PEM files of one end of a mutual TLS connection."""

    certificate: Path
    key: Path
    authority: Path
    revoked: Path | None = None
    """Serials of certificates that no longer count, for who serves."""


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
