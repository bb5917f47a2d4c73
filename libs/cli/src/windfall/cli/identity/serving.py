"""The hub's enrolment as a process: sites ask at its gRPC door, whoever may write the hub's folder at its desk.

``python -m windfall.cli.identity.serving``, started by ``windfall hub up``.
"""

import asyncio
import logging
import os
import signal
import sys
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import grpc
from cryptography.hazmat.primitives import serialization
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from windfall.cli.identity.authority import Signed, authority_in
from windfall.cli.identity.desk import desk
from windfall.cli.identity.doors import Doors
from windfall.cli.identity.folders import COORDINATOR, ENROLMENT, HubFile, HubFolder
from windfall.cli.identity.hub_keeping import keep
from windfall.cli.identity.register import Cause, Certified, Refusal, Wish
from windfall.cli.identity.registrar import Registrar
from windfall.contracts.message import Name
from windfall.contracts.v1 import enrolment_pb2 as pb
from windfall.contracts.v1.enrolment_pb2_grpc import EnrolmentServicer, add_EnrolmentServicer_to_server
from windfall.servicekit import logs, nkey
from windfall.servicekit.clock import SystemClock
from windfall.servicekit.errors import ExitCode, Mistake
from windfall.servicekit.health import Health
from windfall.servicekit.journal import Journal
from windfall.servicekit.nats_rules import ADMIN
from windfall.servicekit.rpc import serve, serving
from windfall.servicekit.settings import load

log = logging.getLogger(__name__)

_LARGEST_REQUEST: Final = 4096
_MOST_REQUESTS: Final = 8
_STATUSES: Final = {
    Cause.TOKEN: grpc.StatusCode.UNAUTHENTICATED,
    Cause.CERTIFICATE: grpc.StatusCode.UNAUTHENTICATED,
    Cause.CLOCK: grpc.StatusCode.FAILED_PRECONDITION,
    Cause.REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    Cause.UNKNOWN: grpc.StatusCode.NOT_FOUND,
}


