"""This machine: its disk, the certificates that it shows, the Python that it runs."""

import shutil
import ssl
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from windfall.cli.counting import counted
from windfall.cli.doctor.finding import Finding, failure, good, warning

_LITTLE_BYTES: Final = 2 * 2**30
_FULL_BYTES: Final = 256 * 2**20
_SOON: Final = timedelta(days=14)


def disk(free_bytes: int, where: str) -> Finding:
    """Whether there is room for journals and models."""
    room = f"{free_bytes / 2**30:.1f} GiB free {where}"
    if free_bytes < _FULL_BYTES:
        return failure("disk", room, "Free space: services end with code 5 when they cannot write")
    if free_bytes < _LITTLE_BYTES:
        return warning("disk", room, "Free space, or move runs and state to another disk")
    return good("disk", room)


def certificate(name: str, ends_at: datetime, now: datetime) -> Finding:
    """Whether it is still believed, and for how long."""
    left = ends_at - now
    until = f"{name} is valid until {ends_at:%Y-%m-%d}"
    if left <= timedelta(0):
        return failure("keys", f"{name} ran out on {ends_at:%Y-%m-%d}", "Make new ones with `windfall keys`")
    if left < _SOON:
        return warning(
            "keys", f"{until}, {counted(left.days, 'days')}", "Make new ones with `windfall keys` before that day"
        )
    return good("keys", until)


def look(files: dict[str, Path | None], now: datetime) -> Iterator[Finding]:
    """Everything of this machine.

    Args:
        files: certificates by what they are; none where there is none.
    """
    version = ".".join(map(str, sys.version_info[:3]))
    yield good("python", version)
    yield disk(shutil.disk_usage(".").free, "here")
    for name, path in files.items():
        if path is not None:
            yield _certificate_of(name, path, now)


def _certificate_of(name: str, path: Path, now: datetime) -> Finding:
    # Imported here: without TLS nobody needs it.
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError, ssl.SSLError) as error:
        return failure("keys", f"{name} {path} cannot be read ({error})", "Give a PEM certificate, or unset it")
    return certificate(name, found.not_valid_after_utc.astimezone(UTC), now)
