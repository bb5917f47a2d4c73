"""Certificates, keys and authorities that are replaced while both ends run, on real servers: nothing restarts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from cryptography import x509

from windfall.contracts.envelope import seal
from windfall.contracts.events import SignalRecovered
from windfall.contracts.subjects import site_streams
from windfall.contracts.v1 import link_probe_pb2 as pb
from windfall.contracts.v1.link_probe_pb2_grpc import (
    LinkProbeServicer,
    LinkProbeStub,
    add_LinkProbeServicer_to_server,
)
from windfall.servicekit.nats import NatsBus
from windfall.servicekit.nats_access import Access
from windfall.servicekit.nats_tls import NatsTls
from windfall.servicekit.natsserver import NatsServer
from windfall.servicekit.rpc import connect, serve
from windfall.servicekit.testing.authority import Authority, replace
from windfall.servicekit.testing.fixtures import started_server
from windfall.servicekit.testing.proxy import Proxy
from windfall.servicekit.tls import Tls

SECONDS = 60.0
RAN_OUT = timedelta(seconds=-1)


class Counting(LinkProbeServicer):
    """Answers a message, and sends a byte each time that it is told to."""

    def __init__(self) -> None:
        self.more = asyncio.Semaphore(0)

    async def Echo(self, request: pb.EchoMessage, context: Any) -> pb.EchoMessage:  # noqa: N802
        return request

    async def Source(self, request: pb.SourceRequest, context: Any) -> AsyncIterator[pb.ProbeChunk]:  # noqa: N802
        for _ in range(request.bytes):
            await self.more.acquire()
            yield pb.ProbeChunk(data=b"x")


class Ends:
    """A server and its client, each with files of its own, and the link between them."""

    def __init__(self, folder: Path, server: Tls, client: Tls, revoked: Path) -> None:
        self.servicer = Counting()
        self.server = self._apart(folder / "server", server, revoked)
        self.client = self._apart(folder / "client", client, None)

    @staticmethod
    def _apart(folder: Path, files: Tls, revoked: Path | None) -> Tls:
        folder.mkdir()
        made = Tls(folder / "tls.crt", folder / "tls.key", folder / "ca.crt", revoked)
        for old, new in zip(files.shown, made.shown, strict=True):
            replace(new, old.read_bytes())
        return made

    async def __aenter__(self) -> "Ends":
        added = partial(add_LinkProbeServicer_to_server, self.servicer)
        self._door = await serve("127.0.0.1:0", [added], self.server)
        self.link = await Proxy(f"127.0.0.1:{self._door.port}").__aenter__()
        self.channel = connect(self.link.address, self.client)
        self.stub: Any = LinkProbeStub(self.channel)
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self.channel.close()
        await self.link.__aexit__(None, None, None)
        await self._door.stop(timedelta(0))

    async def answered(self) -> None:
        """Wait for an answer to a call that insists: between two connections gRPC rests."""
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    await self.stub.Echo(pb.EchoMessage(), wait_for_ready=True)
                except grpc.aio.AioRpcError as error:
                    # It had begun on a connection that was cut under it.
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                else:
                    return

    async def kept_out(self) -> None:
        """See that no call gets through: the first one may still fail for what was cut, those after it do not."""
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await self.stub.Echo(pb.EchoMessage(), timeout=SECONDS)
            assert error.value.code() is grpc.StatusCode.UNAVAILABLE

    def shows(self, place: str, files: Tls) -> None:
        """Key first: a handshake in between keeps to the pair before."""
        here = getattr(self, place)
        replace(here.key, files.key.read_bytes())
        replace(here.certificate, files.certificate.read_bytes())

    def believes(self, *authorities: Authority) -> None:
        """Both ends, from now on."""
        for place in (self.server, self.client):
            replace(place.authority, b"".join(one.path.read_bytes() for one in authorities))


@pytest.fixture
def old(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "old")


@pytest.fixture
def new(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "new")


@pytest.fixture
async def ends(tmp_path: Path, old: Authority) -> AsyncIterator[Ends]:
    revoked = tmp_path / "revoked"
    revoked.write_text("")
    async with Ends(tmp_path, old.issue("hub"), old.issue("site-a"), revoked) as made:
        yield made


@pytest.mark.parametrize(("place", "name"), [("server", "hub"), ("client", "site-a")])
async def test_what_has_run_out_is_refused_until_there_is_a_new_one(
    ends: Ends, old: Authority, place: str, name: str
) -> None:
    await ends.answered()
    ends.shows(place, old.issue(name, lasts=RAN_OUT))
    ends.link.cut()
    await ends.kept_out()
    ends.shows(place, old.issue(name))
    await ends.answered()


async def test_the_authority_changes_while_a_call_goes_on(ends: Ends, old: Authority, new: Authority) -> None:
    open_call = ends.stub.Source(pb.SourceRequest(bytes=5))

    async def more() -> None:
        ends.servicer.more.release()
        async with asyncio.timeout(SECONDS):
            assert (await open_call.read()).data == b"x"

    await more()
    stages: list[Callable[[], None]] = [
        lambda: ends.believes(old, new),
        lambda: ends.shows("client", new.issue("site-a")),
        lambda: ends.shows("server", new.issue("hub")),
        lambda: ends.believes(new),
    ]
    for stage in stages:
        stage()
        await ends.answered()
        await more()
    # Nobody of the old authority is believed any longer: with its last files a call is refused.
    ends.shows("client", old.issue("site-a"))
    await ends.kept_out()


async def test_a_connection_ends_with_its_last_call_when_its_files_were_replaced(ends: Ends, old: Authority) -> None:
    open_call = ends.stub.Source(pb.SourceRequest(bytes=1))
    await ends.answered()
    for _ in range(3):
        ends.shows("client", old.issue("site-a"))
        await ends.answered()
    await until(lambda: ends.link.standing == 2)
    ends.servicer.more.release()
    assert (await open_call.read()).data == b"x"
    assert await open_call.read() is grpc.aio.EOF
    del open_call
    await until(lambda: ends.link.standing == 1)


async def test_who_is_revoked_stays_out_when_the_server_shows_another_certificate(ends: Ends, old: Authority) -> None:
    await ends.answered()
    serial = x509.load_pem_x509_certificate(ends.client.certificate.read_bytes()).serial_number
    ends.shows("server", old.issue("hub"))
    assert ends.server.revoked is not None
    replace(ends.server.revoked, f"{serial:x}\n".encode())
    ends.link.cut()
    with pytest.raises(grpc.aio.AioRpcError, match="revoked"):
        await ends.answered()
    ends.shows("client", old.issue("site-a"))
    await ends.answered()


async def test_half_a_pair_and_no_file_at_all_keep_to_what_was_before(ends: Ends, old: Authority) -> None:
    await ends.answered()
    for place in (ends.server, ends.client):
        replace(place.key, old.issue("somebody").key.read_bytes())
    ends.link.cut()
    await ends.answered()
    for place in (ends.server, ends.client):
        place.certificate.unlink()
    ends.link.cut()
    await ends.answered()


async def until(fine: Callable[[], bool]) -> None:
    """Of what nobody tells."""
    async with asyncio.timeout(SECONDS):
        while not fine():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.fixture
async def server(tmp_path: Path, old: Authority) -> AsyncIterator[NatsServer]:
    """Its files are those of ``hub``."""
    files = old.issue("hub")
    believed = Tls(files.certificate, files.key, tmp_path / "server-ca.pem")
    replace(believed.authority, old.path.read_bytes())
    async with started_server(tmp_path / "nats", tls=believed) as made:
        yield made


async def test_a_client_of_nats_shows_and_believes_what_lies_there_when_it_connects(
    server: NatsServer, tmp_path: Path, old: Authority, new: Authority
) -> None:
    mine = Tls(tmp_path / "mine.pem", tmp_path / "mine.key", tmp_path / "mine-ca.pem")
    assert server.plan.tls is not None

    def laid(place: Tls, files: Tls, *authorities: Authority) -> None:
        replace(place.authority, b"".join(one.path.read_bytes() for one in authorities))
        replace(place.key, files.key.read_bytes())
        replace(place.certificate, files.certificate.read_bytes())

    laid(mine, old.issue("profiler", lasts=RAN_OUT), old)
    access = Access(NatsTls(mine.authority, mine.certificate, mine.key))
    async with Proxy(server.url.removeprefix("tls://")) as link:
        bus = NatsBus(f"tls://{link.address}", "profiler", site_streams("site-a"), lambda mistake: None, access=access)
        starting = asyncio.ensure_future(bus.start())
        await until(lambda: link.connections > 1)
        assert not starting.done(), "nobody is let in with a certificate that has run out"
        laid(mine, old.issue("profiler"), old, new)
        await within(starting)
        try:
            await said(bus)
            # The server changes to the new authority by a signal; the client follows at its next connection.
            laid(server.plan.tls, new.issue("hub"), old, new)
            await within(server.reload())
            laid(mine, new.issue("profiler"), new)
            await again(bus, link)
            laid(server.plan.tls, new.issue("hub"), new)
            await within(server.reload())
            await again(bus, link)
        finally:
            await bus.stop()


async def again(bus: NatsBus, link: Proxy) -> None:
    link.cut()
    await until(lambda: not bus.ready)
    await until(lambda: bus.ready)
    await said(bus)


async def said(bus: NatsBus) -> None:
    now = datetime.now(UTC)
    await within(
        bus.publish(seal(SignalRecovered(id=uuid4(), at=now, site="site-a", point_time=now), "/windfall/test"))
    )


async def within(what: Awaitable[Any]) -> None:
    async with asyncio.timeout(SECONDS):
        await what
