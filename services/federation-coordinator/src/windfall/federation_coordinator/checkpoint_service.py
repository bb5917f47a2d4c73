"""The ``Checkpoints`` service: people read what is kept. It translates and refuses; it decides nothing."""

from collections.abc import AsyncIterator
from typing import Any, BinaryIO, Final

import grpc

from windfall.contracts.v1 import checkpoints_pb2 as pb
from windfall.contracts.v1 import checkpoints_pb2_grpc as rpc
from windfall.federation_coordinator.app import Coordinator
from windfall.federation_coordinator.offered import Offered, offered
from windfall.federation_coordinator.outer_step import Base
from windfall.federation_coordinator.turns import Turns
from windfall.lowcomm.layout import Layout
from windfall.servicekit.admission import site_shown
from windfall.servicekit.rpc import CHUNK_BYTES, serving

_AT_ONCE: Final = 2
"""Models on their way to people; sites wait for none of them."""
_SHOWN: Final = 60
"""Characters of a stranger's word that are said back."""


class CheckpointService(rpc.CheckpointsServicer):
    """See ``proto/windfall/contracts/v1/checkpoints.proto``."""

    def __init__(self, coordinator: Coordinator, sites: tuple[str, ...]) -> None:
        self._coordinator = coordinator
        self._sites = frozenset(sites)
        self._turns = Turns(_AT_ONCE)

    async def List(  # noqa: N802 - gRPC's name
        self, request: pb.ListCheckpointsRequest, context: Any
    ) -> pb.ListCheckpointsReply:
        with serving(context, "Checkpoints/List"):
            await self._admit(request.federation, context)
            nbytes = self._coordinator.model.layout.nbytes
            return pb.ListCheckpointsReply(
                federation=self._coordinator.state.name, checkpoints=[_told(one, nbytes) for one in self._offered]
            )

    async def Fetch(  # noqa: N802
        self, request: pb.FetchCheckpointRequest, context: Any
    ) -> AsyncIterator[pb.CheckpointFrame]:
        with serving(context, "Checkpoints/Fetch"):
            await self._admit(request.federation, context)
            one = next((each for each in self._offered if each.digest == request.digest), None)
            layout = self._coordinator.model.layout
            if one is None:
                await context.abort(grpc.StatusCode.NOT_FOUND, "this model is not kept any more")
            if request.offset > layout.nbytes:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the model has {layout.nbytes} bytes")
            assert one is not None
            await self._coordinator.mending.whole()
            base = self._coordinator.store.best() if one.apart else self._coordinator.store.base(one.starts)
            try:
                # An open file stays what it was, even when the next round prunes its name.
                file = base.path.open("rb", buffering=0)
            except FileNotFoundError:
                await context.abort(grpc.StatusCode.NOT_FOUND, "this model is not kept any more")
            with file:
                yield pb.CheckpointFrame(head=_head(one, layout))
                async with self._turns.one(base.nbytes - request.offset):
                    async for data in self._read(file, base, request.offset):
                        yield pb.CheckpointFrame(data=data)

    @property
    def _offered(self) -> tuple[Offered, ...]:
        return offered(self._coordinator.state, self._coordinator.kept)

    async def _read(self, file: BinaryIO, base: Base, offset: int) -> AsyncIterator[bytes]:
        file.seek(base.data_start + offset)
        for start in range(offset, base.nbytes, CHUNK_BYTES):
            # Beside the event loop: nobody has had this file in memory lately.
            yield await self._coordinator.offload(file.read, min(CHUNK_BYTES, base.nbytes - start))

    async def _admit(self, federation: str, context: Any) -> None:
        known = self._coordinator.state.name
        if federation and federation != known:
            await context.abort(
                grpc.StatusCode.NOT_FOUND, f"there is no federation {federation[:_SHOWN]!r} here; there is {known}"
            )
        site = site_shown(context)
        if not site:
            return
        strange = f"{site} is not a site of {known}" if self._sites and site not in self._sites else ""
        if because := strange or self._coordinator.closed_to(site):
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, because)


def _told(one: Offered, nbytes: int) -> pb.Checkpoint:
    told = pb.Checkpoint(
        starts=one.starts,
        digest=one.digest,
        bytes=nbytes,
        tokens=one.tokens_total,
        loss_nats=one.loss_nats,
        newest=one.newest,
        best=one.best,
    )
    if one.made_at is not None:
        told.made_at.FromDatetime(one.made_at)
    return told


def _head(one: Offered, layout: Layout) -> pb.CheckpointHead:
    tensors = [pb.CheckpointTensor(name=spec.name, shape=spec.shape) for spec in layout.tensors]
    tied = [pb.CheckpointTensor(name=name, tied_to=owner) for name, owner in layout.tied]
    return pb.CheckpointHead(checkpoint=_told(one, layout.nbytes), tensors=[*tensors, *tied])
