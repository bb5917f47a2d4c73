"""Signatures by the private keys of TLS certificates: made where the key lies, checked by whoever holds the certificate
of the authority that signed them.

The certificate goes along with the signature, so that nobody has to be told a key, and one that is renewed counts from
its first signature on.
"""

import logging
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from windfall.servicekit.admission import Revoked, site_named
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.tls import Tls, stamp

log = logging.getLogger(__name__)

_PSS: Final = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
_MOST_BYTES: Final = 8192
"""Of a certificate that a stranger sends."""

_Private = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


class Unproven(Exception):
    """A signature proves nothing; why, in one line."""


class Signer:
    """Signs with the key of a certificate, and with the new one once it is replaced."""

    def __init__(self, tls: Tls) -> None:
        self._tls = tls
        self._seen: object = None
        self._pair: tuple[_Private, bytes] | None = None

    def sign(self, data: bytes) -> tuple[bytes, bytes]:
        """The certificate (DER), and the signature of its key.

        Raises:
            Transient: the files are just being replaced.
        """
        key, certificate = self._current()
        return certificate, _signed(key, data)

    def _current(self) -> tuple[_Private, bytes]:
        try:
            now = stamp(self._tls.shown)
            if self._pair is None or now != self._seen:
                # Key and certificate are two files: one may have been replaced before the other.
                self._pair, self._seen = _pair(self._tls), now
        except (OSError, ValueError) as error:
            if self._pair is None:
                raise Transient(f"the certificate {self._tls.certificate.name} is being replaced ({error})") from error
        return self._pair


def signer_of(tls: Tls | None, site: str) -> Signer | None:
    """Who signs for a site; none where its certificate does not name it, for nobody would know the key as the site's.

    Raises:
        Mistake: the files cannot be used.
    """
    if tls is None:
        return None
    try:
        made = x509.load_pem_x509_certificate(tls.certificate.read_bytes())
        if site_named(made) != site:
            return None
        _pair(tls)
    except (OSError, ValueError) as error:
        raise Mistake(
            f"the certificate {tls.certificate} with key {tls.key} cannot sign ({error})",
            "Give PEM files: a certificate, and its ECDSA, Ed25519 or RSA key without a password",
            ExitCode.RESOURCE,
        ) from error
    return Signer(tls)


class Trusted:
    """Authorities in a file, read anew when it is replaced. What cannot be read then leaves those before in force."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._found: tuple[x509.Certificate, ...] = ()

    def __call__(self) -> tuple[x509.Certificate, ...]:
        """
        Raises:
            Mistake: the file could not be read even once.
        """
        try:
            status = self._path.stat()
            now = (status.st_ino, status.st_mtime_ns)
            if now != self._seen:
                self._found, self._seen = authorities(self._path), now
        except (Mistake, OSError) as error:
            if not self._found:
                raise error if isinstance(error, Mistake) else _no_authority(self._path, error) from error
            log.warning("keeps to the authority before: %s", error)
        return self._found


def authorities(path: Path) -> tuple[x509.Certificate, ...]:
    """The certificates of a PEM file.

    Raises:
        Mistake: it cannot be read, or holds none.
    """
    try:
        return tuple(x509.load_pem_x509_certificates(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise _no_authority(path, error) from error


def proven(
    data: bytes,
    signature: bytes,
    certificate: bytes,
    trusted: tuple[x509.Certificate, ...],
    at: datetime,
    revoked: Revoked | None = None,
) -> str:
    """The site whose key signed.

    Args:
        certificate: DER.
        trusted: who may have signed the certificate.
        at: when it must have counted.
        revoked: serials that do not count; none: nobody looks.

    Raises:
        Unproven: the signature or its certificate does not hold, or it names no site.
    """
    if len(certificate) > _MOST_BYTES:
        raise Unproven(f"the certificate has {len(certificate)} bytes, at most {_MOST_BYTES} are looked at")
    try:
        found = x509.load_der_x509_certificate(certificate)
        site, key = site_named(found), found.public_key()
    except ValueError as error:
        raise Unproven("the certificate cannot be read") from error
    if not any(_issued(found, one) for one in trusted):
        raise Unproven("the certificate is of another authority")
    if not found.not_valid_before_utc <= at <= found.not_valid_after_utc:
        raise Unproven(f"the certificate held until {found.not_valid_after_utc.isoformat()}")
    if revoked is not None and f"{found.serial_number:x}" in revoked:
        raise Unproven("the certificate was revoked")
    if not site:
        raise Unproven("the certificate names no site")
    try:
        _check(key, signature, data)
    except InvalidSignature as error:
        raise Unproven(f"the signature is not of {site}'s key over what is said here") from error
    return site


def _no_authority(path: Path, error: Exception) -> Mistake:
    return Mistake(
        f"{path} holds no certificate that can be read ({error})",
        "Give the PEM certificate of the fleet's authority (ca.crt)",
        ExitCode.RESOURCE,
    )


def _issued(certificate: x509.Certificate, by: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(by)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _pair(tls: Tls) -> tuple[_Private, bytes]:
    """Key and certificate (DER) that belong together. Raises ``OSError`` or ``ValueError``."""
    certificate = x509.load_pem_x509_certificate(tls.certificate.read_bytes())
    try:
        key = serialization.load_pem_private_key(tls.key.read_bytes(), None)
    except TypeError as error:
        raise ValueError("the key has a password") from error
    if not isinstance(key, _Private):
        raise ValueError("the key is of a kind that is not used here")
    if key.public_key() != certificate.public_key():
        raise ValueError("the key is not the certificate's")
    return key, certificate.public_bytes(serialization.Encoding.DER)


def _signed(key: _Private, data: bytes) -> bytes:
    match key:
        case ec.EllipticCurvePrivateKey():
            return key.sign(data, ec.ECDSA(hashes.SHA256()))
        case ed25519.Ed25519PrivateKey():
            return key.sign(data)
        case rsa.RSAPrivateKey():
            return key.sign(data, _PSS, hashes.SHA256())


def _check(key: object, signature: bytes, data: bytes) -> None:
    match key:
        case ec.EllipticCurvePublicKey():
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        case ed25519.Ed25519PublicKey():
            key.verify(signature, data)
        case rsa.RSAPublicKey():
            key.verify(signature, data, _PSS, hashes.SHA256())
        case _:
            raise InvalidSignature
