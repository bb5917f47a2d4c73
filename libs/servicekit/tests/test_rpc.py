"""What every RPC promises: one body over real gRPC and over the double that ships."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.trace import format_trace_id

from windfall.contracts.v1 import link_probe_pb2 as probe
from windfall.contracts.v1 import training_pb2 as training
from windfall.contracts.v1.link_probe_pb2_grpc import (
    LinkProbeServicer,
    LinkProbeStub,
    add_LinkProbeServicer_to_server,
)
from windfall.contracts.v1.training_pb2_grpc import TrainingServicer, TrainingStub, add_TrainingServicer_to_server
from windfall.servicekit import telemetry
from windfall.servicekit.errors import ExitCode, Mistake, Transient
from windfall.servicekit.rpc import (
    CHUNK_BYTES,
    Refused,
    RpcServer,
    caller_trace,
    connect,
    metadata,
    serve,
    serving,
    translated,
)
from windfall.servicekit.testing.authority import Authority
from windfall.servicekit.testing.memory_rpc import MemoryServer, memory_channel
from windfall.servicekit.testing.proxy import Proxy
from windfall.servicekit.tls import Tls, is_loopback

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def soon(what: Awaitable[Any]) -> Any:
    async with asyncio.timeout(60):
        return await what


class Probe(LinkProbeServicer):
    """A servicer that does what a test asks of it and remembers what it saw."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}
        self.sent = 0
        self.taken = 0
        self.ended = asyncio.Event()
        self.entered = asyncio.Event()
        self.failure: tuple[grpc.StatusCode, str] | None = None
        self.breakage: Exception | None = None
        self.stall: asyncio.Event | None = None
        self.take_at_most: int | None = None
        self.invites = False

    async def Echo(self, request: probe.EchoMessage, context: Any) -> probe.EchoMessage:  # noqa: N802
        self.metadata = caller_trace(context)
        self.entered.set()
        try:
            with serving(context, "LinkProbe/Echo", {"windfall.site": "site-a"}):
                pass
            if self.failure is not None:
                await context.abort(*self.failure)
            if self.breakage is not None:
                raise self.breakage
            if self.stall is not None:
                await self.stall.wait()
            return probe.EchoMessage(sequence=request.sequence + 1)
        finally:
            self.ended.set()

    async def Sink(self, request_iterator: Any, context: Any) -> probe.SinkReport:  # noqa: N802
        received = 0
        self.entered.set()
        if self.stall is not None:
            await self.stall.wait()
        if self.failure is not None:
            await context.abort(*self.failure)
        if self.invites:
            await context.send_initial_metadata((("asked", "yes"),))
        try:
            async for chunk in request_iterator:
                received += len(chunk.data)
                self.taken += 1
                if self.take_at_most is not None and received > self.take_at_most:
                    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")
            return probe.SinkReport(received_bytes=received)
        finally:
            self.ended.set()

    async def Source(self, request: probe.SourceRequest, context: Any) -> AsyncIterator[probe.ProbeChunk]:  # noqa: N802
        left = request.bytes
        try:
            while left:
                data = bytes(min(left, CHUNK_BYTES))
                left -= len(data)
                self.sent += 1
                yield probe.ProbeChunk(data=data)
            if self.failure is not None:
                await context.abort(*self.failure)
            if self.stall is not None:
                self.entered.set()
                await self.stall.wait()
        finally:
            self.ended.set()


