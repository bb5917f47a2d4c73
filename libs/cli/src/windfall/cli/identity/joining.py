"""A site is enrolled: its keys are made here and never leave, what certifies them comes from the hub.

``python -m windfall.cli.identity.joining``, started by ``windfall site join``. It may be stopped and started again: the
same keys are shown under the same token.
"""

import asyncio
import logging
import os
import socket
import ssl
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import grpc
import grpc.aio
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict

from windfall.cli import nkeys
from windfall.cli.identity import token
from windfall.cli.identity.authority import fingerprint, pem, private_pem, put
from windfall.cli.identity.folders import SiteFile, SiteFolder
from windfall.cli.identity.signing import CERTIFIED, LEAF, requested
from windfall.cli.identity.token import OneTime
from windfall.contracts.subjects import SITE_SERVICES
from windfall.contracts.v1 import enrolment_pb2 as pb
from windfall.contracts.v1.enrolment_pb2_grpc import EnrolmentStub
from windfall.servicekit import nkey
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.nats_rules import ADMIN
from windfall.servicekit.natsserver import free_port
from windfall.servicekit.settings import load

log = logging.getLogger(__name__)

_KNOCK_S: Final = 10.0
_ANSWER_S: Final = 20.0


class JoinSettings(BaseModel):
    """What the process is told."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    site_dir: Path
    """Folder of the site."""
    hub: str
    """``host:port`` of the hub's enrolment."""
    token: str
    """As the hub printed it."""


async def enrol(folder: SiteFolder, hub: str, shown: OneTime) -> SiteFile:
    """Have this site's keys certified, and put down what it was admitted to.

    Raises:
        Mistake: the hub is away, is not the one that gave the token, or refuses.
    """
    now = datetime.now(UTC)
    authority = await believed(hub, shown, now)
    keys = {service: _key(folder.keys / service / "tls.key") for service in CERTIFIED}
    for _ in nkeys.made(folder.nkeys, (LEAF, *SITE_SERVICES, ADMIN)):
        pass
    request = pb.EnrolRequest(
        site=shown.site,
        secret=shown.secret,
        requests=[
            pb.SigningRequest(service=service, request=_request(folder, shown.site, service, key))
            for service, key in keys.items()
        ],
        leaf_nkey=nkey.read(folder.nkeys / f"{LEAF}.nk").public,
        at_unix_ms=round(now.timestamp() * 1000),
    )
    admission = await _admitted(hub, authority, request)
    for one in admission.certificates:
        certificate = x509.load_der_x509_certificate(one.certificate)
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature) as error:
            raise Mistake(
                f"the hub at {hub} sent a certificate that its authority did not sign", "Tell whoever runs it"
            ) from error
        if one.service in keys and certificate.public_key() == keys[one.service].public_key():
            put(folder.keys / one.service / "ca.crt", pem(authority), 0o644)
            put(folder.keys / one.service / "tls.crt", pem(certificate), 0o644)
    if missing := [service for service in CERTIFIED if not (folder.keys / service / "tls.crt").exists()]:
        raise Mistake(f"the hub at {hub} certified no key of {', '.join(missing)}", "Run the same version at both ends")
    site = SiteFile(
        site=shown.site,
        hub=hub,
        federation=admission.federation,
        coordinator=admission.coordinator,
        leaf=admission.leaf,
        nats_port=free_port(),
    )
    folder.write(site)
    return site


async def believed(hub: str, shown: OneTime, now: datetime) -> x509.Certificate:
    """The fleet's authority, which the token confirms. Nothing secret is said before that.

    Raises:
        Mistake: nobody answers, the clock is wrong, or whoever answers is not whom the token means.
    """
    seen = await asyncio.to_thread(_shown_at, hub)
    begins, ends = seen.not_valid_before_utc, seen.not_valid_after_utc
    if not begins <= now <= ends:
        raise Mistake(
            f"the hub's certificate holds from {begins:%Y-%m-%d %H:%M}Z to {ends:%Y-%m-%d %H:%M}Z, "
            f"and this machine's clock says {now:%Y-%m-%d %H:%M}Z",
            "Set the clock that is wrong (NTP); if none is, start the hub again, which makes its certificate anew",
        )
    async with _channel(hub, seen) as channel:
        answer = await _called(hub, EnrolmentStub(channel).Authority(pb.AuthorityRequest(), timeout=_ANSWER_S))
    try:
        authority = x509.load_der_x509_certificate(answer.certificate)
        seen.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise _another(hub) from error
    if fingerprint(authority) != shown.fingerprint:
        raise _another(hub)
    return authority


