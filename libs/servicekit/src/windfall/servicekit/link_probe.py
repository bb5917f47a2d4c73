"""The far end of a link measurement, served at both ends of every link, beside whatever else is served there."""

import os
from collections.abc import AsyncIterator
from typing import Any, Final

import grpc
import grpc.aio

from windfall.contracts.v1 import link_probe_pb2_grpc
from windfall.contracts.v1.link_probe_pb2 import EchoMessage, ProbeChunk, SinkReport, SourceRequest

PROBE_CAP_BYTES: Final = 64 * 1024 * 1024
"""The most that one Sink or Source call may move."""
PROBE_CHUNK_BYTES: Final = 256 * 1024
"""Smaller than a tensor's chunk, so that a slow link can be given up on between two."""

_Context = grpc.aio.ServicerContext[Any, Any]


class LinkProbeServicer(link_probe_pb2_grpc.LinkProbeServicer):
    """Answers probes, and bounds what they cost.

    Args:
        cap_bytes: the most that one call may move; more is refused with ``RESOURCE_EXHAUSTED``.
    """

    def __init__(self, cap_bytes: int = PROBE_CAP_BYTES) -> None:
        self._cap_bytes = cap_bytes
        # Random, so that nothing on the way can compress it and make the link look wider than it is for tensors.
        self._payload = os.urandom(PROBE_CHUNK_BYTES)

    async def Echo(self, request: EchoMessage, context: _Context) -> EchoMessage:  # noqa: N802 - gRPC's name
        return request

    async def Sink(self, request_iterator: AsyncIterator[ProbeChunk], context: _Context) -> SinkReport:  # noqa: N802
        received = 0
        async for chunk in request_iterator:
            received += len(chunk.data)
            if received > self._cap_bytes:
                await self._refuse(context)
        return SinkReport(received_bytes=received)

    async def Source(self, request: SourceRequest, context: _Context) -> AsyncIterator[ProbeChunk]:  # noqa: N802
        if request.bytes > self._cap_bytes:
            await self._refuse(context)
        for start in range(0, request.bytes, PROBE_CHUNK_BYTES):
            yield ProbeChunk(data=self._payload[: request.bytes - start])

    async def _refuse(self, context: _Context) -> None:
        await context.abort(
            grpc.StatusCode.RESOURCE_EXHAUSTED, f"a probe may move {self._cap_bytes} bytes, and this one asks for more"
        )
