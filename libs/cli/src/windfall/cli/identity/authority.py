"""A fleet's certificate authority, and the certificates that it signs."""

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from windfall.servicekit.errors import ExitCode, Mistake

_LASTS: Final = timedelta(days=3650)
SKEW: Final = timedelta(minutes=5)
"""How far another machine's clock may be behind."""
_BOTH: Final = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_CLIENT: Final = (ExtendedKeyUsageOID.CLIENT_AUTH,)


@dataclass(frozen=True)
class Signed:
    """A key and what certifies it."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def authority_in(folder: Path, now: datetime) -> Signed:
    """The authority that lies in a folder; a new one where there is none.

    Raises:
        Mistake: what lies there cannot be used.
        OSError: the folder cannot be written.
    """
    key, certificate = folder / "ca.key", folder / "ca.crt"
    if not key.exists() and not certificate.exists():
        made = _itself(now)
        write(folder, "ca", made)
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
    return Signed(found, signed)


def issue(
    name: str, alternatives: Sequence[x509.GeneralName], authority: Signed, now: datetime, lasts: timedelta
) -> Signed:
    """A new key and its certificate, for whoever serves and calls others; see :func:`certify`."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Signed(key, certify(key.public_key(), name, alternatives, authority, now, lasts))


def certify(
    public_key: ec.EllipticCurvePublicKey,
    name: str,
    alternatives: Sequence[x509.GeneralName],
    authority: Signed,
    now: datetime,
    lasts: timedelta,
    *,
    serves: bool = True,
) -> x509.Certificate:
    """What certifies a public key.

    Args:
        public_key: of whoever is certified.
        name: its common name.
        alternatives: by which others reach it, or know it.
        serves: whether it may be shown by a server, and not by a client alone.
    """
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    builder = (
        _begun(public_key, name, authority.certificate.subject, now, now + lasts)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        .add_extension(_usage(signs=False), True)
        .add_extension(signer, False)
        .add_extension(x509.ExtendedKeyUsage(_BOTH if serves else _CLIENT), False)
        .add_extension(x509.SubjectAlternativeName(alternatives), False)
    )
    return builder.sign(authority.key, hashes.SHA256())


def alternative_names(hosts: Sequence[str]) -> Sequence[x509.GeneralName]:
    """Hosts and addresses as a certificate has them; every place can also be reached as ``localhost``."""
    return [_name(host) for host in dict.fromkeys((*hosts, "localhost", "127.0.0.1"))]


def fingerprint(certificate: x509.Certificate) -> bytes:
    """SHA-256 of the whole certificate."""
    return certificate.fingerprint(hashes.SHA256())


def write(folder: Path, stem: str, signed: Signed) -> None:
    """Put STEM.key, which nobody else can read, and STEM.crt into a folder, as PEM."""
    put(folder / f"{stem}.key", private_pem(signed.key), 0o600)
    put(folder / f"{stem}.crt", pem(signed.certificate), 0o644)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def put(path: Path, content: bytes, mode: int) -> None:
    """Replace a file at once; nobody else can read it in between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(path.suffix + ".draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    draft.replace(path)


def _itself(now: datetime) -> Signed:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "windfall")])
    builder = (
        _begun(key.public_key(), "windfall", subject, now, now + _LASTS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(_usage(signs=True), True)
    )
    return Signed(key, builder.sign(key, hashes.SHA256()))


def _begun(
    public_key: ec.EllipticCurvePublicKey, name: str, issuer: x509.Name, now: datetime, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), False)
    )


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


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
