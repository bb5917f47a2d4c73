"""Signing requests of a site: made where its keys lie, looked at and signed at the hub.

What a request wants beyond its key counts for nothing: name, uses and life of a certificate are the hub's to say. A
site's certificate opens connections and serves none, so that no site can stand in for the hub.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from windfall.cli.identity.authority import Signed, certify
from windfall.cli.identity.register import Cause, Refusal
from windfall.contracts.subjects import SITE_SERVICES
from windfall.servicekit.admission import identity

LEAF: Final = "leaf"
"""A site's NATS server."""
CERTIFIED: Final = (LEAF, *SITE_SERVICES)
"""Who at a site may have a certificate."""


def requested(site: str, service: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A signing request for a key, DER."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, site)])
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity(site, service))])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(names, False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def certified(
    request: bytes, site: str, service: str, authority: Signed, now: datetime, lasts: timedelta
) -> x509.Certificate:
    """The certificate for a request of one service of a site.

    Raises:
        Refusal: it is no request, or about somebody else.
    """
    if service not in CERTIFIED:
        raise Refusal(Cause.REQUEST, f"{service!r} is no service of a site", f"There are {', '.join(CERTIFIED)}")
    key = _key_of(request, site)
    names: Sequence[x509.GeneralName] = [
        x509.UniformResourceIdentifier(identity(site, service)),
        x509.DNSName(site),
    ]
    return certify(key, site, names, authority, now, lasts, serves=False)


def _key_of(request: bytes, site: str) -> ec.EllipticCurvePublicKey:
    again = "Join with the `windfall` that is installed there, which makes its own requests"
    try:
        found = x509.load_der_x509_csr(request)
        whole, key = found.is_signature_valid, found.public_key()
        named = [str(part.value) for part in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise Refusal(Cause.REQUEST, "the signing request cannot be read", again) from error
    if not whole:
        raise Refusal(Cause.REQUEST, "the signing request was not signed with the key that it is about", again)
    if named != [site]:
        raise Refusal(
            Cause.REQUEST, f"the signing request is for {', '.join(named) or 'nobody'}, and the token for {site}", again
        )
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Refusal(Cause.REQUEST, "the signing request has a key of another kind than ECDSA P-256", again)
    return key
