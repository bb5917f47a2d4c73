"""A certificate authority for mutual TLS between the two ends of a test."""

import datetime
import ipaddress
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from windfall.servicekit.admission import identity
from windfall.servicekit.tls import Tls

_HOUR: Final = datetime.timedelta(hours=1)


class Authority:
    """Signs certificates that hold for loopback. Its files lie in a folder of the test's."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign(name, self._key, authority=True)
        self.path = folder / f"{name}.pem"
        self.path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, site: str = "", lasts: datetime.timedelta = _HOUR) -> Tls:
        """A certificate and its key, for one end, in the place of those that it had.

        Args:
            site: that it names, as enrolment does; none without.
            lasts: from now on; one that is over has ended before.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, key, authority=False, site=site, lasts=lasts)
        paths = Tls(self.folder / f"{self.name}-{name}.pem", self.folder / f"{self.name}-{name}.key", self.path)
        replace(
            paths.key,
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )
        replace(paths.certificate, certificate.public_bytes(serialization.Encoding.PEM))
        return paths

    def _sign(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        *,
        authority: bool,
        site: str = "",
        lasts: datetime.timedelta = _HOUR,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        issuer = name if authority else self.name
        who = [x509.UniformResourceIdentifier(identity(site, "site-trainer"))] if site else []
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 2 * _HOUR)
            .not_valid_after(now + lasts)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")), *who]
                ),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )


def replace(path: Path, content: bytes) -> None:
    """Put a file in the place of another at once, as whoever rotates keys does."""
    draft = path.with_suffix(".draft")
    draft.write_bytes(content)
    draft.replace(path)
