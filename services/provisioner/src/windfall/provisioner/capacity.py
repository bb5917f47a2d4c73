"""The Capacity API over gRPC: the same decisions as the bus, for an outside scheduler."""

from collections.abc import AsyncIterator
from typing import Any, NoReturn
from uuid import UUID

import grpc

from windfall.contracts.v1 import capacity_pb2 as wire
from windfall.contracts.v1.capacity_pb2_grpc import CapacityServicer
from windfall.provisioner.app import Provisioner
from windfall.provisioner.holdings import Lease
from windfall.servicekit.errors import Transient
from windfall.servicekit.rpc import serving


class Capacity(CapacityServicer):
    """Serves one site's provisioner. Another site is NOT_FOUND, a window that is over FAILED_PRECONDITION."""

    def __init__(self, provisioner: Provisioner) -> None:
        self._provisioner = provisioner

    async def Plan(self, request: wire.PlanRequest, context: Any) -> wire.PlanReply:  # noqa: N802 - gRPC's name
        await self._check(request.site, context)
        backend, holder = self._provisioner.backend, self._provisioner.holdings.holder
        return wire.PlanReply(
            backend=backend.name, description=backend.describe(), held=_written(holder) if holder else None
        )

    async def Acquire(self, request: wire.AcquireRequest, context: Any) -> wire.Lease:  # noqa: N802
        await self._check(request.site, context)
        window_id = await _window(request.window_id, context)
        with serving(context, "windfall.contracts.v1.Capacity/Acquire"):
            try:
                lease = self._provisioner.acquire(window_id)
            except Transient as error:
                await _refuse(context, grpc.StatusCode.UNAVAILABLE, str(error))
        if lease is None:
            await _refuse(context, grpc.StatusCode.FAILED_PRECONDITION, f"window {window_id} is over")
        return _written(lease)

    async def Release(self, request: wire.ReleaseRequest, context: Any) -> wire.Lease:  # noqa: N802
        await self._check(request.site, context)
        window_id = await _window(request.window_id, context)
        with serving(context, "windfall.contracts.v1.Capacity/Release"):
            self._provisioner.give_back(window_id)
        lease = self._provisioner.holdings.of_window(window_id)
        if lease is None:
            state = wire.LEASE_STATE_RELEASED
            return wire.Lease(site=request.site, window_id=request.window_id, state=state, reason="there was no lease")
        return _written(lease)

    async def List(self, request: wire.ListRequest, context: Any) -> wire.ListReply:  # noqa: N802
        await self._check(request.site, context)
        return wire.ListReply(leases=map(_written, self._provisioner.holdings.leases))

    async def Watch(self, request: wire.WatchRequest, context: Any) -> AsyncIterator[wire.Lease]:  # noqa: N802
        await self._check(request.site, context)
        sent: dict[UUID, Lease] = {}
        while True:
            change = self._provisioner.change
            leases = {lease.lease_id: lease for lease in self._provisioner.holdings.leases}
            for lease_id, lease in leases.items():
                if sent.get(lease_id) != lease:
                    yield _written(lease)
            sent = leases
            # Waited for as it was before the writes: what changed during them is seen at once.
            await change.wait()

    async def _check(self, site: str, context: Any) -> None:
        ours = self._provisioner.site
        if site != ours:
            await _refuse(context, grpc.StatusCode.NOT_FOUND, f"this provisioner serves {ours!r}, not {site!r}")


async def _window(text: str, context: Any) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        await _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"window_id {text!r} is not a UUID")


async def _refuse(context: Any, code: grpc.StatusCode, why: str) -> NoReturn:
    await context.abort(code, why)
    raise AssertionError("abort does not return")


def _written(lease: Lease) -> wire.Lease:
    return wire.Lease(
        lease_id=str(lease.lease_id),
        site=lease.site,
        window_id=str(lease.window_id),
        token=lease.token,
        state=f"LEASE_STATE_{lease.state.name}",
        node=lease.node,
        reason=lease.why,
        changed_at=lease.changed_at,
    )
