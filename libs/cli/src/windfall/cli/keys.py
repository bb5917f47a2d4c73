"""An authority and the certificates that it signs, for mutual TLS within one fleet."""

import ipaddress
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pydantic import TypeAdapter, ValidationError

from windfall.contracts.message import Name
from windfall.servicekit.errors import ExitCode, Mistake

AUTHORITY: Final = "authority"
_AUTHORITY_LASTS: Final = timedelta(days=3650)
_RENEWED_AT: Final = 1 / 3
"""Of its life that is left."""
_SKEW: Final = timedelta(minutes=5)
"""How far another machine's clock may be behind."""


@dataclass(frozen=True)
class Place:
    """The hub or a site, and the names by which others reach its servers."""

    name: str
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class _Signed:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


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
    authority = _authority(folder / AUTHORITY, now)
    for place in places:
        until = _good_until(folder / place.name, authority, place, now)
        if until is not None:
            yield f"{folder / place.name}: good until {until:%Y-%m-%d}"
            continue
        signed = _sign(place.name, place.hosts, authority, now, lasts)
        _write(folder / place.name, "tls", signed)
        _put(folder / place.name / "ca.crt", _pem(authority.certificate), 0o644)
        yield f"{folder / place.name}: made, good until {now + lasts:%Y-%m-%d}"


def _authority(folder: Path, now: datetime) -> _Signed:
    key, certificate = folder / "ca.key", folder / "ca.crt"
    if not key.exists() and not certificate.exists():
        made = _sign("windfall", (), None, now, _AUTHORITY_LASTS)
        _write(folder, "ca", made)
        return made
    try:
        found = serialization.load_pem_private_key(key.read_bytes(), None)
        signed = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        raise Mistake(
            f"the authority in {folder} cannot be used ({error})",
            "Restore ca.key and ca.crt, or remove both and make every place's keys anew",
            ExitCode.RESOURCE,
        ) from error
    assert isinstance(found, ec.EllipticCurvePrivateKey), "we make no other"
    return _Signed(found, signed)


def _good_until(folder: Path, authority: _Signed, place: Place, now: datetime) -> datetime | None:
    """Until when a place's files hold; none when they are to be made anew."""
    try:
        certificate = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
        certificate.verify_directly_issued_by(authority.certificate)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return None
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    whole = (folder / "tls.key").exists() and (folder / "ca.crt").exists() and set(named) == set(_names(place.hosts))
    return ends if whole and ends - now > (ends - begins) * _RENEWED_AT else None


def _names(hosts: Sequence[str]) -> Sequence[x509.GeneralName]:
    return [_name(host) for host in dict.fromkeys((*hosts, "localhost", "127.0.0.1"))]


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _sign(name: str, hosts: Sequence[str], authority: _Signed | None, now: datetime, lasts: timedelta) -> _Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = subject if authority is None else authority.certificate.subject
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + lasts)
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=0 if authority is None else None), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(_usage(signs=authority is None), True)
    )
    if authority is not None:
        signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
        builder = builder.add_extension(signer, False)
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(both), False).add_extension(
            x509.SubjectAlternativeName(_names(hosts)), False
        )
    return _Signed(key, builder.sign(key if authority is None else authority.key, hashes.SHA256()))


def _usage(signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write(folder: Path, stem: str, signed: _Signed) -> None:
    plain = serialization.NoEncryption()
    pem = signed.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    _put(folder / f"{stem}.key", pem, 0o600)
    _put(folder / f"{stem}.crt", _pem(signed.certificate), 0o644)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _put(path: Path, content: bytes, mode: int) -> None:
    """Replace a file at once; nobody else can read it in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(path.suffix + ".draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    draft.replace(path)
