"""Several addresses of which one serves: calls find it, and the next one when it is gone."""

import asyncio
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

import grpc.aio
import pytest

from windfall.contracts.v1 import link_probe_pb2 as pb
from windfall.contracts.v1.link_probe_pb2_grpc import LinkProbeStub, add_LinkProbeServicer_to_server
from windfall.servicekit.link_probe import LinkProbeServicer
from windfall.servicekit.natsserver import free_port
from windfall.servicekit.rotation import RotatingChannel
from windfall.servicekit.rpc import RpcServer, connect, serve

SECONDS = 60.0


async def served(port: int) -> RpcServer:
    return await serve(f"127.0.0.1:{port}", [partial(add_LinkProbeServicer_to_server, LinkProbeServicer())])


async def insist(stub: Any) -> int:
    """How many attempts it took until somebody answered. While gRPC rests between two connections they are many."""
    async with asyncio.timeout(SECONDS):
        for attempt in count(1):
            try:
                await stub.Echo(pb.EchoMessage(), timeout=SECONDS)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
            else:
                return attempt
    raise AssertionError("nobody answers")


async def test_calls_go_to_whoever_serves_and_to_the_next_one_when_it_is_gone() -> None:
    ports = [free_port() for _ in range(3)]
    channel = connect(", ".join(f"127.0.0.1:{port}" for port in ports))
    assert isinstance(channel, RotatingChannel)
    stub: Any = LinkProbeStub(channel)
    try:
        for port in (ports[1], ports[0], ports[2]):
            server = await served(port)
            try:
                await insist(stub)
                # It stays where it was answered.
                assert [await insist(stub) for _ in range(5)] == [1] * 5
            finally:
                await server.stop(timedelta(0))
    finally:
        await channel.close()


async def test_it_is_ready_when_one_of_them_is() -> None:
    ports = [free_port() for _ in range(2)]
    channel = connect(",".join(f"127.0.0.1:{port}" for port in ports))
    server = await served(ports[1])
    try:
        async with asyncio.timeout(SECONDS):
            await channel.channel_ready()
        assert channel.get_state() is grpc.ChannelConnectivity.READY
    finally:
        await channel.close()
        await server.stop(timedelta(0))


@pytest.mark.parametrize("target", ["127.0.0.1:1", "127.0.0.1:1,"])
async def test_one_address_is_a_plain_channel(target: str) -> None:
    channel = connect(target)
    assert not isinstance(channel, RotatingChannel)
    await channel.close()