class Pulse(TrainingServicer):
    """Answers each beat with the round that it names, and remembers how the session ended."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def Heartbeat(self, request_iterator: Any, context: Any) -> AsyncIterator[training.Directive]:  # noqa: N802
        try:
            async for beat in request_iterator:
                yield training.Directive(finish_round=training.FinishRound(round=beat.round))
        finally:
            self.ended.set()


@dataclass
class Link:
    probe: Probe
    pulse: Pulse
    channel: grpc.aio.Channel
    lose: Callable[[], Awaitable[None]]
    """Kills the server."""
    stub: LinkProbeStub = field(init=False)
    session: TrainingStub = field(init=False)

    def __post_init__(self) -> None:
        self.stub = LinkProbeStub(self.channel)
        self.session = TrainingStub(self.channel)


@pytest.fixture(params=["memory", "grpc"])
async def link(request: pytest.FixtureRequest) -> AsyncIterator[Link]:
    servicer, pulse = Probe(), Pulse()
    registrations = [
        partial(add_LinkProbeServicer_to_server, servicer),
        partial(add_TrainingServicer_to_server, pulse),
    ]
    if request.param == "memory":
        double = MemoryServer()
        for register in registrations:
            register(double)
        channel = memory_channel(double)
        yield Link(servicer, pulse, channel, double.kill)
        await channel.close()
        return
    server = await serve("127.0.0.1:0", registrations)
    channel = connect(f"127.0.0.1:{server.port}")
    yield Link(servicer, pulse, channel, partial(server.stop, timedelta()))
    await channel.close()
    await server.stop(timedelta())


async def chunks(count: int, size: int = 10) -> AsyncIterator[probe.ProbeChunk]:
    for _ in range(count):
        yield probe.ProbeChunk(data=bytes(size))


async def test_one_question_has_one_answer(link: Link) -> None:
    assert (await soon(link.stub.Echo(probe.EchoMessage(sequence=7)))).sequence == 8


async def test_a_stream_goes_up(link: Link) -> None:
    assert (await soon(link.stub.Sink(chunks(5)))).received_bytes == 50


async def test_an_empty_stream_goes_up(link: Link) -> None:
    assert (await soon(link.stub.Sink(chunks(0)))).received_bytes == 0


async def test_a_plain_list_is_a_stream_too(link: Link) -> None:
    sent = [probe.ProbeChunk(data=b"abc"), probe.ProbeChunk(data=b"de")]
    assert (await soon(link.stub.Sink(iter(sent)))).received_bytes == 5


async def test_a_stream_comes_down_in_chunks_of_the_full_size(link: Link) -> None:
    sizes = [len(chunk.data) async for chunk in link.stub.Source(probe.SourceRequest(bytes=2 * CHUNK_BYTES + 1))]
    assert sizes == [CHUNK_BYTES, CHUNK_BYTES, 1]


async def test_an_empty_stream_comes_down(link: Link) -> None:
    assert [chunk async for chunk in link.stub.Source(probe.SourceRequest(bytes=0))] == []


async def test_a_session_talks_both_ways(link: Link) -> None:
    turn: asyncio.Queue[int] = asyncio.Queue()

    async def beats() -> AsyncIterator[training.Beat]:
        while (round_ := await turn.get()) >= 0:
            yield training.Beat(round=round_)

    answers = []
    turn.put_nowait(0)
    async for directive in link.session.Heartbeat(beats()):
        answers.append(directive.finish_round.round)
        # The next beat is only sent once the last was answered: neither side waits for the other's end.
        turn.put_nowait(answers[-1] + 1 if answers[-1] < 4 else -1)
    assert answers == [0, 1, 2, 3, 4]
    assert link.pulse.ended.is_set()


async def test_a_refusal_carries_its_code_and_reason(link: Link) -> None:
    link.probe.failure = (grpc.StatusCode.FAILED_PRECONDITION, "the lease is old")
    with pytest.raises(Refused, match="echo: the lease is old") as refused, translated("echo"):
        await soon(link.stub.Echo(probe.EchoMessage()))
    assert refused.value.code is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_refusal_in_mid_stream_follows_what_was_sent(link: Link) -> None:
    link.probe.failure = (grpc.StatusCode.INVALID_ARGUMENT, "no such base")
    got = 0
    with pytest.raises(Refused, match="no such base"), translated("pull"):
        async for _ in link.stub.Source(probe.SourceRequest(bytes=2 * CHUNK_BYTES)):
            got += 1
    assert got == 2


async def test_a_sink_may_refuse_before_it_has_read_everything(link: Link) -> None:
    link.probe.take_at_most = 25
    with pytest.raises(Refused, match="enough") as refused, translated("push"):
        await soon(link.stub.Sink(chunks(10_000)))
    assert refused.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert link.probe.taken == 3


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED], ids=lambda code: code.name)
async def test_what_may_pass_is_transient(link: Link, code: grpc.StatusCode) -> None:
    link.probe.failure = (code, "come back later")
    with pytest.raises(Transient, match="come back later"), translated("echo"):
        await soon(link.stub.Echo(probe.EchoMessage()))


async def test_a_servicer_that_breaks_is_transient_to_its_caller(link: Link) -> None:
    link.probe.breakage = ZeroDivisionError("oops")
    with pytest.raises(Transient, match="oops"), translated("echo"):
        await soon(link.stub.Echo(probe.EchoMessage()))


async def test_an_unknown_method_is_refused(link: Link) -> None:
    with pytest.raises(Refused) as refused, translated("join"):
        await soon(link.session.Join(training.JoinRequest()))
    assert refused.value.code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_deadline_that_passes_is_transient(link: Link) -> None:
    link.probe.stall = asyncio.Event()
    with pytest.raises(Transient, match=r"(?i)deadline"), translated("echo"):
        await soon(link.stub.Echo(probe.EchoMessage(), timeout=2))
    await soon(link.probe.ended.wait())


async def test_a_deadline_holds_for_a_stream_too(link: Link) -> None:
    link.probe.stall = asyncio.Event()
    got = 0
    with pytest.raises(Transient, match=r"(?i)deadline"), translated("pull"):
        async with asyncio.timeout(60):
            async for _ in link.stub.Source(probe.SourceRequest(bytes=1), timeout=2):
                got += 1
    assert got == 1
    await soon(link.probe.ended.wait())


async def test_a_lost_server_is_transient_before_and_during_a_call(link: Link) -> None:
    link.probe.stall = asyncio.Event()
    call = link.stub.Source(probe.SourceRequest(bytes=1))

    async def read() -> int:
        return len([chunk async for chunk in call])

    reading = asyncio.ensure_future(read())
    await soon(link.probe.entered.wait())
    await link.lose()
    with pytest.raises(Transient), translated("pull"):
        await soon(reading)
    await soon(link.probe.ended.wait())
    call = link.stub.Echo(probe.EchoMessage(), timeout=5)
    with pytest.raises(Transient), translated("echo"):
        await soon(call)


async def test_a_stream_to_a_lost_server_fails_when_it_is_read_not_when_it_is_opened(link: Link) -> None:
    await link.lose()
    call = link.stub.Source(probe.SourceRequest(bytes=1), timeout=5)
    with pytest.raises(Transient), translated("pull"):
        async for _ in call:
            pass


async def test_cancelling_a_call_ends_the_servicer(link: Link) -> None:
    link.probe.stall = asyncio.Event()
    call = link.stub.Source(probe.SourceRequest(bytes=1))
    async for _ in call:
        break
    await soon(link.probe.entered.wait())
    assert call.cancel()
    await soon(link.probe.ended.wait())
    with pytest.raises(asyncio.CancelledError):
        async for _ in call:
            pass


async def test_cancelling_the_waiting_task_ends_the_servicer(link: Link) -> None:
    link.probe.stall = asyncio.Event()

    async def ask() -> None:
        await link.stub.Echo(probe.EchoMessage())

    asking = asyncio.ensure_future(ask())
    await soon(link.probe.entered.wait())
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await soon(link.probe.ended.wait())


async def test_cancelling_a_session_ends_the_servicer_and_the_speaker(link: Link) -> None:
    silenced = asyncio.Event()

    async def beats() -> AsyncIterator[training.Beat]:
        try:
            yield training.Beat(round=3)
            await asyncio.Event().wait()
        finally:
            silenced.set()

    call = link.session.Heartbeat(beats())
    async for directive in call:
        assert directive.finish_round.round == 3
        break
    call.cancel()
    await soon(link.pulse.ended.wait())
    await soon(silenced.wait())


async def test_a_servicer_does_not_run_ahead_of_a_slow_reader(link: Link) -> None:
    # Far more than windows and socket buffers of a fast link hold between them.
    total = 200
    call = link.stub.Source(probe.SourceRequest(bytes=total * CHUNK_BYTES))
    seen = 0
    async for _ in call:
        seen += 1
        if seen == 3:
            break
    ahead = -1
    while ahead != link.probe.sent:
        # As far as it gets while nobody reads.
        ahead = link.probe.sent
        for _ in range(50):
            await asyncio.sleep(0.001)
    assert ahead < total / 2
    seen += len([chunk async for chunk in call])
    assert (seen, link.probe.sent) == (total, total)


async def test_a_speaker_does_not_run_ahead_of_a_slow_servicer(link: Link) -> None:
    link.probe.stall = asyncio.Event()
    total, spoken = 64, 0

    async def counted() -> AsyncIterator[probe.ProbeChunk]:
        nonlocal spoken
        async for chunk in chunks(total, CHUNK_BYTES):
            spoken += 1
            yield chunk

    call = asyncio.ensure_future(soon(link.stub.Sink(counted())))
    await soon(link.probe.entered.wait())
    ahead = -1
    while ahead != spoken:
        ahead = spoken
        for _ in range(50):
            await asyncio.sleep(0.001)
    assert ahead < total / 2
    link.probe.stall.set()
    assert (await call).received_bytes == total * CHUNK_BYTES


async def test_a_servicer_that_sends_initial_metadata_is_heard_before_it_answers(link: Link) -> None:
    link.probe.invites = True
    asked = asyncio.Event()

    async def when_asked() -> AsyncIterator[probe.ProbeChunk]:
        assert ("asked", "yes") in [(key, value) for key, value in await call.initial_metadata()]
        asked.set()
        yield probe.ProbeChunk(data=b"asked for")

    call = link.stub.Sink(when_asked())
    assert (await soon(call)).received_bytes == len(b"asked for")
    assert asked.is_set()


async def test_a_servicer_that_refuses_before_it_sends_initial_metadata_leaves_nobody_waiting(link: Link) -> None:
    link.probe.failure = (grpc.StatusCode.FAILED_PRECONDITION, "not now")

    async def when_asked() -> AsyncIterator[probe.ProbeChunk]:
        yield probe.ProbeChunk(data=b"first")
        assert not list(await call.initial_metadata())
        assert await call.code() is grpc.StatusCode.FAILED_PRECONDITION

    call = link.stub.Sink(when_asked())
    with pytest.raises(Refused, match="not now"), translated("sink"):
        await soon(call)


async def test_metadata_arrives(link: Link) -> None:
    await soon(link.stub.Echo(probe.EchoMessage(), metadata=(("traceparent", TRACEPARENT),)))
    assert link.probe.metadata == {"traceparent": TRACEPARENT}


async def test_a_server_span_is_the_child_of_its_caller(link: Link, spans: Any) -> None:
    with telemetry.span("ask") as asking:
        await soon(link.stub.Echo(probe.EchoMessage(), metadata=metadata()))
    (served,) = spans.named("LinkProbe/Echo")
    identity = asking.get_span_context()
    assert served.context.trace_id == identity.trace_id
    assert served.parent.span_id == identity.span_id
    assert served.attributes["windfall.site"] == "site-a"
    assert format_trace_id(identity.trace_id) in link.probe.metadata["traceparent"]


# --- real servers only ------------------------------------------------------------------------------------------------


def registrations() -> list[Callable[[Any], None]]:
    return [partial(add_LinkProbeServicer_to_server, Probe())]


async def test_a_connection_that_takes_everything_and_says_nothing_is_left() -> None:
    """As one does whose peer waits for the rest of a record that some device on the way has garbled."""
    server = await serve("127.0.0.1:0", [partial(add_LinkProbeServicer_to_server, Probe())])
    try:
        async with Proxy(f"127.0.0.1:{server.port}") as proxy, connect(proxy.address) as channel:
            stub = LinkProbeStub(channel)
            await stub.Echo(probe.EchoMessage(), timeout=60)
            proxy.up.spoil = lambda passing: b"" if proxy.connections == 1 else passing
            answered = False
            while not answered:
                try:
                    await stub.Echo(probe.EchoMessage(), timeout=40)
                    answered = True
                except grpc.aio.AioRpcError as error:
                    assert error.code() is grpc.StatusCode.UNAVAILABLE, error
            assert proxy.connections == 2
    finally:
        await server.stop(timedelta(0))


async def test_a_port_in_use_is_a_mistake() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(Mistake, match="in use") as mistake:
            await serve(f"127.0.0.1:{holder.getsockname()[1]}", registrations())
    assert mistake.value.exit_code is ExitCode.RESOURCE


async def test_the_port_of_another_server_is_in_use() -> None:
    first = await serve("127.0.0.1:0", registrations())
    with pytest.raises(Mistake, match="in use"):
        await serve(f"127.0.0.1:{first.port}", registrations())
    await first.stop(timedelta())


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:0", "example.org:0"])
async def test_without_tls_only_loopback_is_served(address: str) -> None:
    with pytest.raises(Mistake, match="not loopback") as mistake:
        await serve(address, registrations())
    assert mistake.value.exit_code is ExitCode.USAGE


async def test_insecure_is_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        server = await serve("0.0.0.0:0", registrations(), insecure=True)
    await server.stop(timedelta())
    assert "INSECURE" in caplog.text
    assert "0.0.0.0" in caplog.text


@pytest.mark.parametrize(
    ("address", "loopback"),
    [
        ("127.0.0.1:1", True),
        ("127.8.9.1:1", True),
        ("localhost:1", True),
        ("[::1]:1", True),
        ("unix:/run/x.sock", True),
        ("0.0.0.0:1", False),
        ("[::]:1", False),
        ("10.0.0.1:1", False),
        ("localhost.example.org:1", False),
        (":1", False),
    ],
)
def test_loopback(address: str, loopback: bool) -> None:
    assert is_loopback(address) is loopback


@pytest.fixture
async def secured(tmp_path: Path) -> AsyncIterator[tuple[RpcServer, Authority]]:
    authority = Authority(tmp_path, "ours")
    server = await serve("127.0.0.1:0", registrations(), authority.issue("server"))
    yield server, authority
    await server.stop(timedelta())


async def echo_over(port: int, tls: Tls | None) -> int:
    channel = connect(f"127.0.0.1:{port}", tls)
    try:
        with translated("echo"):
            reply = await soon(LinkProbeStub(channel).Echo(probe.EchoMessage(sequence=1), timeout=60))
        return int(reply.sequence)
    finally:
        await channel.close()


async def test_both_ends_show_a_certificate(secured: tuple[RpcServer, Authority]) -> None:
    server, authority = secured
    assert await echo_over(server.port, authority.issue("site-a")) == 2


async def test_a_client_of_another_authority_is_not_served(
    secured: tuple[RpcServer, Authority], tmp_path: Path
) -> None:
    server, ours = secured
    theirs = Authority(tmp_path, "theirs").issue("site-a")
    with pytest.raises(Transient):
        await echo_over(server.port, Tls(theirs.certificate, theirs.key, ours.path))


async def test_a_server_of_another_authority_is_not_believed(
    secured: tuple[RpcServer, Authority], tmp_path: Path
) -> None:
    server, ours = secured
    mine = ours.issue("site-a")
    with pytest.raises(Transient):
        await echo_over(server.port, Tls(mine.certificate, mine.key, Authority(tmp_path, "theirs").path))


async def test_a_client_without_a_certificate_is_not_served(secured: tuple[RpcServer, Authority]) -> None:
    server, _ = secured
    with pytest.raises(Transient):
        await echo_over(server.port, None)


async def test_a_missing_certificate_is_a_mistake(tmp_path: Path) -> None:
    tls = Tls(tmp_path / "nowhere.pem", tmp_path / "nowhere.key", tmp_path / "authority.pem")
    with pytest.raises(Mistake, match=r"nowhere") as mistake:
        await serve("127.0.0.1:0", registrations(), tls)
    assert mistake.value.exit_code is ExitCode.RESOURCE
    with pytest.raises(Mistake, match=r"authority\.pem|nowhere"):
        connect("127.0.0.1:1", tls)


async def test_a_certificate_that_is_none_is_a_mistake(tmp_path: Path) -> None:
    for name in ("a.pem", "a.key", "authority.pem"):
        (tmp_path / name).write_text("this is no certificate")
    with pytest.raises(Mistake, match="certificate"):
        await serve("127.0.0.1:0", registrations(), Tls(*(tmp_path / n for n in ("a.pem", "a.key", "authority.pem"))))


async def test_a_server_that_stops_lets_a_call_finish() -> None:
    servicer = Probe()
    servicer.stall = asyncio.Event()
    server = await serve("127.0.0.1:0", [partial(add_LinkProbeServicer_to_server, servicer)])
    channel = connect(f"127.0.0.1:{server.port}")
    call = asyncio.ensure_future(soon(LinkProbeStub(channel).Echo(probe.EchoMessage(sequence=1))))
    await soon(servicer.entered.wait())
    stopping = asyncio.ensure_future(server.stop(timedelta(seconds=20)))
    servicer.stall.set()
    assert (await call).sequence == 2
    await soon(stopping)
    await channel.close()
