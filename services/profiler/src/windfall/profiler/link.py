"""The way to the federation-coordinator or another site, over the same gRPC path that tensors take."""

import asyncio
import os
import statistics
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import grpc.aio

from windfall.contracts.v1.link_probe_pb2 import EchoMessage, ProbeChunk, SourceRequest
from windfall.contracts.v1.link_probe_pb2_grpc import LinkProbeStub
from windfall.profiler.profile import LINK_PARTS, Link, absent
from windfall.servicekit import rpc
from windfall.servicekit.errors import Transient
from windfall.servicekit.link_probe import PROBE_CHUNK_BYTES

if TYPE_CHECKING:
    from windfall.contracts.v1.link_probe_pb2_grpc import LinkProbeAsyncStub

ECHOES: Final = 5
ECHO_BYTES: Final = 250
"""Of one echo, there and back, as HTTP/2 frames it."""
LIMIT: Final = timedelta(seconds=5)
_MB = 1e6


class GrpcLink:
    """Measures round-trip time (median of five echoes), its jitter, and goodput in both directions.

    Goodput is bytes over the time from the first one's departure to the acknowledgement of the last one's arrival, one
    round trip included: what a tensor of that size would see.

    Args:
        target: ``host:port``; none when nobody has said where the coordinator is.
        what: whose end of the link that is.
        max_bytes: the most that each direction moves; a slow link moves what it can within the limit.
        limit: wall time for each of the three parts; a call that stays silent is given up after twice that.
    """

    def __init__(
        self,
        target: str | None,
        max_bytes: int,
        limit: timedelta = LIMIT,
        connect: Callable[[str], grpc.aio.Channel] = rpc.connect,
        what: str = "coordinator",
    ) -> None:
        self._target = target
        self._what = what
        self._max_bytes = max_bytes
        self._limit_s = limit.total_seconds()
        self._connect = connect

    async def link(self) -> Link:
        return await self._measured(LINK_PARTS)

    async def echo(self) -> Link:
        return await self._measured(("link_rtt_ms",))

    async def _measured(self, parts: tuple[str, ...]) -> Link:
        if self._target is None:
            return Link(missing=absent(parts, "no coordinator is named (WINDFALL_COORDINATOR)"))
        channel = self._connect(self._target)
        try:
            return await self._parts(LinkProbeStub(channel), f"{self._what} at {self._target}", parts)
        finally:
            await channel.close()

    async def _parts(self, stub: "LinkProbeAsyncStub", what: str, parts: tuple[str, ...]) -> Link:
        measures = {"link_rtt_ms": self._rtt, "link_up_mb_per_s": self._up, "link_down_mb_per_s": self._down}
        found = Link()
        for part in parts:
            try:
                with rpc.translated(what):
                    found = await measures[part](stub, found)
            except rpc.Refused as error:
                found = _without(found, {part: str(error)})
            except Transient as error:
                # It went away: the other parts would only wait for it again.
                rest = tuple(other for other in parts if getattr(found, other) is None and other not in found.missing)
                return _without(found, absent(rest, str(error)))
        return found

    async def _rtt(self, stub: "LinkProbeAsyncStub", found: Link) -> Link:
        taken_s = []
        for sequence in range(ECHOES + 1):
            begun = _now_s()
            await stub.Echo(EchoMessage(sequence=sequence), timeout=self._limit_s, metadata=rpc.metadata())
            taken_s.append(_now_s() - begun)
        echoes_ms = [1000 * one for one in taken_s[1:]]  # the first one also connected
        jitter_ms = statistics.mean(abs(after - before) for before, after in pairwise(echoes_ms))
        moved = found.moved_bytes + len(taken_s) * ECHO_BYTES
        return found.model_copy(
            update={"link_rtt_ms": statistics.median(echoes_ms), "link_jitter_ms": jitter_ms, "moved_bytes": moved}
        )

    async def _up(self, stub: "LinkProbeAsyncStub", found: Link) -> Link:
        begun = _now_s()
        chunks = _chunks(self._max_bytes, begun + self._limit_s)
        report = await stub.Sink(chunks, timeout=2 * self._limit_s, metadata=rpc.metadata())
        rate = report.received_bytes / (_now_s() - begun) / _MB
        moved = found.moved_bytes + report.received_bytes
        return found.model_copy(update={"link_up_mb_per_s": rate, "moved_bytes": moved})

    async def _down(self, stub: "LinkProbeAsyncStub", found: Link) -> Link:
        begun = _now_s()
        received = 0
        request = SourceRequest(bytes=self._max_bytes)
        call = stub.Source(request, timeout=2 * self._limit_s, metadata=rpc.metadata())
        async for chunk in call:
            received += len(chunk.data)
            if _now_s() > begun + self._limit_s:
                call.cancel()
                break
        rate, moved = received / (_now_s() - begun) / _MB, found.moved_bytes + received
        return found.model_copy(update={"link_down_mb_per_s": rate, "moved_bytes": moved})


def _without(found: Link, why: dict[str, str]) -> Link:
    return found.model_copy(update={"missing": found.missing | why})


async def _chunks(total: int, ends_s: float) -> AsyncIterator[ProbeChunk]:
    payload = os.urandom(min(total, PROBE_CHUNK_BYTES))
    for start in range(0, total, PROBE_CHUNK_BYTES):
        if _now_s() > ends_s:
            break
        yield ProbeChunk(data=payload[: total - start])


def _now_s() -> float:
    return asyncio.get_running_loop().time()
