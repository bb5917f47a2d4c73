"""Keeps a site's certificates from ending: a new key, certified by the hub, long before the old one's end.

Nothing is restarted for it: gRPC looks at its files at each connection, and the NATS server is asked to read its own.
``python -m windfall.cli.identity.keeping``, started by ``windfall site join``.
"""

import asyncio
import logging
import os
import signal
import sys
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict

from windfall.cli.identity.authority import SKEW, pem, private_pem, put
from windfall.cli.identity.folders import SiteFile, SiteFolder
from windfall.cli.identity.signing import CERTIFIED, LEAF, requested
from windfall.contracts.v1 import enrolment_pb2 as pb
from windfall.contracts.v1.enrolment_pb2_grpc import EnrolmentStub
from windfall.servicekit import logs
from windfall.servicekit.clock import Clock, SystemClock
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.health import Health
from windfall.servicekit.rpc import PASSING
from windfall.servicekit.settings import load
from windfall.servicekit.tls import Tls

log = logging.getLogger(__name__)

KEEPER: Final = "keeper"
_RENEWED_AT: Final = 2 / 3
"""Of its life that is over."""
AGAIN: Final = timedelta(minutes=1)
AT_LEAST: Final = timedelta(seconds=1)
_ANSWER_S: Final = 20.0


class KeeperSettings(BaseModel):
    """What the process is told."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    site_dir: Path
    """Folder of the site."""


def due(certificate: x509.Certificate) -> datetime:
    """When a certificate is to be renewed."""
    begins = certificate.not_valid_before_utc + SKEW
    return begins + (certificate.not_valid_after_utc - begins) * _RENEWED_AT


async def keep(folder: SiteFolder, site: SiteFile, clock: Clock) -> None:
    """Renew whatever is due, for ever.

    Raises:
        Mistake: the hub refuses: the site is not one of its own any longer.
    """
    mend(folder)
    while True:
        next_at = min(due(certificate(folder.tls(service))) for service in CERTIFIED)
        await clock.sleep(max(AT_LEAST, next_at - clock.now()))
        try:
            for service in CERTIFIED:
                if due(certificate(folder.tls(service))) <= clock.now():
                    await renew(folder, site, service)
        except Transient as error:
            log.warning("not all is renewed yet: %s", error)
            await clock.sleep(AGAIN)


async def renew(folder: SiteFolder, site: SiteFile, service: str) -> None:
    """Put a new key and its certificate in place of a service's.

    Raises:
        Transient: the hub does not answer.
        Mistake: it refuses.
    """
    files = folder.tls(service)
    before = certificate(files)
    held = _key(files.key)
    key = ec.generate_private_key(ec.SECP256R1())
    request = requested(site.site, service, key)
    asked = pb.RenewRequest(
        certificate=before.public_bytes(serialization.Encoding.DER),
        request=request,
        signature=held.sign(request, ec.ECDSA(hashes.SHA256())),
    )
    credentials = grpc.ssl_channel_credentials(files.authority.read_bytes())
    async with grpc.aio.secure_channel(site.hub, credentials) as channel:
        try:
            reply = await EnrolmentStub(channel).Renew(asked, timeout=_ANSWER_S)
        except grpc.aio.AioRpcError as error:
            if error.code() in PASSING:
                raise Transient(f"the hub at {site.hub} does not answer ({error.details()})") from error
            cause, _, cure = (error.details() or "").partition(". ")
            raise Mistake(f"the hub refuses to renew {service}: {cause}", cure, ExitCode.SERVER) from error
    made = x509.load_der_x509_certificate(reply.certificate)
    # Two files: whoever dies between them finds the key that goes with the certificate beside it.
    put(_before(files), private_pem(held), 0o600)
    put(files.key, private_pem(key), 0o600)
    put(files.certificate, pem(made), 0o644)
    _before(files).unlink()
    log.info("%s is renewed until %s", service, f"{made.not_valid_after_utc:%Y-%m-%d %H:%M}Z")
    if service == LEAF:
        with suppress(FileNotFoundError, ProcessLookupError):
            os.kill(int((folder.nats / "nats.pid").read_text(encoding="ascii")), signal.SIGHUP)


def certificate(files: Tls) -> x509.Certificate:
    """The one that lies there.

    Raises:
        Mistake: it cannot be read.
    """
    try:
        return x509.load_pem_x509_certificate(files.certificate.read_bytes())
    except (OSError, ValueError) as error:
        raise Mistake(
            f"{files.certificate} cannot be read ({error})", "Join again with a token", ExitCode.RESOURCE
        ) from error


def mend(folder: SiteFolder) -> None:
    """Put back the key that goes with a certificate, where somebody died between the two files of a renewal."""
    for files in map(folder.tls, CERTIFIED):
        kept = _before(files)
        if kept.exists() and _key(kept).public_key() == certificate(files).public_key():
            kept.replace(files.key)


def _before(files: Tls) -> Path:
    return files.key.with_name("tls.before.key")


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        found = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError) as error:
        raise Mistake(f"{path} cannot be read ({error})", "Join again with a token", ExitCode.RESOURCE) from error
    assert isinstance(found, ec.EllipticCurvePrivateKey), "we make no other"
    return found


async def _run(settings: KeeperSettings) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    folder = SiteFolder(settings.site_dir)
    health = Health(0, folder.state(KEEPER), lambda: "")
    health.beat()
    keeping = asyncio.ensure_future(keep(folder, folder.read(), SystemClock()))
    stopped = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait((keeping, stopped), return_when=asyncio.FIRST_COMPLETED)
        if keeping.done():
            await keeping
    finally:
        keeping.cancel()
        stopped.cancel()
        health.close()


def main() -> int:
    """Run until SIGTERM."""
    try:
        logs.to_stderr(KEEPER, os.environ)
        asyncio.run(_run(load(KeeperSettings, os.environ)))
    except Mistake as mistake:
        sys.stderr.write(f"windfall {KEEPER}: {mistake}\n")
        return mistake.exit_code
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