def _another(hub: str) -> Mistake:
    return Mistake(
        f"the hub at {hub} is not the one that gave this token: its authority has another fingerprint",
        "Check the address; if it is right, somebody stands between you and the hub, or its keys were made anew",
        ExitCode.SERVER,
    )


def _shown_at(hub: str) -> x509.Certificate:
    """The certificate of whoever answers there, believed in nothing yet."""
    host, _, port = hub.rpartition(":")
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    unverified.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host, int(port)), timeout=_KNOCK_S) as knocking,
            unverified.wrap_socket(knocking, server_hostname=host) as secured,
        ):
            der = secured.getpeercert(binary_form=True)
    except (OSError, ValueError, OverflowError) as error:
        raise _away(hub, str(error)) from error
    assert der is not None, "a server shows one"
    return x509.load_der_x509_certificate(der)


def _away(hub: str, why: str) -> Mistake:
    return Mistake(
        f"no hub answers at {hub} ({why})",
        "Check the address (HOST:PORT, as `windfall hub up` says it), that the hub runs, and the way to it",
        ExitCode.SERVER,
    )


async def _admitted(hub: str, authority: x509.Certificate, request: pb.EnrolRequest) -> pb.Admission:
    async with _channel(hub, authority) as channel:
        replies = EnrolmentStub(channel).Enrol(request)
        try:
            async for reply in replies:
                if reply.WhichOneof("kind") == "admission":
                    admission: pb.Admission = reply.admission
                    return admission
                sys.stderr.write(
                    f"windfall: waits until somebody at the hub says `windfall site approve {request.site}`\n"
                )
                sys.stderr.flush()
        except grpc.aio.AioRpcError as error:
            raise _told(hub, error) from error
    raise _away(hub, "it hung up")


async def _called(hub: str, call: Any) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise _told(hub, error) from error


def _told(hub: str, error: grpc.aio.AioRpcError) -> Mistake:
    detail = error.details() or error.code().name
    if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
        return _away(hub, " ".join(detail.split()))
    cause, _, cure = detail.partition(". ")
    return Mistake(f"the hub refuses: {cause}", cure or "See the hub's logs", ExitCode.SERVER)


def _channel(hub: str, root: x509.Certificate) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(hub, grpc.ssl_channel_credentials(pem(root)))


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key that lies there; a new one where there is none."""
    if not path.exists():
        put(path, private_pem(ec.generate_private_key(ec.SECP256R1())), 0o600)
    try:
        found = serialization.load_pem_private_key(path.read_bytes(), None)
    except ValueError as error:
        raise Mistake(f"{path} is no private key", "Remove it; another one is made", ExitCode.RESOURCE) from error
    assert isinstance(found, ec.EllipticCurvePrivateKey), "we make no other"
    return found


def _request(folder: SiteFolder, site: str, service: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """The same one each time: signatures differ, and the hub knows the site again by what it asked for."""
    path = folder.keys / service / f"{site}.csr"
    if not path.exists():
        put(path, requested(site, service, key), 0o644)
    return path.read_bytes()


def main() -> int:
    """Enrol, or say in one line why not."""
    try:
        settings = load(JoinSettings, os.environ)
        site = asyncio.run(enrol(SiteFolder(settings.site_dir), settings.hub, token.read(settings.token)))
        sys.stderr.write(f"windfall: {site.site} is enrolled in {site.federation}\n")
    except Mistake as mistake:
        sys.stderr.write(f"windfall: {mistake}\n")
        return mistake.exit_code
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
