"""This machine: its disk, the certificates and keys that it shows, the versions that it runs."""

import shutil
import ssl
import stat
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
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


def secret(name: str, path: Path) -> Finding:
    """Whether a file is there, and for its owner alone."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        return failure("keys", f"{name} {path} cannot be read ({error.strerror})", "Give the file's path, or unset it")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        return warning("keys", f"others may use {name} {path}", f"Run `chmod 600 {path}`")
    return good("keys", f"{name} is its owner's alone")


def look(
    certificates: Mapping[str, Path | None], secrets: Mapping[str, Path | None], now: datetime
) -> Iterator[Finding]:
    """Everything of this machine.

    Args:
        certificates: by what they are; none where there is none.
        secrets: files of keys, likewise.
    """
    yield good("versions", f"windfall {version('windfall-cli')}, Python {'.'.join(map(str, sys.version_info[:3]))}")
    yield disk(shutil.disk_usage(".").free, "here")
    for name, path in certificates.items():
        if path is not None:
            yield _certificate_of(name, path, now)
    for name, path in secrets.items():
        if path is not None:
            yield secret(name, path)


def _certificate_of(name: str, path: Path, now: datetime) -> Finding:
    # Imported here: without TLS nobody needs it.
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError, ssl.SSLError) as error:
        return failure("keys", f"{name} {path} cannot be read ({error})", "Give a PEM certificate, or unset it")
    return certificate(name, found.not_valid_after_utc.astimezone(UTC), now)
