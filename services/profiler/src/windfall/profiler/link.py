"""The way to the federation-coordinator, over the same gRPC path that tensors take."""

import asyncio
import os
import statistics
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc.aio

from windfall.contracts.v1.link_probe_pb2 import EchoMessage, ProbeChunk, SourceRequest
from windfall.contracts.v1.link_probe_pb2_grpc import LinkProbeStub
from windfall.profiler.profile import LINK_PARTS, Link, absent
from windfall.servicekit import rpc
from windfall.servicekit.errors import Transient
from windfall.servicekit.link_probe import PROBE_CHUNK_BYTES

if TYPE_CHECKING:
    from windfall.contracts.v1.link_probe_pb2_grpc import LinkProbeAsyncStub

ECHOES = 5
LIMIT = timedelta(seconds=5)
_MB = 1e6


class CoordinatorLink:
    """Measures round-trip time (median of five echoes) and goodput in both directions.

    Goodput is bytes over the time from the first one's departure to the acknowledgement of the last one's arrival, one
    round trip included: what a tensor of that size would see.

    Args:
        target: ``host:port``; none when nobody has said where the coordinator is.
        max_bytes: the most that each direction moves; a slow link moves what it can within the limit.
        limit: wall time for each of the three parts; a call that stays silent is given up after twice that.
    """

    def __init__(
        self,
        target: str | None,
        max_bytes: int,
        limit: timedelta = LIMIT,
        connect: Callable[[str], grpc.aio.Channel] = rpc.connect,
    ) -> None:
        self._target = target
        self._max_bytes = max_bytes
        self._limit_s = limit.total_seconds()
        self._connect = connect

    async def link(self) -> Link:
        if self._target is None:
            return Link(missing=absent(LINK_PARTS, "no coordinator is named (WINDFALL_COORDINATOR)"))
        channel = self._connect(self._target)
        try:
            return await self._measured(LinkProbeStub(channel), f"coordinator at {self._target}")
        finally:
            await channel.close()

    async def _measured(self, stub: "LinkProbeAsyncStub", what: str) -> Link:
        found: dict[str, float] = {}
        missing: dict[str, str] = {}
        for part, measure in zip(LINK_PARTS, (self._rtt_ms, self._up_mb_per_s, self._down_mb_per_s), strict=True):
            try:
                with rpc.translated(what):
                    found[part] = await measure(stub)
            except rpc.Refused as error:
                missing[part] = str(error)
            except Transient as error:
                # It went away: the other parts would only wait for it again.
                missing |= absent(tuple(other for other in LINK_PARTS if other not in found | missing), str(error))
                break
        return Link.model_validate({**found, "missing": missing})

    async def _rtt_ms(self, stub: "LinkProbeAsyncStub") -> float:
        taken_s = []
        for sequence in range(ECHOES + 1):
            begun = _now_s()
            await stub.Echo(EchoMessage(sequence=sequence), timeout=self._limit_s, metadata=rpc.metadata())
            taken_s.append(_now_s() - begun)
        return statistics.median(taken_s[1:]) * 1000  # the first one also connected

    async def _up_mb_per_s(self, stub: "LinkProbeAsyncStub") -> float:
        begun = _now_s()
        chunks = _chunks(self._max_bytes, begun + self._limit_s)
        report = await stub.Sink(chunks, timeout=2 * self._limit_s, metadata=rpc.metadata())
        return report.received_bytes / (_now_s() - begun) / _MB

    async def _down_mb_per_s(self, stub: "LinkProbeAsyncStub") -> float:
        begun = _now_s()
        received = 0
        request = SourceRequest(bytes=self._max_bytes)
        call = stub.Source(request, timeout=2 * self._limit_s, metadata=rpc.metadata())
        async for chunk in call:
            received += len(chunk.data)
            if _now_s() > begun + self._limit_s:
                call.cancel()
                break
        return received / (_now_s() - begun) / _MB


async def _chunks(total: int, ends_s: float) -> AsyncIterator[ProbeChunk]:
    payload = os.urandom(min(total, PROBE_CHUNK_BYTES))
    for start in range(0, total, PROBE_CHUNK_BYTES):
        if _now_s() > ends_s:
            break
        yield ProbeChunk(data=payload[: total - start])


def _now_s() -> float:
    return asyncio.get_running_loop().time()
