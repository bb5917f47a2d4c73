"""The double's certificate: it signs itself, and its kubeconfig says so. Clients send no token without TLS."""

import ipaddress
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_LASTS: Final = timedelta(days=365)


def certificate() -> tuple[bytes, bytes]:
    """A new certificate for loopback and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kube-api-double")])
    now = datetime.now(UTC)
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LASTS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    kept = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return signed.public_bytes(pem), kept


def loaded(state: Path | None) -> tuple[ssl.SSLContext, bytes]:
    """What to serve with, and the certificate in PEM. With a folder it is the same one after a restart."""
    if state is None:
        with tempfile.TemporaryDirectory() as folder:
            return _context(Path(folder))
    state.mkdir(parents=True, exist_ok=True)
    return _context(state)


def _context(folder: Path) -> tuple[ssl.SSLContext, bytes]:
    public, private = folder / "tls.crt", folder / "tls.key"
    if not private.exists():
        signed, key = certificate()
        public.write_bytes(signed)
        private.touch(mode=0o600)
        private.write_bytes(key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(public, private)
    return context, public.read_bytes()
