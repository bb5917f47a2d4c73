"""An authority and the certificates that it signs, for mutual TLS within one fleet."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from pydantic import TypeAdapter, ValidationError

from windfall.cli.identity.authority import Signed, alternative_names, authority_in, issue, pem, put, write
from windfall.contracts.message import Name
from windfall.servicekit.admission import identity
from windfall.servicekit.errors import Mistake

AUTHORITY: Final = "authority"
_ALL: Final = "site"
"""One certificate serves for all services of a site."""
_RENEWED_AT: Final = 1 / 3
"""Of its life that is left."""


@dataclass(frozen=True)
class Place:
    """The hub or a site, and the names by which others reach its servers."""

    name: str
    hosts: tuple[str, ...]
    site: bool = False
    """Its certificate names it as a site, so that it signs what it contributes and speaks for no other."""

    @property
    def alternatives(self) -> Sequence[x509.GeneralName]:
        """As its certificate has them."""
        hosts = alternative_names(self.hosts)
        return [*hosts, x509.UniformResourceIdentifier(identity(self.name, _ALL))] if self.site else hosts


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


def as_sites(places: Sequence[Place], names: Collection[str]) -> list[Place]:
    """The places, of which these are sites.

    Raises:
        Mistake: one of the names is none of the places.
    """
    if strange := sorted(set(names) - {place.name for place in places}):
        raise Mistake(f"{strange[0]!r} is said to be a site, and is none of the places", "Name it as a PLACE as well")
    return [replace(place, site=place.name in names) for place in places]


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
        signed = issue(place.name, place.alternatives, authority, now, lasts)
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
    whole = (folder / "tls.key").exists() and (folder / "ca.crt").exists() and set(named) == set(place.alternatives)
    return ends if whole and ends - now > (ends - begins) * _RENEWED_AT else None
