"""Both ends of a link measurement, over real gRPC on a free port."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import grpc
import pytest

from windfall.contracts.v1.link_probe_pb2 import EchoMessage, ProbeChunk, SourceRequest
from windfall.contracts.v1.link_probe_pb2_grpc import LinkProbeStub, add_LinkProbeServicer_to_server
from windfall.profiler.link import GrpcLink
from windfall.profiler.profile import LINK_PARTS
from windfall.servicekit import rpc
from windfall.servicekit.link_probe import PROBE_CHUNK_BYTES, LinkProbeServicer

MIB = 2**20


@asynccontextmanager
async def served(*servicers: LinkProbeServicer) -> AsyncIterator[str]:
    registrations: Sequence[rpc.Registration] = [partial(add_LinkProbeServicer_to_server, one) for one in servicers]
    server = await rpc.serve("127.0.0.1:0", registrations)
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.stop(timedelta(0))


@asynccontextmanager
async def calling(servicer: LinkProbeServicer) -> AsyncIterator[Any]:
    async with served(servicer) as target, rpc.connect(target) as channel:
        yield LinkProbeStub(channel)


async def test_a_link_is_measured_in_all_its_parts() -> None:
    async with served(LinkProbeServicer()) as target:
        link = await GrpcLink(target, max_bytes=MIB + 1).link()
    assert not link.missing
    assert all(getattr(link, part) > 0 for part in LINK_PARTS)


async def test_a_cap_at_the_other_end_costs_only_what_it_caps() -> None:
    async with served(LinkProbeServicer(cap_bytes=1000)) as target:
        link = await GrpcLink(target, max_bytes=1001).link()
    assert link.link_rtt_ms is not None
    assert link.missing == dict.fromkeys(
        ("link_up_mb_per_s", "link_down_mb_per_s"),
        f"coordinator at {target}: a probe may move 1000 bytes, and this one asks for more",
    )


async def test_a_coordinator_that_answers_no_probes() -> None:
    async with served() as target:
        link = await GrpcLink(target, max_bytes=MIB).link()
    assert set(link.missing) == set(LINK_PARTS)
    assert all("Method not found" in why for why in link.missing.values())


async def test_a_coordinator_that_is_away() -> None:
    async with served() as target:
        pass
    link = await GrpcLink(target, max_bytes=MIB).link()
    assert set(link.missing) == set(LINK_PARTS)
    assert all(why.startswith(f"coordinator at {target}: ") for why in link.missing.values())


async def test_a_coordinator_that_nobody_named() -> None:
    link = await GrpcLink(None, max_bytes=MIB).link()
    assert link.missing == dict.fromkeys(LINK_PARTS, "no coordinator is named (WINDFALL_COORDINATOR)")


class FallsSilent(LinkProbeServicer):
    """Sends one chunk and then nothing more."""

    async def Source(self, request: SourceRequest, context: Any) -> AsyncIterator[ProbeChunk]:  # noqa: N802
        yield ProbeChunk(data=b"x")
        await asyncio.Event().wait()


async def test_a_coordinator_that_falls_silent_is_given_up() -> None:
    async with served(FallsSilent()) as target:
        link = await GrpcLink(target, max_bytes=1000, limit=timedelta(seconds=3)).link()
    assert link.link_up_mb_per_s is not None
    assert set(link.missing) == {"link_down_mb_per_s"}
    assert "Deadline Exceeded" in link.missing["link_down_mb_per_s"]


async def test_echo_answers_with_what_it_got() -> None:
    async with calling(LinkProbeServicer()) as stub:
        assert await stub.Echo(EchoMessage(sequence=7)) == EchoMessage(sequence=7)


@pytest.mark.parametrize("size", [0, 1, PROBE_CHUNK_BYTES, PROBE_CHUNK_BYTES + 1, 3 * PROBE_CHUNK_BYTES])
async def test_source_sends_exactly_what_it_is_asked_for(size: int) -> None:
    async with calling(LinkProbeServicer(cap_bytes=MIB)) as stub:
        assert sum([len(chunk.data) async for chunk in stub.Source(SourceRequest(bytes=size))]) == size


@pytest.mark.parametrize("sizes", [(), (0,), (1, 2, 3), (MIB // 2, MIB // 2)], ids=["nothing", "empty", "few", "cap"])
async def test_sink_counts_what_it_is_sent(sizes: tuple[int, ...]) -> None:
    async with calling(LinkProbeServicer(cap_bytes=MIB)) as stub:
        report = await stub.Sink(ProbeChunk(data=bytes(size)) for size in sizes)
    assert report.received_bytes == sum(sizes)


async def test_more_than_the_cap_is_refused_both_ways() -> None:
    async with calling(LinkProbeServicer(cap_bytes=MIB)) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as sunk:
            await stub.Sink(ProbeChunk(data=bytes(MIB // 2)) for _ in range(3))
        with pytest.raises(grpc.aio.AioRpcError) as sourced:
            _ = [chunk async for chunk in stub.Source(SourceRequest(bytes=MIB + 1))]
    assert sunk.value.code() is sourced.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
