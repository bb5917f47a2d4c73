"""The physical limit beside a round: the same bytes over bare gRPC streams, down and then up, to nowhere."""

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from windfall.contracts.v1 import training_pb2 as pb
from windfall.contracts.v1 import training_pb2_grpc as rpc
from windfall.servicekit.natsserver import free_port
from windfall.servicekit.rpc import CHUNK_BYTES, connect, serve


class Nowhere(rpc.TrainingServicer):
    """A Training service that sends zeros and takes anything; the rest of the protocol is gRPC's UNIMPLEMENTED."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._block = bytes(CHUNK_BYTES)

    async def Pull(self, request: pb.PullRequest, context: Any) -> AsyncIterator[pb.PullFrame]:  # noqa: N802
        for start in range(0, self._nbytes, CHUNK_BYTES):
            yield pb.PullFrame(data=self._block[: self._nbytes - start])

    async def Push(self, frames: AsyncIterator[pb.PushFrame], context: Any) -> pb.PushReceipt:  # noqa: N802
        async for frame in frames:
            len(frame.data)
        return pb.PushReceipt()


async def run(nbytes: int, sites: int, times: int) -> float:
    """Median seconds for every site to stream so many bytes down, and then up, at the same time."""
    port = free_port()
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.plain_grpc", str(port), str(nbytes), stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    await server.stdout.readline()
    stubs = [rpc.TrainingStub(connect(f"127.0.0.1:{port}")) for _ in range(sites)]
    data = memoryview(bytearray(nbytes))

    async def pull(stub: Any) -> None:
        async for frame in stub.Pull(pb.PullRequest()):
            len(frame.data)

    async def frames() -> AsyncIterator[pb.PushFrame]:
        for start in range(0, nbytes, CHUNK_BYTES):
            yield pb.PushFrame(data=bytes(data[start : start + CHUNK_BYTES]))

    async def push(stub: Any) -> None:
        await stub.Push(frames())

    seconds = []
    try:
        for number in range(times + 1):
            started = time.perf_counter()
            await asyncio.gather(*(pull(stub) for stub in stubs))
            await asyncio.gather(*(push(stub) for stub in stubs))
            if number:
                seconds.append(time.perf_counter() - started)
    finally:
        server.terminate()
        await server.wait()
    return statistics.median(seconds)


async def _serve(port: int, nbytes: int) -> None:
    register = partial(rpc.add_TrainingServicer_to_server, Nowhere(nbytes))  # type: ignore[abstract]
    server = await serve(f"127.0.0.1:{port}", [register])
    print("serving", server.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2])))
