"""An authority and the certificates that it signs, for mutual TLS within one fleet."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from pydantic import TypeAdapter, ValidationError

from windfall.cli.identity.authority import Signed, alternative_names, authority_in, issue, pem, put, write
from windfall.contracts.message import Name
from windfall.servicekit.errors import Mistake

AUTHORITY: Final = "authority"
_RENEWED_AT: Final = 1 / 3
"""Of its life that is left."""


@dataclass(frozen=True)
class Place:
    """The hub or a site, and the names by which others reach its servers."""

    name: str
    hosts: tuple[str, ...]


def place_of(text: str) -> Place:
    """Read ``site-a`` or ``site-a=nats-a,10.0.0.7``. Every place can also be reached as ``localhost``.

    Raises:
        Mistake: that names no place.
    """
    name, _, hosts = text.partition("=")
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise Mistake(f"{name!r} names no place", "Write PLACE, or PLACE=HOST,HOST") from error
    if name == AUTHORITY:
        raise Mistake(f"{name!r} is where the authority lies", "Name the place otherwise")
    return Place(name, tuple(host.strip() for host in hosts.split(",") if host.strip()))


def issued(folder: Path, places: Sequence[Place], lasts: timedelta, now: datetime) -> Iterator[str]:
    """Make what is missing or runs out, and say for each place what was done.

    Raises:
        Mistake: the authority that lies there cannot be used.
        OSError: the folder cannot be written.
    """
    authority = authority_in(folder / AUTHORITY, now)
    for place in places:
        until = _good_until(folder / place.name, authority, place, now)
        if until is not None:
            yield f"{folder / place.name}: good until {until:%Y-%m-%d}"
            continue
        signed = issue(place.name, place.hosts, authority, now, lasts)
        write(folder / place.name, "tls", signed)
        put(folder / place.name / "ca.crt", pem(authority.certificate), 0o644)
        yield f"{folder / place.name}: made, good until {now + lasts:%Y-%m-%d}"


def _good_until(folder: Path, authority: Signed, place: Place, now: datetime) -> datetime | None:
    """Until when a place's files hold; none when they are to be made anew."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
        certificate.verify_directly_issued_by(authority.certificate)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return None
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    whole = (
        (folder / "tls.key").exists()
        and (folder / "ca.crt").exists()
        and set(named) == set(alternative_names(place.hosts))
    )
    return ends if whole and ends - now > (ends - begins) * _RENEWED_AT else None