class EnrolmentSettings(BaseModel):
    """What the process is told."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    hub_dir: Path
    """Folder of the hub."""
    approve: bool = False
    """Whoever has a token is admitted, and nobody need approve."""
    certificate_lasts: timedelta = timedelta(days=90)
    """How long a certificate is good for, a site's or the hub's own."""


class EnrolmentService(EnrolmentServicer):
    """See ``proto/windfall/contracts/v1/enrolment.proto``."""

    def __init__(self, registrar: Registrar, authority: Signed, hub: HubFile) -> None:
        self._registrar, self._authority, self._hub = registrar, authority, hub

    async def Authority(self, request: pb.AuthorityRequest, context: Any) -> pb.AuthorityReply:  # noqa: N802 - gRPC's name
        return pb.AuthorityReply(certificate=self._authority.certificate.public_bytes(serialization.Encoding.DER))

    async def Enrol(self, request: pb.EnrolRequest, context: Any) -> AsyncIterator[pb.EnrolReply]:  # noqa: N802 - gRPC's name
        with serving(context, "Enrolment/Enrol", {"windfall.site": request.site}):
            try:
                wish = wish_of(request)
                theirs = datetime.fromtimestamp(request.at_unix_ms / 1000, UTC)
                async for certificates in self._registrar.enrol(wish, request.secret, theirs):
                    if certificates is None:
                        log.info("%s asks to be enrolled: `windfall site approve %s`", wish.site, wish.site)
                        yield pb.EnrolReply(waiting=pb.Waiting())
                    else:
                        log.info("%s is enrolled", wish.site)
                        yield pb.EnrolReply(admission=self._admission(wish.site, certificates))
            except Refusal as refusal:
                await _refuse(context, refusal)
            except Mistake as mistake:
                await context.abort(grpc.StatusCode.INTERNAL, str(mistake))

    async def Renew(self, request: pb.RenewRequest, context: Any) -> pb.RenewReply:  # noqa: N802 - gRPC's name
        with serving(context, "Enrolment/Renew"):
            try:
                made = await self._registrar.renew(request.certificate, request.request, request.signature)
            except Refusal as refusal:
                await _refuse(context, refusal)
            return pb.RenewReply(certificate=b64decode(made.der))

    def _admission(self, site: str, certificates: tuple[Certified, ...]) -> pb.Admission:
        hub = self._hub
        member = self._registrar.register.members.get(site)
        guest = None if member is None else self._registrar.register.tenants.get(member.tenant)
        return pb.Admission(
            certificates=[pb.Certificate(service=one.service, certificate=b64decode(one.der)) for one in certificates],
            federation=guest.federation if guest else hub.federation,
            coordinator=guest.coordinator if guest else f"{hub.host}:{hub.coordinator_port}",
            leaf=f"{hub.host}:{hub.leaf_port}",
        )


def wish_of(request: pb.EnrolRequest) -> Wish:
    """What a site asks for, once it is known to be well formed.

    Raises:
        Refusal: it is not.
    """
    again = "Join with the `windfall` that is installed there"
    try:
        site = TypeAdapter(Name).validate_python(request.site)
        datetime.fromtimestamp(request.at_unix_ms / 1000, UTC)
    except (ValidationError, ValueError, OverflowError, OSError) as error:
        raise Refusal(Cause.REQUEST, "the request names no site, or no instant", again) from error
    if not nkey.is_public(request.leaf_nkey):
        raise Refusal(Cause.REQUEST, "the request has no public nkey of a NATS user", again)
    requests = {one.service: one.request for one in request.requests}
    large = any(len(one) > _LARGEST_REQUEST for one in requests.values())
    if not requests or len(request.requests) > _MOST_REQUESTS or large:
        raise Refusal(Cause.REQUEST, "the request has no signing requests, too many or too large ones", again)
    coded = {service: b64encode(one).decode() for service, one in requests.items()}
    return Wish(site=site, leaf_nkey=request.leaf_nkey, requests=coded)


async def _refuse(context: Any, refusal: Refusal) -> None:
    log.warning("refused: %s", refusal)
    await context.abort(_STATUSES[refusal.cause], str(refusal))


def _of_services(keys: Mapping[str, str]) -> Mapping[str, str]:
    return {name: key for name, key in keys.items() if name != ENROLMENT}


def _now() -> datetime:
    return datetime.now(UTC)


async def _run(settings: EnrolmentSettings) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    folder = HubFolder(settings.hub_dir)
    hub = folder.read()
    state = folder.state(ENROLMENT)
    authority = authority_in(folder.authority, _now())
    users = {name: nkey.read(folder.nkeys / f"{name}.nk").public for name in (COORDINATOR, ADMIN, ENROLMENT)}
    health = Health(0, state, lambda: "it does not stand")
    health.beat()
    journal = Journal(state / "enrolment.sqlite", f"/windfall/{ENROLMENT}")
    try:
        doors = Doors(folder, hub, users, os.getppid())
        registrar = Registrar(
            journal, authority, settings.certificate_lasts, settings.approve, doors.apply, _now, _of_services(users)
        )
        await registrar.begin()
        service = EnrolmentService(registrar, authority, hub)
        address = f"{hub.listen}:{hub.enrolment_port}"
        added = partial(add_EnrolmentServicer_to_server, service)
        server = await serve(address, [added], folder.tls(ENROLMENT), mutual=False)
        async with desk(folder.desk, registrar):
            health.lacking = lambda: ""
            log.info("enrols at %s", address)
            keeping = asyncio.create_task(
                keep(folder, hub, settings.certificate_lasts, SystemClock(), doors.read_again)
            )
            stopped = asyncio.create_task(stopping.wait())
            try:
                await asyncio.wait((keeping, stopped), return_when=asyncio.FIRST_COMPLETED)
                if keeping.done():
                    await keeping
            finally:
                keeping.cancel()
                stopped.cancel()
        await server.stop()
    finally:
        journal.close()
        health.close()


def main() -> int:
    """Run until SIGTERM."""
    try:
        logs.to_stderr(ENROLMENT, os.environ)
        asyncio.run(_run(load(EnrolmentSettings, os.environ)))
    except Mistake as mistake:
        sys.stderr.write(f"windfall {ENROLMENT}: {mistake}\n")
        return mistake.exit_code
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
