"""The limits beside a round: the same bytes over bare gRPC streams, down and then up.

Either to nowhere, or *kept*: done with what any round that is durable must do at the least. Both ends hash both ways,
what comes up is written and fsynced, and once all have come the next model is. Nothing is checked, merged or journaled.
"""

import asyncio
import hashlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from windfall.contracts.v1 import training_pb2 as pb
from windfall.contracts.v1 import training_pb2_grpc as rpc
from windfall.servicekit.natsserver import free_port
from windfall.servicekit.rpc import CHUNK_BYTES, connect, serve
from windfall.site_trainer.bulk import HashBehind


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


class Kept(rpc.TrainingServicer):
    """A Training service that sends a file, keeps what so many sites send, and then writes the next file."""

    def __init__(self, nbytes: int, sites: int, folder: str) -> None:
        self._nbytes = nbytes
        self._folder = folder
        self._all_came = asyncio.Barrier(sites)
        self._model = os.open(folder, os.O_TMPFILE | os.O_RDWR)
        os.ftruncate(self._model, nbytes)

    async def Pull(self, request: pb.PullRequest, context: Any) -> AsyncIterator[pb.PullFrame]:  # noqa: N802
        for start in range(0, self._nbytes, CHUNK_BYTES):
            yield pb.PullFrame(data=os.pread(self._model, CHUNK_BYTES, start))

    async def Push(self, frames: AsyncIterator[pb.PushFrame], context: Any) -> pb.PushReceipt:  # noqa: N802
        with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
            sha = hashlib.sha256()

            def keep(data: bytes) -> None:
                file.write(data)
                sha.update(data)

            async for frame in frames:
                await asyncio.to_thread(keep, frame.data)
            await asyncio.to_thread(os.fsync, file.fileno())
            if await self._all_came.wait() == 0:
                await asyncio.to_thread(self._step)
            await self._all_came.wait()
        return pb.PushReceipt()

    def _step(self) -> None:
        with tempfile.TemporaryFile(dir=self._folder, buffering=0) as file:
            sha = hashlib.sha256()
            for start in range(0, self._nbytes, CHUNK_BYTES):
                data = os.pread(self._model, CHUNK_BYTES, start)
                sha.update(data)
                file.write(data)
            os.fsync(file.fileno())


async def run(nbytes: int, sites: int, times: int, kept: str = "") -> float:
    """Median seconds for every site to stream so many bytes down, and then up, at the same time.

    Args:
        kept: a folder in which the server keeps what comes; none sends it nowhere, and nobody hashes it.
    """
    port = free_port()
    told = (str(port), str(nbytes), str(sites), kept)
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.plain_grpc", *told, stdout=asyncio.subprocess.PIPE
    )
    assert server.stdout is not None
    await server.stdout.readline()
    stubs = [rpc.TrainingStub(connect(f"127.0.0.1:{port}")) for _ in range(sites)]
    data = memoryview(bytearray(nbytes))

    async def pull(stub: Any) -> None:
        buffer, filled = memoryview(bytearray(nbytes if kept else 0)), 0
        sha = HashBehind(buffer)
        async for frame in stub.Pull(pb.PullRequest()):
            if kept:
                buffer[filled : filled + len(frame.data)] = frame.data
                filled += len(frame.data)
                await sha.follow(filled)
        await sha.hexdigest(filled)

    async def frames() -> AsyncIterator[pb.PushFrame]:
        for start in range(0, nbytes, CHUNK_BYTES):
            yield pb.PushFrame(data=bytes(data[start : start + CHUNK_BYTES]))

    async def push(stub: Any) -> None:
        if kept:
            await asyncio.to_thread(lambda: hashlib.sha256(data).digest())
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


async def _serve(port: int, nbytes: int, sites: int, kept: str) -> None:
    servicer = Kept(nbytes, sites, kept) if kept else Nowhere(nbytes)  # type: ignore[abstract]
    server = await serve(f"127.0.0.1:{port}", [partial(rpc.add_TrainingServicer_to_server, servicer)])
    print("serving", server.port, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
