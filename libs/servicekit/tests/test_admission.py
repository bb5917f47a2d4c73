"""Who is let in by a gRPC server beyond TLS: nobody whose certificate was revoked, nobody who speaks for another site;
and files that are replaced count from the next connection on."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from windfall.contracts.v1 import training_pb2 as pb
from windfall.contracts.v1.training_pb2_grpc import TrainingServicer, TrainingStub, add_TrainingServicer_to_server
from windfall.servicekit.admission import identity
from windfall.servicekit.rpc import connect, serve
from windfall.servicekit.tls import Tls

SECONDS = 60.0


class Fleet:
    """An authority, and certificates that name their sites."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        self.authority = folder / "ca.crt"
        made = self._begun(self._name, self._key).add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        self.authority.write_bytes(made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *names: x509.GeneralName, revoked: Path | None = None) -> Tls:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        made = self._begun(subject, key).add_extension(x509.SubjectAlternativeName(names), False)
        files = Tls(self.folder / f"{name}.crt", self.folder / f"{name}.key", self.authority, revoked)
        certificate = made.sign(self._key, hashes.SHA256())
        files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
        return files

    def site(self, name: str) -> Tls:
        return self.issue(name, x509.UniformResourceIdentifier(identity(name, "site-trainer")))

    def _begun(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(hours=1))
        )


def serial(files: Tls) -> str:
    return f"{x509.load_pem_x509_certificate(files.certificate.read_bytes()).serial_number:x}"


class Echoing(TrainingServicer):
    """Answers whatever it is asked, one way of each kind."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def Join(self, request: pb.JoinRequest, context: Any) -> pb.JoinReply:  # noqa: N802
        return pb.JoinReply(attempt=7)

    async def Heartbeat(self, beats: AsyncIterator[pb.Beat], context: Any) -> AsyncIterator[pb.Directive]:  # noqa: N802
        try:
            yield pb.Directive(stop=pb.Stop(reason="none"))
            async for _ in beats:
                pass
            # As the coordinator does: who says nothing any more is waited for.
            await asyncio.sleep(SECONDS)
        finally:
            self.over.set()

    async def Pull(self, request: pb.PullRequest, context: Any) -> AsyncIterator[pb.PullFrame]:  # noqa: N802
        for _ in range(3):
            yield pb.PullFrame(data=b"x")

    async def Push(self, frames: AsyncIterator[pb.PushFrame], context: Any) -> pb.PushReceipt:  # noqa: N802
        return pb.PushReceipt(duplicate=len([frame async for frame in frames]) == 2)


class Place:
    def __init__(self, folder: Path) -> None:
        self.fleet = Fleet(folder)
        self.revoked = folder / "revoked"
        self.revoked.write_text("")
        self.door = self.fleet.issue("hub", x509.DNSName("localhost"), revoked=self.revoked)
        self.servicer = Echoing()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Any]:
    made: Any = Place(tmp_path)
    server = await serve("127.0.0.1:0", [partial(add_TrainingServicer_to_server, made.servicer)], made.door)
    made.target = f"localhost:{server.port}"
    yield made
    await server.stop(timedelta(0))


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        async with asyncio.timeout(SECONDS):
            await call
    return error.value.code(), str(error.value.details())


def frames(site: str) -> list[pb.PushFrame]:
    manifest = pb.Manifest(key=pb.ContributionKey(site=site))
    return [pb.PushFrame(manifest=manifest), pb.PushFrame(data=b"x")]


async def test_a_site_speaks_for_itself_alone(place: Any) -> None:
    async with connect(place.target, place.fleet.site("quebec")) as channel:
        stub: Any = TrainingStub(channel)
        assert (await stub.Join(pb.JoinRequest(site="quebec"))).attempt == 7
        assert len([frame async for frame in stub.Pull(pb.PullRequest(site="quebec"))]) == 3
        assert (await stub.Push(iter(frames("quebec")))).duplicate
        denied = grpc.StatusCode.PERMISSION_DENIED, "the certificate is quebec's, which may not speak for texas"
        assert await refusal(stub.Join(pb.JoinRequest(site="texas"))) == denied
        assert await refusal(stub.Pull(pb.PullRequest(site="texas")).read()) == denied
        assert await refusal(stub.Push(iter(frames("texas")))) == denied


async def test_who_is_revoked_is_refused_on_the_connection_that_stands(place: Any) -> None:
    files = place.fleet.site("quebec")
    async with connect(place.target, files) as channel:
        stub: Any = TrainingStub(channel)
        session = stub.Heartbeat()
        await session.write(pb.Beat(site="quebec"))
        assert (await session.read()).HasField("stop")
        place.revoked.with_suffix(".new").write_text(serial(files))
        place.revoked.with_suffix(".new").replace(place.revoked)
        code, why = await refusal(stub.Join(pb.JoinRequest(site="quebec")))
        assert code is grpc.StatusCode.UNAUTHENTICATED and "revoked" in why
        # What is open ends with the next thing that is heard on it, which the first one may have been.
        with suppress(asyncio.InvalidStateError):
            await session.write(pb.Beat(site="quebec"))
        assert (await refusal(session.read()))[0] is grpc.StatusCode.UNAUTHENTICATED
        async with asyncio.timeout(SECONDS):
            await place.servicer.over.wait()
    async with connect(place.target, place.fleet.site("texas")) as channel:
        assert (await TrainingStub(channel).Join(pb.JoinRequest(site="texas"))).attempt == 7


async def test_a_certificate_that_names_no_site_speaks_for_any(place: Any) -> None:
    async with connect(place.target, place.fleet.issue("fleet", x509.DNSName("fleet"))) as channel:
        assert (await TrainingStub(channel).Join(pb.JoinRequest(site="texas"))).attempt == 7


async def test_replaced_files_count_at_both_ends_without_a_restart(place: Any, tmp_path: Path) -> None:
    """Both ends change to another authority, which none of the old files goes with."""
    files = place.fleet.site("quebec")
    async with connect(place.target, files) as channel:
        stub: Any = TrainingStub(channel)
        await stub.Join(pb.JoinRequest(site="quebec"))
        (tmp_path / "anew").mkdir()
        anew = Fleet(tmp_path / "anew")
        both = anew.issue("hub", x509.DNSName("localhost")), anew.site("quebec")
        for new, old in zip(both, (place.door, files), strict=True):
            shutil.copy(new.key, old.key)
            shutil.copy(new.certificate, old.certificate)
        shutil.copy(anew.authority, place.fleet.authority)
        assert (await stub.Join(pb.JoinRequest(site="quebec"), wait_for_ready=True, timeout=SECONDS)).attempt == 7
        assert serial(files) == serial(both[1])
